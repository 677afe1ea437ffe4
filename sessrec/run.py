"""A run's folder: its checkpoints, and what is printed and kept beside them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from sessrec.errors import SessRecError
from sessrec.models.base import SessionRecommender
from sessrec.report import write_json


def checkpoint_callbacks(monitor: str, has_validation: bool) -> list[Callback]:
    """Keep ``last.ckpt`` every epoch, and ``best.ckpt`` by a validation metric where there is a validation part."""
    last = ModelCheckpoint(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    best = ModelCheckpoint(filename="best", monitor=monitor, mode="max", enable_version_counter=False)
    return [best, last] if has_validation else [last]


def resolve_checkpoint(ckpt_path: str, run_folder: Path) -> Path:
    """The file that ``best``, ``last`` or a path names.

    Raises:
        SessRecError: If there is no such file.
    """
    file = run_folder / "checkpoints" / f"{ckpt_path}.ckpt" if ckpt_path in ("best", "last") else Path(ckpt_path)
    if not file.is_file():
        hint = "; a run without validation keeps only last" if ckpt_path == "best" else ""
        raise SessRecError(f"no checkpoint {file} (--ckpt_path {ckpt_path}{hint})")
    return file


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read a checkpoint of sessrec; nothing in the file is executed.

    Raises:
        SessRecError: If the file is damaged or no checkpoint of sessrec.
    """
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise SessRecError(f"cannot read {file}: it is damaged or no checkpoint ({type(error).__name__})") from error
    if not isinstance(checkpoint, dict) or "vocabulary" not in checkpoint:
        raise SessRecError(f"{file} is no checkpoint of sessrec")
    return checkpoint


def free_run_name(log_folder: Path, model: str) -> str:
    """The first of ``model-1``, ``model-2``, ... that no run has yet."""
    number = 1
    while (log_folder / f"{model}-{number}").exists():
        number += 1
    return f"{model}-{number}"


def refuse_taken_run(run_folder: Path, checkpoint: Path | None) -> None:
    """Refuse a fit that would overwrite a run's checkpoints without going on from them.

    Raises:
        SessRecError: If the run has checkpoints and the fit starts from none of them, or goes on outside its run.
    """
    own = checkpoint is not None and checkpoint.resolve().parent == (run_folder / "checkpoints").resolve()
    config = run_folder / "config.yaml"
    if checkpoint is not None and not own:
        raise SessRecError(
            f"{checkpoint} is not of the run {run_folder}: a fit goes on in its own run, by --config RUN/config.yaml "
            "--ckpt_path last"
        )
    if not own and any((run_folder / "checkpoints").glob("*.ckpt")):
        raise SessRecError(
            f"the run {run_folder} exists: give another --trainer.logger.version, or go on with it: --config {config} "
            "--ckpt_path last"
        )


def is_finished(checkpoint: dict[str, Any], max_epochs: int | None) -> bool:
    """Whether a fit has all its epochs.

    Raises:
        SessRecError: If the checkpoint was taken inside an epoch: going on would lose the rest of it.
    """
    if not checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"]:
        raise SessRecError("the checkpoint was taken inside an epoch; a fit can go on only from the end of one")
    return max_epochs is not None and 0 <= max_epochs <= checkpoint["epoch"] + 1


class RunRecord(Callback):
    """Prints and keeps the data report and the results of a run.

    Args:
        checkpoint: The checkpoint file that is evaluated, if any; kept with the results.
    """

    def __init__(self, checkpoint: Path | None = None) -> None:
        self.checkpoint = checkpoint
        self._start = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print the data report."""
        self._start = time.perf_counter()
        rank_zero_only(print)(f"\n{_report(trainer)}\n")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the data report in the run's folder."""
        if trainer.log_dir and trainer.is_global_zero:
            write_json(Path(trainer.log_dir) / "data_report.json", _report(trainer).as_dict())

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the hyper-parameters with the final metrics, and print the results."""
        assert isinstance(pl_module, SessionRecommender)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                final = {f"final/{name}": value for name, value in pl_module.results.items()}
                logger.log_hyperparams(dict(pl_module.hparams), final or {"final/epochs": trainer.current_epoch})
                logger.save()
        self._print(trainer, pl_module, "fit")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the results of a validation outside a fit."""
        if trainer.state.fn == "validate":
            self._print(trainer, pl_module, "validate")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the results of the test and keep them in the run's folder."""
        assert isinstance(pl_module, SessionRecommender)
        self._print(trainer, pl_module, "test")
        if trainer.log_dir and trainer.is_global_zero:
            kept = {
                "checkpoint": str(self.checkpoint),
                "tie_mode": pl_module.tie_mode,
                "items_ranked": pl_module.n_items,
                "data": _report(trainer).sections["test"],
                "metrics": pl_module.results,
            }
            write_json(Path(trainer.log_dir) / "test_metrics.json", kept)

    def _print(self, trainer: Trainer, model: LightningModule, stage: str) -> None:
        assert isinstance(model, SessionRecommender)
        seconds = time.perf_counter() - self._start
        head = f"{stage} of {type(model).__name__}, {seconds:.0f} s, run {trainer.log_dir}"
        rank_zero_only(print)(f"\n{head}\n{results_table(model.results)}")


def results_table(results: dict[str, float]) -> str:
    """Lay results such as ``val/recall@20`` out as a table of metrics by cutoffs.

    Example:
        >>> print(results_table({"val/recall@1": 0.25, "val/recall@20": 0.5, "val/mrr@1": 0.25, "val/mrr@20": 0.3,
        ...                      "val/ndcg@1": 0.25, "val/ndcg@20": 0.35}))
        val          @1      @20
        recall   0.2500   0.5000
        mrr      0.2500   0.3000
        ndcg     0.2500   0.3500
    """
    if not results:
        return "no validation was run, so there are no metrics"
    stage = next(iter(results)).split("/")[0]
    cells = {tuple(name.split("/")[1].split("@")): value for name, value in results.items()}
    cutoffs = sorted({cutoff for _, cutoff in cells}, key=int)
    lines = [f"{stage:<6}" + "".join(f"{'@' + cutoff:>9}" for cutoff in cutoffs)]
    for metric in ("recall", "mrr", "ndcg"):
        lines.append(f"{metric:<6}" + "".join(f"{cells[metric, cutoff]:9.4f}" for cutoff in cutoffs))
    return "\n".join(lines)


def _report(trainer: Trainer) -> Any:
    return trainer.datamodule.report  # type: ignore[attr-defined]
