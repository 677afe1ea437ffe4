"""Compare tested runs: metrics with intervals, paired differences, several seeds as one model."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sessrec.bootstrap import Difference, Interval, PooledMean, difference, holm, interval, pool_seeds, resampled_means
from sessrec.errors import SessRecError
from sessrec.ranks import RANKS_FILE, Ranks, gains, read_ranks

# what may differ between fits that are one model: where they lie and ran, and the seed
_FREE_OPTIONS = {"cache_dir", "eval_batch_size"}
_FREE_TRAINER_OPTIONS = {
    *("logger", "enable_progress_bar", "enable_model_summary", "log_every_n_steps", "default_root_dir"),
    *("accelerator", "num_sanity_val_steps", "profiler", "enable_checkpointing"),
}
PROTOCOL = (
    *("tie_mode", "items_ranked", "exclude_last", "exclude_seen", "positions", "sessions", "data_digest"),
    "items_digest",
)
"""What has to be the same of two tests that are compared."""
_DIGESTS = {"data_digest": "test part", "items_digest": "catalogue"}


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
        SessRecError: If it is no tested run, or its files are damaged or do not belong together.
    """
    folder = Path(folder)
    file = folder / "metrics.json"
    if not file.is_file():
        raise SessRecError(f"{folder} is no tested run, it has no metrics.json: `python -m sessrec.test` writes it")
    report = _read_json(file, ("model", "model_options", "seed", "seconds", "checkpoint", "metrics", "protocol"))
    if missing := set(PROTOCOL) - report["protocol"].keys():
        raise SessRecError(f"{file} does not say {min(missing)}: test the run again")
    ranks = read_ranks(folder / RANKS_FILE)
    file_digest = hashlib.sha256((folder / RANKS_FILE).read_bytes()).hexdigest()
    is_one_test = report.get("ranks_digest", file_digest) == file_digest
    is_one_test = (
        is_one_test
        and ranks.tie_mode == report["protocol"]["tie_mode"]
        and len(ranks) == report["protocol"]["positions"]
    )
    for name, value in report["metrics"].items():
        is_one_test = is_one_test and abs(gains(ranks.rank, name.removeprefix("test/")).mean() - value) < 1e-9
    if not is_one_test:
        raise SessRecError(f"{folder}: metrics.json and {RANKS_FILE} are of two tests, or damaged: test the run again")
    fit_file = folder / "fit.json"
    fit_seconds = _read_json(fit_file, ("seconds",))["seconds"] if fit_file.is_file() else None
    return Run(folder, report, ranks, _settings(folder, report), fit_seconds)


def _read_json(file: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Content of a run's file that has at least some keys."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return content | {key: content[key] for key in keys}
    except (ValueError, KeyError, TypeError) as error:
        raise SessRecError(f"{file} is damaged or incomplete ({error!r}): remove it, or make the run again") from None


def _settings(folder: Path, report: dict[str, Any]) -> str:
    """What tells the models of runs apart."""
    config_file = folder / "config.yaml"
    if not config_file.is_file():
        return str(folder)  # nothing is known of it: a model of its own
    try:
        config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
        data = {name: value for name, value in config["data"].items() if name not in _FREE_OPTIONS}
        trainer = {name: value for name, value in config["trainer"].items() if name not in _FREE_TRAINER_OPTIONS}
        kept = [report["model"], report["model_options"], data, trainer, config["monitor"]]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise SessRecError(f"{config_file} is damaged or no config of a fit ({reason})") from None
    return json.dumps([*kept, Path(report["checkpoint"]).name], sort_keys=True)


def group_runs(runs: Sequence[Run], prefix: str = "") -> dict[str, list[Run]]:
    """Put runs that differ in their seeds only together, and give each model a name.

    The name is the run's, without the seed at its end and without what all names begin with.

    Args:
        runs: Tested runs.
        prefix: What all names begin with, where it is known; else it is looked for.

    Raises:
        SessRecError: If a run is given twice, or two models would have one name.
    """
    folders = [run.folder.resolve() for run in runs]
    if doubled := [run.folder for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1]:
        raise SessRecError(f"the run {doubled[0]} is given twice")
    by_settings: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.report["seed"] or 0):  # so that draws of them do not hang on the order
        by_settings.setdefault(run.settings, []).append(run)
    groups = [by_settings[settings] for settings in dict.fromkeys(run.settings for run in runs)]
    for group in groups:
        for run, other in itertools.pairwise(group):
            if run.report["seed"] == other.report["seed"]:
                raise SessRecError(
                    f"{run.folder} and {other.folder} are of one model and one seed: they would count twice"
                )
    names = [_name(group) for group in groups]
    common = prefix if all(name.startswith(prefix) for name in names) else ""
    if not common and len(names) > 1:
        common = os.path.commonprefix(names)
        common = common[: common.rfind("-") + 1]
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
    for run, name in itertools.product(runs[1:], PROTOCOL):
        value, own = first.report["protocol"][name], run.report["protocol"][name]
        if own != value:
            if name in _DIGESTS:
                value, own = f"one {_DIGESTS[name]}", "another"
            raise SessRecError(
                f"{first.folder} and {run.folder} cannot be compared: {name.replace('_', ' ')} {value} against "
                f"{own}; test them on the same data by the same rules"
            )


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
    refuse_unlike(runs)
    groups = group_runs(runs, prefix)
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
        (name, metric): difference(pooled[name][metric], pooled[against][metric], level)
        for name in others
        for metric in metrics
    }
    corrected = dict(zip(differences, holm([one.p for one in differences.values()]), strict=True))
    models = [
        ComparedModel(
            name,
            groups[name],
            {metric: interval(pooled[name][metric], level) for metric in metrics},
            {metric: pooled[name][metric].by_fit for metric in metrics},
            {} if name == against else {m: differences[name, m]._replace(p=corrected[name, m]) for m in metrics},
        )
        for name in order
    ]
    return Comparison(models, against, runs[0].report["protocol"], n_resamples, level)
