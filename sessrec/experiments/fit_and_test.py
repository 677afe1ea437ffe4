"""Fit and test in one go, through the very commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import sessrec.models
from sessrec import fit, test
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


def is_random(class_name: str) -> bool:
    """Whether the fit of a model draws random numbers; that of somebody else's model may.

    Args:
        class_name: Name of its class, with or without that of its module.
    """
    package, _, name = class_name.rpartition(".")
    own = getattr(sessrec.models, name, NeuralRecommender) if package in ("", "sessrec.models") else NeuralRecommender
    return issubclass(own, NeuralRecommender)
