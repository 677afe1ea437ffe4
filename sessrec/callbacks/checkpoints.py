"""A run's checkpoints: which one a command starts from, how they are written, and when."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from sessrec.callbacks.signals import StoppedError, StopSignals
from sessrec.distributed import greatest_of_processes, n_processes
from sessrec.errors import SessRecError
from sessrec.models.base import CHECKPOINT_FORMAT, SessionRecommender
from sessrec.writing import replacing

_PARTS = {"class_path", "epoch", "global_step", "hyper_parameters", "loops", "seed", "state_dict"}


def resolve_checkpoint(ckpt_path: str, run_folder: Path) -> Path | None:
    """The file that ``best``, ``last``, ``auto`` or a path names; None where ``auto`` finds nothing to go on from.

    Raises:
        SessRecError: If there is no such file.
    """
    if ckpt_path == "auto":  # a fit that was killed early may have a best checkpoint and no last one
        return next((file for name in ("last", "best") if (file := _own(run_folder, name)).exists()), None)
    file = _own(run_folder, ckpt_path) if ckpt_path in ("best", "last") else Path(ckpt_path)
    if file.is_file():
        return file
    hint = "; a run without validation keeps only last" if ckpt_path == "best" else ""
    raise SessRecError(f"no checkpoint {file} (--ckpt_path {ckpt_path}{hint})")


def _own(run_folder: Path, name: str) -> Path:
    return run_folder / "checkpoints" / f"{name}.ckpt"


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read a checkpoint of sessrec; nothing in the file is executed.

    Raises:
        SessRecError: If the file is damaged, no checkpoint of sessrec, or of a later one.
    """
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise SessRecError(f"cannot read {file}: it is damaged or no checkpoint ({type(error).__name__})") from error
    if not isinstance(checkpoint, dict) or "vocabulary" not in checkpoint:
        raise SessRecError(f"{file} is no checkpoint of sessrec")
    if missing := _PARTS - checkpoint.keys():
        raise SessRecError(f"{file} is no whole checkpoint of sessrec: it has no {min(missing)}")
    written = checkpoint.get("format", 1)
    if not isinstance(written, int) or written > CHECKPOINT_FORMAT:
        raise SessRecError(
            f"{file} was written by a later sessrec (format {written}, this one knows {CHECKPOINT_FORMAT}): update it"
        )
    return checkpoint


def load_model(file: Path) -> SessionRecommender:
    """Load the model of a checkpoint, whatever its class.

    Args:
        file: The checkpoint.

    Raises:
        SessRecError: If it is no checkpoint of sessrec, or of a class that is not known here.
    """
    class_path = read_checkpoint(file)["class_path"]
    known = {f"{model.__module__}.{model.__qualname__}": model for model in _subclasses(SessionRecommender)}
    if class_path not in known:
        raise SessRecError(f"{file} holds a {class_path}, which is not known here: import its module first")
    return known[class_path].load_from_checkpoint(file, map_location="cpu", weights_only=True).eval()


def _subclasses(of: type[SessionRecommender]) -> Iterator[type[SessionRecommender]]:
    for one in of.__subclasses__():
        yield one
        yield from _subclasses(one)


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
        name = "last" if _own(run_folder, "last").exists() else "best"
        raise SessRecError(
            f"the run {run_folder} exists: give another --trainer.logger.version, or go on with it: --config {config} "
            f"--ckpt_path {name}"
        )


def is_inside_epoch(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint was taken inside an epoch.

    Raises:
        SessRecError: If it was, by a sessrec that did not keep the place.
    """
    try:
        inside = checkpoint.get("progress", {}).get("steps", 0) > 0
        at_end = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"]
    except (KeyError, TypeError, AttributeError) as error:
        raise SessRecError("the checkpoint does not say where its fit was: it is damaged") from error
    if not inside and not at_end:
        raise SessRecError("the checkpoint was taken inside an epoch by sessrec 0.1, which did not keep the place")
    return inside


def work_done(checkpoint: dict[str, Any], max_epochs: int | None, max_steps: int) -> str | None:
    """What a finished fit has done, in words; None where there is something left to do."""
    epochs = checkpoint["epoch"] + (0 if is_inside_epoch(checkpoint) else 1)
    if max_epochs is not None and 0 <= max_epochs <= epochs:
        return f"{epochs} of {max_epochs} epochs"
    if 0 < max_steps <= checkpoint["global_step"]:
        return f"{checkpoint['global_step']} of {max_steps} steps"
    return None


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, and reads them without executing anything in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write under a temporary name, sync, rename: the file before it survives whatever happens.

        Raises:
            SessRecError: If the file cannot be written.
        """
        try:
            with replacing(path) as temporary, temporary.open("wb") as stream:
                torch.save(checkpoint, stream)
        except (OSError, RuntimeError) as error:  # torch wraps the file system's errors
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__cause__ or cause.__context__
            reason = cause.strerror if isinstance(cause, OSError) else error
            config, last = Path(path).parent.parent / "config.yaml", Path(path).with_name("last.ckpt")
            then = f"go on with --config {config} --ckpt_path last" if last.exists() else "start again"
            kept = "; the one before it is whole" if Path(path).exists() else ""
            raise SessRecError(
                f"cannot write the checkpoint {path}: {reason}{kept}. Make room, or the folder writable, and {then}"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint to the CPU; see `read_checkpoint`."""
        return read_checkpoint(Path(path))


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``, from which a fit goes on as if nothing had happened: at each epoch's end, and inside epochs.

    It also stops the fit at a signal, saved.

    Args:
        every_n_steps: Save whenever the number of steps taken is a multiple of this; null for no such saving.
        every_minutes: Save when so many minutes have passed since the last time, at the end of a window of steps; null
            for no such saving.

    Raises:
        SessRecError: If an interval is not positive.
    """

    def __init__(self, every_n_steps: int | None = None, every_minutes: float | None = 5.0) -> None:
        for name, value in (("every_n_steps", every_n_steps), ("every_minutes", every_minutes)):
            if value is not None and not value > 0:
                raise SessRecError(f"--checkpoint.{name} must be above 0, or null for no such saving, got {value}")
        self.every_n_steps = every_n_steps
        self.every_minutes = every_minutes
        self.signals = StopSignals()
        self._trainer: Trainer | None = None
        self._last_time = 0.0

    @property
    def trainer(self) -> Trainer:
        """The trainer whose fit is saved."""
        assert self._trainer is not None
        return self._trainer

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have the model tell of its steps."""
        assert isinstance(pl_module, SessionRecommender)
        if stage == "fit" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._trainer, pl_module.save_points = trainer, self

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to the signals from here on: before, there is nothing to save."""
        self._last_time = time.monotonic()
        self.signals.listen()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back, before Lightning gives back those that were there before it."""
        self.signals.leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self.signals.leave()

    def steps_to_next(self, global_step: int) -> int:
        """Steps that may be taken in one go."""
        return 1 << 62 if self.every_n_steps is None else self.every_n_steps - global_step % self.every_n_steps

    def after_steps(self) -> None:
        """Save where it is time to, and stop where a signal came.

        Raises:
            StoppedError: If a signal came.
        """
        step = self.trainer.global_step
        by_steps = step == self.trainer.max_steps or (self.every_n_steps is not None and step % self.every_n_steps == 0)
        by_time = self.every_minutes is not None and time.monotonic() - self._last_time >= 60 * self.every_minutes
        stop, save = self._agree(by_steps or by_time)
        if stop or save:
            self._save()
        self._stop_where_asked(stop)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Save a fit that another callback stops inside an epoch."""
        self._save_where_stopped()

    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Stop where a signal came during a validation; it is done again when the fit goes on."""
        received = self.signals.received
        # several processes have no step in common here, and stop after the validation
        if self._trainer is not None and received and not trainer.sanity_checking and n_processes() == 1:
            self._save()
            self._stop_where_asked(received)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a fit that another callback stops by a validation inside an epoch."""
        self._save_where_stopped()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a complete epoch; one that was left inside has been saved where it was left."""
        if self._trainer is not None and not self._model.progress.steps:
            self._save()
            self._stop_where_asked(self._agree()[0])

    def _agree(self, save: bool = False) -> tuple[int, bool]:
        """The signal that any process received, 0 for none, and whether any wants to save."""
        own = [int(self.signals.received or 0), int(save)]
        stop, saves = greatest_of_processes(own, self.trainer.strategy.root_device)
        return stop, bool(saves)

    @property
    def _model(self) -> SessionRecommender:
        model = self.trainer.lightning_module
        assert isinstance(model, SessionRecommender)
        return model

    def _save_where_stopped(self) -> None:
        if self._trainer is not None and self.trainer.should_stop and self._model.progress.steps:
            self._save()

    def _save(self) -> None:
        for logger in self.trainer.loggers:
            logger.save()  # what was logged before the checkpoint must not be lost after it
        self.trainer.save_checkpoint(self._file, weights_only=False)
        self._last_time = time.monotonic()

    @property
    def _file(self) -> Path:
        return Path(self.trainer.log_dir or self.trainer.default_root_dir) / "checkpoints" / "last.ckpt"

    def _stop_where_asked(self, stop: int) -> None:
        if not stop:
            return
        config = self._file.parent.parent / "config.yaml"
        raise StoppedError(
            f"stopped by {signal.Signals(stop).name} at step {self.trainer.global_step} and saved; go on with: "
            f"python -m sessrec.fit --config {config} --ckpt_path last",
            stop,
        )


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt``, the greatest so far of a validation metric.

    Args:
        monitor: Name of the metric.
    """

    def __init__(self, monitor: str) -> None:
        super().__init__(filename="best", monitor=monitor, mode="max", enable_version_counter=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from all of the state, also where the run has been moved; Lightning leaves the latest score out."""
        folder = str(self.dirpath)

        def here(path: str) -> str:
            return os.path.join(folder, os.path.basename(path)) if path else path

        paths = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        models = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"dirpath": folder, "best_k_models": models})
        self.current_score = state_dict["current_score"]


def checkpoint_callbacks(monitor: str, has_validation: bool, last: LastCheckpoint) -> list[Callback]:
    """Keep ``last.ckpt``, and ``best.ckpt`` by a validation metric where there is a validation part."""
    return [BestCheckpoint(monitor), last] if has_validation else [last]
