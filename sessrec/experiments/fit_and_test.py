"""Fit and test in one go, through the very commands."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import yaml

import sessrec.models
from sessrec import fit, test
from sessrec.cli import SessRecCLI, user_error
from sessrec.errors import SessRecError
from sessrec.models.neural import NeuralRecommender

_PLAIN_LOG = {
    "session_column": "SessionId",
    "item_column": "ItemId",
    "time_column": "Time",
    "order_column": "null",
    "visitor_column": "null",
    "session_gap": "null",
    "event_column": "null",
    "events": "null",
    "column_names": "null",
    "separator": "null",
    "quoting": "null",
    "time_unit": "s",
    "time_format": "null",
    "expected": "null",
}
"""How a log is read that has the three columns."""


def fit_and_test(words: Sequence[str], run_name: str) -> Path:
    """Fit a model and test the checkpoint that the fit chose: `best` with a validation part, `last` without.

    A run of that name that is there already is gone on with; one that is finished is tested only, and refused where the
    words are not those that it was fitted with.

    Args:
        words: Words of the command line of fit.
        run_name: Name of the run.

    Returns:
        Folder of the run, with its ``metrics.json`` and ``ranks.parquet``.
    """
    run = Path("lightning_logs", run_name)
    fit.main([*words, "--trainer.logger.version", run_name, "--ckpt_path", "auto"])
    best = "best" if (run / "checkpoints" / "best.ckpt").exists() else "last"
    test.main(["--config", str(run / "config.yaml"), "--ckpt_path", best])
    return run


def plain_log_words(file: Path) -> list[str]:
    """Words that read a log of the columns SessionId, ItemId and Time (in seconds), whatever a config says of another.

    Args:
        file: The log.
    """
    return ["--data.path", str(file), *(w for name, value in _PLAIN_LOG.items() for w in (f"--data.{name}", value))]


def parsed(words: Sequence[str]) -> SessRecCLI:
    """Parse the words of a fit and build model, data and trainer, without fitting.

    Args:
        words: Words of the command line of fit.

    Raises:
        SessRecError: If fit would refuse them.
    """
    warnings.filterwarnings("ignore", "LightningCLI's args parameter")
    try:
        cli = SessRecCLI("fit", words)
        cli.build_model_and_data()
        cli.build_trainer()
    except Exception as error:
        fault = user_error(error)  # the parser wraps those of options
        if fault is None:
            raise
        raise SessRecError(str(fault)) from error
    return cli


def model_words(model: str) -> list[str]:
    """Words of fit that choose a model.

    Args:
        model: Name of a class, or a config.

    Raises:
        SessRecError: If there is no such config.
    """
    if not model.endswith((".yaml", ".yml")):
        return ["--model", model]
    if not Path(model).is_file():
        raise SessRecError(f"there is no config {model}")
    return ["--config", model]


def fit_seeds(model: str, words: Sequence[str], seeds: Sequence[int], name: str) -> list[Path]:
    """Fit and test a model with every seed; one that draws no random numbers is fitted once.

    Args:
        model: Name of a class, or a config.
        words: Words of the command line of fit, those that choose the model among them.
        seeds: The seeds.
        name: First part of the runs' names.

    Returns:
        Folders of the runs.
    """
    return [
        fit_and_test([*words, "--seed_everything", str(seed)], f"{name}-{seed}")
        for seed in (seeds if is_random(model) else seeds[:1])
    ]


def is_random(model: str) -> bool:
    """Whether the fit of a model draws random numbers; that of somebody else's model may.

    Args:
        model: Name of its class, with or without that of its module, or a config.
    """
    if model.endswith((".yaml", ".yml")):
        named = (yaml.safe_load(Path(model).read_text(encoding="utf-8")) or {}).get("model") or {}
        model = named if isinstance(named, str) else named.get("class_path", "")
    package, _, name = model.rpartition(".")
    own = getattr(sessrec.models, name, NeuralRecommender) if package in ("", "sessrec.models") else NeuralRecommender
    return issubclass(own, NeuralRecommender)
