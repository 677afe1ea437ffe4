"""Tested runs: read from their folders, grouped by model, and refused where they were not measured alike."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sessrec.click_log.row_index import ENGINE_OPTIONS
from sessrec.errors import SessRecError
from sessrec.evaluation.rank_table import RANKS_FILE, Ranks, gains, read_ranks
from sessrec.program import program

# what may differ between fits that are one model: where they lie and ran, and the seed
RESULT_NEUTRAL_OPTIONS = {"cache_dir", "eval_batch_size", *ENGINE_OPTIONS}
"""Options of the data that change no result."""
ADDED_OPTIONS = {"schedule": "constant", "schedule_unit": "step", "warmup": 0, "stair": 3, "bad_lines": "error"}
ADDED_OPTIONS |= {"process_drift": 0.0, "process_turnover": 0.0, "train_ratio_of": "sessions"}
ADDED_OPTIONS |= {"id_dropout": 0.1, "cold_items": False}
"""Options that runs of earlier releases lack, with the values that these had."""
_FREE_TRAINER_OPTIONS = {
    *("logger", "enable_progress_bar", "enable_model_summary", "log_every_n_steps", "default_root_dir"),
    *("accelerator", "num_sanity_val_steps", "profiler", "enable_checkpointing"),
}
PROTOCOL = (
    *("tie_mode", "items_ranked", "exclude_last", "exclude_seen", "positions", "sessions", "data_digest"),
    "items_digest",
    "allowed_items",
)
"""What has to be the same of two tests that are compared."""
_ADDED_RULES = {"allowed_items": "all"}
"""Rules that tests of earlier releases lack, with the only value that they had."""
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


def read_run(folder: str | Path) -> Run:
    """Read what a test left in a run's folder.

    Raises:
        SessRecError: If it is no tested run, or its files are damaged or do not belong together.
    """
    folder = Path(folder)
    file = folder / "metrics.json"
    if not file.is_file():
        raise SessRecError(f"{folder} is no tested run, it has no metrics.json: `{program('test')}` writes it")
    report = _read_json(file, ("model", "model_options", "seed", "seconds", "checkpoint", "metrics", "protocol"))
    report["protocol"] = _ADDED_RULES | report["protocol"]
    if missing := set(PROTOCOL) - report["protocol"].keys():
        raise SessRecError(f"{file} does not say {min(missing)}: test the run again")
    ranks = read_ranks(folder / RANKS_FILE)
    digest = hashlib.sha256((folder / RANKS_FILE).read_bytes()).hexdigest()
    metrics = {name.removeprefix("test/"): value for name, value in report["metrics"].items()}
    if (
        report.get("ranks_digest", digest) != digest
        or ranks.tie_mode != report["protocol"]["tie_mode"]
        or len(ranks) != report["protocol"]["positions"]
        or not all(abs(gains(ranks.rank, name).mean() - value) < 1e-9 for name, value in metrics.items())
    ):
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
        data = _given({name: value for name, value in config["data"].items() if name not in RESULT_NEUTRAL_OPTIONS})
        trainer = {name: value for name, value in config["trainer"].items() if name not in _FREE_TRAINER_OPTIONS}
        kept = [report["model"], _given(report["model_options"]), data, trainer, config["monitor"]]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise SessRecError(f"{config_file} is damaged or no config of a fit ({reason})") from None
    return json.dumps([*kept, Path(report["checkpoint"]).name], sort_keys=True)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Options without those that an earlier release may lack: null, or added with the value that was the only one."""
    return {
        name: value
        for name, value in options.items()
        if value is not None and (name not in ADDED_OPTIONS or value != ADDED_OPTIONS[name])
    }


def group_runs(runs: Sequence[Run], prefix: str = "") -> dict[str, list[Run]]:
    """Put runs that differ in their seeds only together, and give each model a name.

    The name is the run's, without the seed at its end and without what all names begin with: the prefix, or what is
    found where not all do.

    Raises:
        SessRecError: If a run is given twice, or two models would have one name.
    """
    folders = [run.folder.resolve() for run in runs]
    if doubled := [run.folder for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1]:
        raise SessRecError(f"the run {doubled[0]} is given twice")
    by_settings: dict[str, list[Run]] = {run.settings: [] for run in runs}
    for run in sorted(runs, key=lambda run: run.report["seed"] or 0):  # so that draws of them do not hang on the order
        by_settings[run.settings].append(run)
    groups = list(by_settings.values())
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


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse to compare what was not measured alike.

    Raises:
        SessRecError: If test data or rules differ.
    """
    first = runs[0]
    for run, name in itertools.product(runs[1:], PROTOCOL):
        value, own = first.report["protocol"][name], run.report["protocol"][name]
        if own != value:
            if name in _DIGESTS:
                value, own = f"one {_DIGESTS[name]}", "another"
            raise incomparable(first, run, name, value, own)


def incomparable(run: Run, other: Run, name: str, value: Any, others: Any) -> SessRecError:
    """The error for two runs that differ in a rule, or in a figure of their data, of a name."""
    return SessRecError(
        f"{run.folder} and {other.folder} cannot be compared: {name.replace('_', ' ')} {value} against {others}; test "
        "them on the same data by the same rules"
    )
