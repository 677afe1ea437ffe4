"""Fit and test in one go, through the very commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sessrec import fit, test


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
