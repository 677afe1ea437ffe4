"""Tables of a roll: each model in each window, means over windows, and quality against the model's age."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from sessrec.evaluation.bootstrap import Difference, Interval, holm
from sessrec.evaluation.comparison_tables import difference_cells
from sessrec.evaluation.rank_table import metric_name
from sessrec.evaluation.windows import concordance, difference_over_windows, mean_over_windows, relative_loss
from sessrec.text import Table, date_text, seconds_text


class Age(NamedTuple):
    """What a model of some age loses against one that is fitted anew at each cut."""

    age: int
    """Steps since its cut."""
    loss: Interval
    """Share of the metric that is lost at this age."""
    loss_until: Interval
    """Share that is lost with a new model every ``age + 1`` steps, in which all ages up to this one occur."""
    steps: int
    """Steps of time in which both were tested."""
    unknown: float
    """Share of the positions whose target it does not know."""


class Rolled(NamedTuple):
    """What a roll has found."""

    cells: Mapping[str, pd.DataFrame]
    """Of each row, see `cells_of_run`; those of all of its fits."""
    fit_seconds: Mapping[str, Sequence[float]]
    """Time of each fit of the row: one a window, or one for all."""
    windows: pd.DataFrame
    """Figures of each window, see `write_window`."""
    metrics: Sequence[str]
    """The last one gives the order."""
    step: str
    """Length of a step, as the user gives it."""
    n_steps: int
    """Ages at which models were tested."""

    def is_retrained(self, row: str) -> bool:
        """Whether the row's model is fitted in every window."""
        return len(self.fit_seconds[row]) == len(self.windows)

    def seconds_a_step(self, row: str) -> float:
        """Time of the row's fits, on average over the windows."""
        return sum(self.fit_seconds[row]) / len(self.windows)

    def by_window(self, row: str, metric: str) -> np.ndarray:
        """A row's metric in each window, over the first step after its cut, shape (W,)."""
        fresh = self.in_windows(row)
        return (fresh[metric] / fresh["positions"]).to_numpy()

    def ranked_by_window(self, row: str, metric: str) -> np.ndarray:
        """The same over the positions that a test ranks: those of unknown targets are left out."""
        return self.in_windows(row)[f"ranked {metric}"].to_numpy()

    def in_windows(self, row: str) -> pd.DataFrame:
        """A row's cells in the first step after each cut."""
        cells = self.cells[row]
        if self.is_retrained(row):
            cells = cells[cells["age"] == 0]
        return cells[cells["step"] < len(self.windows)].sort_values("step")

    def order(self) -> list[str]:
        """The rows, the best first."""
        return sorted(self.cells, key=lambda row: -self.by_window(row, self.metrics[-1]).mean())

    def differences(self) -> dict[str, dict[str, Difference]]:
        """Paired differences of each row to the best one by metric; p values corrected for their number (Holm)."""
        best, *others = self.order()
        found = {
            (row, metric): difference_over_windows(self.by_window(row, metric), self.by_window(best, metric))
            for row in others
            for metric in self.metrics
        }
        for key, p in zip(found, holm([one.p for one in found.values()]), strict=True):
            found[key] = found[key]._replace(p=p)
        return {row: {metric: found[row, metric] for metric in self.metrics} for row in others}

    def ages(self, row: str, metric: str) -> list[Age]:
        """What a row's models lose with their age; empty where they are tested at one age only."""
        if not self.is_retrained(row):
            return []
        cells = self.cells[row].set_index(["age", "step"]).sort_index()
        sums = {age: cells.loc[age][metric] for age in set(cells.index.get_level_values("age"))}
        counts = cells.groupby("age")[["unknown_targets", "positions"]].sum()
        shares = counts["unknown_targets"] / counts["positions"]
        found = []
        for age in range(self.n_steps):
            both = sums[0].index.intersection(sums.get(age, pd.Series(dtype=float)).index)
            if not len(both):
                break
            all_ages = [step for step in both if all(step in sums[younger].index for younger in range(age))]
            until = np.mean([sums[younger].loc[all_ages] for younger in range(age + 1)], axis=0)
            fresh = sums[0]
            loss = relative_loss(sums[age].loc[both].to_numpy(), fresh.loc[both].to_numpy())
            found.append(
                Age(age, loss, relative_loss(until, fresh.loc[all_ages].to_numpy()), len(both), float(shares[age]))
            )
        return found


def means_table(rolled: Rolled) -> Table:
    """Mean of each metric over windows with its interval, and in how many windows the row is first."""
    order, last = rolled.order(), rolled.metrics[-1]
    values = np.stack([rolled.by_window(row, last) for row in order])
    first = (values == values.max(axis=0)).sum(axis=1)
    head = ["model", *map(metric_name, rolled.metrics), f"{metric_name(last)} as ranked", "first in", "fit a step"]
    rows = [
        [
            row,
            *(str(mean_over_windows(rolled.by_window(row, metric))) for metric in rolled.metrics),
            f"{rolled.ranked_by_window(row, last).mean():.4f}",
            f"{first[place]} of {values.shape[1]}",
            seconds_text(rolled.seconds_a_step(row)),
        ]
        for place, row in enumerate(order)
    ]
    return Table(head, rows)


def differences_table(rolled: Rolled) -> Table:
    """Paired differences to the best row over windows; a star where the corrected p value is below 0.05."""
    head = [f"minus {rolled.order()[0]}"]
    for metric in rolled.metrics:
        head += [metric_name(metric), "p"]
    rows = []
    for row, by_metric in rolled.differences().items():
        cells = [row]
        for d in by_metric.values():
            # one window tells nothing of others
            cells += [f"{d.value:+.4f}", "-"] if d.low != d.low else difference_cells(d)
        rows.append(cells)
    return Table(head, rows)


def order_text(rolled: Rolled) -> str:
    """How far the order of the rows is the same in all windows; empty for one row or one window."""
    values = np.stack([rolled.by_window(row, rolled.metrics[-1]) for row in rolled.order()])
    if min(values.shape) < 2:
        return ""
    return (
        f"The order by {metric_name(rolled.metrics[-1])} over the windows has Kendall's W {concordance(values):.2f}: 1 "
        "is the same order in every window."
    )


def windows_table(rolled: Rolled) -> Table:
    """The last metric of each row in each window."""
    order, metric = rolled.order(), rolled.metrics[-1]
    head = ["cut", "training sessions", "test positions", "targets unknown", *order]
    values = {row: rolled.by_window(row, metric) for row in order}
    best = rolled.in_windows(order[0])
    unknown = best["unknown_targets"] / best["positions"]
    rows = [
        [
            date_text(float(cut)).removesuffix(" UTC"),
            f"{n_sessions:,}",
            f"{n_positions:,}",
            f"{share:.1%}",
            *(f"{values[row][place]:.4f}" for row in order),
        ]
        for place, (cut, n_sessions, n_positions, share) in enumerate(
            zip(rolled.windows["cut"], rolled.windows["train_sessions"], best["positions"], unknown, strict=True)
        )
    ]
    return Table(head, rows)


def ages_table(rolled: Rolled) -> Table | None:
    """What each row loses with its age, and with fewer fits; None where models are tested at one age only."""
    metric = rolled.metrics[-1]
    rows = []
    for row in rolled.order():
        for age in rolled.ages(row, metric):
            seconds = rolled.seconds_a_step(row) / (age.age + 1)
            rows.append(
                [
                    row,
                    str(age.age),
                    percent_text(age.loss),
                    f"{age.unknown:.1%}",
                    f"every {age.age + 1}" if age.age else "every step",
                    percent_text(age.loss_until),
                    seconds_text(seconds),
                    str(age.steps),
                ]
            )
    if all(row[1] == "0" for row in rows):
        return None
    name = metric_name(metric)
    head = ["model", "age", f"{name} lost", "targets unknown", "fitted", f"{name} lost so", "fit a step", "steps"]
    return Table(head, rows)


def percent_text(interval: Interval) -> str:
    """An interval of shares in percent.

    Example:
        >>> percent_text(Interval(0.021, 0.01, 0.032))
        '2.1 % [1.0, 3.2]'
    """
    value = f"{100 * interval.value:.1f} %"
    return value if interval.low != interval.low else f"{value} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def cells_csv(rolled: Rolled) -> str:
    """Everything by row, window and step, for programs."""
    tables = [cells.assign(model=row) for row, cells in rolled.cells.items()]
    whole = pd.concat(tables, ignore_index=True)
    return whole[["model", *(name for name in whole.columns if name != "model")]].to_csv(index=False)
