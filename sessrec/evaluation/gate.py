"""Whether a new run may take the place of an old one: no worse than a margin, as far as the test can tell."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from sessrec.errors import SessRecError
from sessrec.evaluation.bootstrap import (
    Interval,
    PooledMean,
    difference,
    pool_seeds,
    relative_difference,
    resampled_means,
)
from sessrec.evaluation.rank_table import gains, metric_name
from sessrec.evaluation.tested_runs import Run, incomparable
from sessrec.text import counted

Decision = Literal["pass", "fail", "unclear"]
EXIT_CODES: dict[Decision, int] = {"pass": 0, "fail": 3, "unclear": 4}
_RULE = re.compile(r"\s*([a-z]+@\d+)\s*>=\s*([+-]?\d*\.?\d+)\s*(%?)\s*", re.ASCII)
_RULES_OF_TEST = ("tie_mode", "exclude_last", "exclude_seen")


class GateRule(NamedTuple):
    """By how much a metric of the new run may be below that of the old one."""

    metric: str
    margin: float
    """The least change, negative where the new run may be worse: 0.01 is 1 %, or 0.01 of the metric."""
    is_share: bool
    """Whether the change is a share of the old run's metric."""


@dataclass(frozen=True)
class Verdict:
    """What a gate decides, and on what grounds."""

    decision: Decision
    reason: str
    """The grounds in one line."""
    metric: str
    new: float
    """The metric of the new run."""
    old: float
    """The metric of the old run."""
    change: float
    """From the old run to the new one, as the rule counts it; NaN as a share of 0."""
    low: float
    """Lower limit of the interval of the change."""
    high: float
    """Upper limit of the interval of the change."""
    positions: int
    """Positions whose target one of the models knows."""
    sessions: int
    """Sessions that have such positions."""

    def as_dict(self) -> dict[str, Any]:
        """Everything, with the exit code, for programs."""
        known = {name: None if value != value else value for name, value in asdict(self).items()}  # JSON has no NaN
        return known | {"exit_code": EXIT_CODES[self.decision]}


def read_rule(text: str) -> GateRule:
    """Read a rule such as ``mrr@20 >= -1%`` or ``recall@20 >= -0.005``.

    Raises:
        SessRecError: If it is none, or there is no such metric.

    Example:
        >>> read_rule("mrr@20 >= -1%")
        GateRule(metric='mrr@20', margin=-0.01, is_share=True)
    """
    found = _RULE.fullmatch(text)
    if found is None:
        raise SessRecError(f"--gate {text!r} is no rule: write 'mrr@20 >= -1%', or 'mrr@20 >= -0.002' without a share")
    metric, margin, percent = found.groups()
    gains(np.ones(1), metric)
    return GateRule(metric, float(margin) / (100 if percent else 1), bool(percent))


def decide(new: Run, old: Run, rule: GateRule, n_resamples: int = 1000, seed: int = 0, level: float = 0.95) -> Verdict:
    """Decide whether a new run is good enough, by the paired bootstrap over sessions.

    The catalogues of the two may differ, as those of two nights do: a target that one of the models does not know is a
    miss of that model.

    Args:
        new: The new run.
        old: The run that it is to replace, tested on the same test part by the same rules.
        rule: The rule.
        n_resamples: Resamples of the sessions.
        seed: Seed of the resamples.
        level: Share of cases in which the interval of the change holds the true one.

    Raises:
        SessRecError: If the runs were not tested alike.
    """
    sums, positions = _sums_of_sessions(new, old, rule.metric)
    own, resampled = sums.sum(axis=0) / positions.sum(), resampled_means(sums, positions, n_resamples, seed)
    one, other = (pool_seeds(resampled[:, [place]], own[[place]], len(sums)) for place in range(2))
    # new - (1 + margin) old, or new - (old + margin): above 0 where the new run is good enough, also where old is 0
    least = _scaled(other, 1 + rule.margin, 0.0) if rule.is_share else _scaled(other, 1.0, rule.margin)
    above = difference(one, least, level)
    decision: Decision = "fail" if above.high < 0 else "pass" if above.low >= 0 else "unclear"
    change = relative_difference(one, other, level) if rule.is_share else Interval(*difference(one, other, level)[:3])
    figures = (float(own[0]), float(own[1]), *change, int(positions.sum()), len(sums))
    return Verdict(decision, _reason(decision, rule, change, figures, level), rule.metric, *figures)


def _scaled(mean: PooledMean, factor: float, summand: float) -> PooledMean:
    return mean._replace(resampled=mean.resampled * factor + summand, value=mean.value * factor + summand)


def _sums_of_sessions(new: Run, old: Run, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Gains of both runs summed up over each session, shape (S, 2), and its positions, shape (S,)."""
    _check_same_test(new, old)
    is_same_part = new.report["protocol"]["data_digest"] == old.report["protocol"]["data_digest"]
    key = ["session", "position" if is_same_part else "event"]
    tables = []
    for run in (new, old):
        if key[1] not in run.ranks.table.column_names:
            raise SessRecError(f"{run.folder} was tested by an earlier release, with another catalogue: test it again")
        table = run.ranks.table.select([*key, "item"]).to_pandas().astype({"session": str, "item": str})
        if table.duplicated(key).any():
            raise SessRecError(f"{run.folder}: two test sessions have one id, so that runs cannot be paired")
        tables.append(table.assign(gain=gains(run.ranks.rank, metric)))
    paired = pd.merge(tables[0], tables[1], how="outer", on=key, suffixes=("_new", "_old"), sort=True)
    known = paired.dropna(subset=["item_new", "item_old"])
    if not len(known) or (known["item_new"] != known["item_old"]).any():
        raise SessRecError(f"{new.folder} and {old.folder} were tested on different sessions: test both on one part")
    by_session = paired.fillna({"gain_new": 0.0, "gain_old": 0.0}).groupby("session", sort=True)
    sums = by_session[["gain_new", "gain_old"]].sum()
    return sums.to_numpy(), by_session.size().to_numpy()


def _check_same_test(new: Run, old: Run) -> None:
    """Refuse runs of other rules, or of other sessions as far as their numbers tell."""
    rules = [{name: run.report["protocol"][name] for name in _RULES_OF_TEST} for run in (new, old)]
    counts = [
        {name: run.report.get("data", {}).get(name) for name in ("sessions_before", "events_before")}
        for run in (new, old)
    ]
    for name, value in (rules[0] | counts[0]).items():
        other = (rules[1] | counts[1])[name]
        if value != other:
            raise incomparable(new, old, name, value, other)
    if any(run.report["protocol"]["allowed_items"] != "all" for run in (new, old)):
        raise SessRecError("--gate takes tests among all items, without --allow and --exclude")


def _reason(decision: Decision, rule: GateRule, change: Interval, figures: tuple[Any, ...], level: float) -> str:
    def text(value: float) -> str:
        if value != value:
            return "unknown"
        return f"{value:+.2%}" if rule.is_share else f"{value:+.4f}"

    margin = text(rule.margin)
    meaning = {
        "pass": f"not worse than {margin}",
        "fail": f"worse than {margin}",
        "unclear": f"the test cannot tell whether it is worse than {margin}: test on more sessions",
    }[decision]
    new, old, *_, positions, sessions = figures
    limits = f"{level:.0%} interval {text(change.low)} to {text(change.high)}"
    return (
        f"{decision}: {metric_name(rule.metric)} {new:.4f} against {old:.4f}, {text(change.value)}, {limits}, over "
        f"{counted(positions, 'position')} of {counted(sessions, 'session')}; {meaning}"
    )
