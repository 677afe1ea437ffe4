"""Compare tested runs: metrics with intervals, paired differences, several seeds as one model."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from sessrec.bootstrap import Difference, Interval, difference, holm, interval, pool_seeds, resampled_means
from sessrec.errors import SessRecError
from sessrec.ranks import RANKS_FILE, Ranks, gains, read_ranks

# what may differ between fits that are one model: where they lie and ran, and the seed
_FREE_OPTIONS = {"cache_dir", "eval_batch_size"}
_RESULT_OPTIONS = (
    "max_epochs",
    "max_steps",
    "limit_train_batches",
    "overfit_batches",
    "precision",
    "gradient_clip_val",
)


@dataclass(frozen=True)
class Run:
    """A tested run.

    Args:
        folder: Its folder.
        report: Content of its ``metrics.json``.
        ranks: Its ranks.
        settings: All options that its results follow from but the seed, as text; equal for fits of one model.
        fit_seconds: How long its fit took, None where that is not known.
    """

    folder: Path
    report: dict[str, Any]
    ranks: Ranks
    settings: str
    fit_seconds: float | None


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


def read_run(folder: str | Path) -> Run:
    """Read what a test left in a run's folder.

    Args:
        folder: The run's folder.

    Raises:
        SessRecError: If it is no tested run, or its files do not belong together.
    """
    folder = Path(folder)
    file = folder / "metrics.json"
    if not file.is_file():
        raise SessRecError(f"{folder} is no tested run, it has no metrics.json: `python -m sessrec.test` writes it")
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        positions = report["protocol"]["positions"]
    except (ValueError, KeyError, TypeError) as error:
        raise SessRecError(f"{file} cannot be read ({error!r}): test the run again") from None
    ranks = read_ranks(folder / RANKS_FILE)
    if len(ranks) != positions or ranks.tie_mode != report["protocol"]["tie_mode"]:
        raise SessRecError(f"{folder}: metrics.json and {RANKS_FILE} are of two tests: test the run again")
    fit_file = folder / "fit.json"
    fit_seconds = json.loads(fit_file.read_text(encoding="utf-8"))["seconds"] if fit_file.is_file() else None
    return Run(folder, report, ranks, _settings(folder, report), fit_seconds)


def _settings(folder: Path, report: dict[str, Any]) -> str:
    """What tells the models of runs apart."""
    config_file = folder / "config.yaml"
    if not config_file.is_file():
        return str(folder)  # nothing is known of it: a model of its own
    config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    data = {name: value for name, value in config["data"].items() if name not in _FREE_OPTIONS}
    trainer = {name: config["trainer"].get(name) for name in _RESULT_OPTIONS}
    return json.dumps([report["model"], report["model_options"], data, trainer, config["monitor"]], sort_keys=True)


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Put runs that differ in their seeds only together, and give each model a name.

    The name is the run's, without the seed at its end and without what all names begin with.

    Args:
        runs: Tested runs.

    Raises:
        SessRecError: If a run is given twice, or two models would have one name.
    """
    folders = [run.folder.resolve() for run in runs]
    if doubled := [run.folder for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1]:
        raise SessRecError(f"the run {doubled[0]} is given twice")
    by_settings: dict[str, list[Run]] = {}
    for run in runs:
        by_settings.setdefault(run.settings, []).append(run)
    groups = list(by_settings.values())
    for group in groups:
        seeds = [run.report["seed"] for run in group]
        if len(set(seeds)) < len(seeds):
            raise SessRecError(
                f"{group[0].folder} and {group[-1].folder} are of one model and one seed: they would count twice"
            )
    names = [_name(group) for group in groups]
    common = os.path.commonprefix(names)
    common = common[: common.rfind("-") + 1] if len(names) > 1 else ""
    short = [name[len(common) :] for name in names]
    if len(set(short)) < len(short):
        short = [str(group[0].folder) for group in groups]
    return dict(zip(short, groups, strict=True))


def _name(group: list[Run]) -> str:
    """Name of a model's runs without the seed."""
    own = {run.folder.resolve().name.removesuffix(f"-{run.report['seed']}") for run in group}
    if len(own) == 1:
        return own.pop()
    return os.path.commonprefix(sorted(own)).rstrip("-_") or group[0].report["model"]


def refuse_unlike(runs: Sequence[Run]) -> None:
    """Refuse to compare what was not measured alike.

    Args:
        runs: Tested runs.

    Raises:
        SessRecError: If test data or rules differ.
    """
    first = runs[0]
    for run in runs[1:]:
        for name, value in first.report["protocol"].items():
            own = run.report["protocol"].get(name)
            if own != value:
                if name == "data_digest":
                    value, own = "one test part", "another"
                raise SessRecError(
                    f"{first.folder} and {run.folder} cannot be compared: {name.replace('_', ' ')} {value} against "
                    f"{own}; test them on the same data by the same rules"
                )


class PooledMean(NamedTuple):
    """A mean over positions of a model, over all of its runs."""

    resampled: np.ndarray
    """Its value in resamples of the sessions and seeds, float64, shape (B,)."""
    value: float
    """Its value."""
    by_run: list[float]
    """Each run's own."""


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
        values = values_of(run)
        if inside is not None:
            values = [value * part for value, part in zip(values, inside, strict=True)]
        columns += [np.bincount(session, value, n_sessions) for value in values]
    n_means = len(columns) // len(runs)
    parts = [np.ones(len(session), dtype=bool)] * n_means if inside is None else inside
    positions = np.stack([np.bincount(session, part, n_sessions) for part in parts], axis=1)
    sums = np.stack(columns, axis=1)
    counts = np.tile(positions, (1, len(runs)))
    with np.errstate(invalid="ignore"):
        own = (sums.sum(axis=0) / counts.sum(axis=0)).reshape(len(runs), n_means)
    means = resampled_means(sums, counts, n_resamples, seed).reshape(n_resamples, len(runs), n_means)
    found: dict[str, list[PooledMean]] = {}
    for name in models:
        which = [number for number, (own_name, _) in enumerate(runs) if own_name == name]
        found[name] = [
            PooledMean(
                *pool_seeds(means[:, which, place], own[which, place], (seed, which[0])), own[which, place].tolist()
            )
            for place in range(n_means)
        ]
    return found


def compare_runs(
    runs: Sequence[Run],
    metrics: Sequence[str] = ("recall@20", "mrr@20"),
    against: str | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Compare tested runs.

    Args:
        runs: The runs.
        metrics: Metrics such as ``recall@20``; the last one gives the order.
        against: Name of the model that the others are compared to; the best one where None.
        n_resamples: Resamples of the sessions.
        seed: Seed of the resamples.
        level: Share of cases in which an interval holds the true mean.

    Raises:
        SessRecError: If the runs were not measured alike, or there is no such model or metric.
    """
    refuse_unlike(runs)
    groups = group_runs(runs)
    n_sessions = runs[0].report["protocol"]["sessions"]
    found = pooled_means(
        groups, lambda run: [gains(run.ranks.rank, metric) for metric in metrics], None, n_resamples, seed
    )
    pooled = {name: dict(zip(metrics, means, strict=True)) for name, means in found.items()}
    order = sorted(groups, key=lambda name: -pooled[name][metrics[-1]].value)
    against = order[0] if against is None else against
    if against not in groups:
        raise SessRecError(f"there is no model {against} to compare to; there are {', '.join(order)}")
    others = [name for name in order if name != against]
    differences = {
        (name, metric): difference(
            pooled[name][metric].resampled,
            pooled[against][metric].resampled,
            pooled[name][metric].value - pooled[against][metric].value,
            n_sessions,
            level,
        )
        for name in others
        for metric in metrics
    }
    corrected = dict(zip(differences, holm([one.p for one in differences.values()]), strict=True))
    models = [
        ComparedModel(
            name,
            groups[name],
            {metric: interval(*pooled[name][metric][:2], level) for metric in metrics},
            {metric: pooled[name][metric].by_run for metric in metrics},
            {} if name == against else {m: differences[name, m]._replace(p=corrected[name, m]) for m in metrics},
        )
        for name in order
    ]
    return Comparison(models, against, runs[0].report["protocol"], n_resamples, level)
