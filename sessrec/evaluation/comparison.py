"""Compare tested runs: metrics with intervals, paired differences, several seeds as one model."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sessrec.errors import SessRecError
from sessrec.evaluation.bootstrap import (
    Difference,
    Interval,
    PooledMean,
    difference,
    holm,
    interval,
    pool_seeds,
    resampled_means,
)
from sessrec.evaluation.rank_table import gains
from sessrec.evaluation.tested_runs import Run, check_comparable, group_runs


@dataclass(frozen=True)
class ComparedModel:
    """A model among others: one run, or several that differ in their seeds only."""

    name: str
    runs: list[Run]
    metrics: dict[str, Interval]
    """Mean over its runs, by metric."""
    by_run: dict[str, list[float]]
    """Each run's own value, by metric."""
    differences: dict[str, Difference]
    """Against the chosen model, by metric; p values corrected for their number. Empty for that model itself."""

    @property
    def fit_seconds(self) -> float | None:
        """Median time of its fits; None where it is not known."""
        known = [run.fit_seconds for run in self.runs if run.fit_seconds is not None]
        return statistics.median(known) if known else None

    @property
    def test_seconds(self) -> float:
        """Median time of its tests."""
        return statistics.median(run.report["seconds"] for run in self.runs)


@dataclass(frozen=True)
class Comparison:
    """Models under the same protocol, the best first."""

    models: list[ComparedModel]
    against: str
    """Name of the model that the differences are taken to."""
    protocol: dict[str, Any]
    n_resamples: int
    level: float


def pooled_means(
    models: Mapping[str, Sequence[Run]],
    values_of: Callable[[Run], Sequence[np.ndarray]],
    inside: Sequence[np.ndarray] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, list[PooledMean]]:
    """Average something over the positions of every model's runs, with resamples of the same sessions for all.

    Args:
        models: Runs of each model, all of the same test.
        values_of: Gives what is averaged, some arrays of shape (P,) for each run.
        inside: Which positions each array is averaged over, bool, shape (P,); all where None.
        n_resamples: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        One mean an array, for each model.
    """
    runs = [(name, run) for name, group in models.items() for run in group]
    session = runs[0][1].ranks.session
    n_sessions = int(session[-1]) + 1
    columns: list[np.ndarray] = []
    for _, run in runs:
        for place, value in enumerate(values_of(run)):
            columns.append(np.bincount(session, value if inside is None else value * inside[place], n_sessions))
    n_means = len(columns) // len(runs)
    parts = [np.ones(len(session), dtype=bool)] * n_means if inside is None else inside
    positions = np.stack([np.bincount(session, part, n_sessions) for part in parts], axis=1)
    sums, n_filled = np.stack(columns, axis=1), np.count_nonzero(positions, axis=0).tolist()
    # over all positions the means have one and the same count, which need not be summed up for each of them
    counts = positions[:, 0] if inside is None else np.tile(positions, (1, len(runs)))
    with np.errstate(invalid="ignore"):
        own = (sums.sum(axis=0) / counts.sum(axis=0)).reshape(len(runs), n_means)
    means = resampled_means(sums, counts, n_resamples, seed).reshape(n_resamples, len(runs), n_means)
    found: dict[str, list[PooledMean]] = {}
    for name, group in models.items():
        which = [number for number, (own_name, _) in enumerate(runs) if own_name == name]
        own_seed = (seed, *hashlib.sha256(group[0].settings.encode()).digest())  # in whatever order the runs are given
        found[name] = [
            pool_seeds(means[:, which, place], own[which, place], n_filled[place], own_seed) for place in range(n_means)
        ]
    return found


def compare_runs(
    runs: Sequence[Run],
    metrics: Sequence[str] = ("recall@20", "mrr@20"),
    against: str | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    prefix: str = "",
) -> Comparison:
    """Compare tested runs.

    Args:
        runs: The runs.
        metrics: Metrics such as ``recall@20``; the last one gives the order.
        against: Name of the model that the others are compared to; the best one where None.
        n_resamples: Resamples of the sessions.
        seed: Seed of the resamples.
        level: Share of cases in which an interval holds the true mean.
        prefix: See `group_runs`.

    Raises:
        SessRecError: If the runs were not measured alike, or there is no such model or metric.
    """
    check_comparable(runs)
    groups = group_runs(runs, prefix)
    found = pooled_means(
        groups, lambda run: [gains(run.ranks.rank, metric) for metric in metrics], None, n_resamples, seed
    )
    pooled = {name: dict(zip(metrics, means, strict=True)) for name, means in found.items()}
    order = sorted(groups, key=lambda name: -pooled[name][metrics[-1]].value)
    against = order[0] if against is None else against
    if against not in groups:
        raise SessRecError(f"there is no model {against} to compare to; there are {', '.join(order)}")
    differences = {
        (name, metric): difference(pooled[name][metric], pooled[against][metric], level)
        for name in order
        if name != against
        for metric in metrics
    }
    for key, p in zip(differences, holm([one.p for one in differences.values()]), strict=True):
        differences[key] = differences[key]._replace(p=p)
    models = [
        ComparedModel(
            name,
            groups[name],
            {metric: interval(mean, level) for metric, mean in pooled[name].items()},
            {metric: mean.by_fit for metric, mean in pooled[name].items()},
            {metric: differences[name, metric] for metric in metrics if name != against},
        )
        for name in order
    ]
    return Comparison(models, against, runs[0].report["protocol"], n_resamples, level)
