"""A run's checkpoints: which one a command starts from, how they are written, and when."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from sessrec.callbacks.early_stopping import early_stop
from sessrec.callbacks.signals import StoppedError, StopSignals
from sessrec.distributed import greatest_of_processes
from sessrec.errors import SessRecError
from sessrec.models.base import SessionRecommender
from sessrec.models.checkpoint_format import DamagedCheckpointError, read_checkpoint
from sessrec.models.checksum import add_checksum
from sessrec.models.fit_loop import Progress
from sessrec.program import program
from sessrec.writing import atomic_write

_TRIES = 3  # to read a file that does not change meanwhile


def resolve_checkpoint(ckpt_path: str, run_folder: Path) -> Path | None:
    """The file that ``best``, ``last``, ``auto`` or a path names; None where ``auto`` finds nothing to go on from.

    Raises:
        SessRecError: If there is no such file, or ``auto`` finds none that is whole.
    """
    folder = run_folder / "checkpoints"
    if ckpt_path == "auto":  # a fit that was killed early may have a best checkpoint and no last one
        found = next((file for name in ("last", "best") if (file := folder / f"{name}.ckpt").exists()), None)
        return None if found is None else _itself_or_newest(found)
    file = folder / f"{ckpt_path}.ckpt" if ckpt_path in ("best", "last") else Path(ckpt_path)
    if file.is_file():
        return file
    hint = "; a run without validation keeps only last" if ckpt_path == "best" else ""
    raise SessRecError(f"no checkpoint {file} (--ckpt_path {ckpt_path}{hint})")


def _itself_or_newest(file: Path) -> Path:
    """A checkpoint, or, where it is damaged, the newest whole one beside it."""
    try:
        read_checkpoint(file)
    except DamagedCheckpointError as error:
        if error.newest is None:
            raise
        rank_zero_only(print)(f"{file} is damaged: the fit resumes from {error.newest}")
        return error.newest
    return file


def load_model(file: Path) -> SessionRecommender:
    """Load the model of a checkpoint, whatever its class.

    Raises:
        SessRecError: If it is no checkpoint of sessrec, or of a class that is not known here.
    """
    checkpoint = read_checkpoint(file)
    class_path = checkpoint["class_path"]
    known = {f"{model.__module__}.{model.__qualname__}": model for model in _subclasses(SessionRecommender)}
    if class_path not in known:
        raise SessRecError(f"{file} holds a {class_path}, which is not known here: import its module first")
    return known[class_path].of_checkpoint(checkpoint).eval()


def load_model_with_digest(file: Path) -> tuple[SessionRecommender, str]:
    """`load_model`, and the SHA-256 of the very file, which another one may replace meanwhile.

    Raises:
        SessRecError: If it is no such checkpoint, or changes again and again.
    """
    try:
        for _ in range(_TRIES):
            digest = digest_of_file(file)
            model = load_model(file)
            if digest_of_file(file) == digest:
                return model, digest
    except OSError as error:
        raise SessRecError(f"cannot read {file}: {error.strerror or error}") from error
    raise SessRecError(f"{file} changes while it is read")


def digest_of_file(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _subclasses(of: type[SessionRecommender]) -> Iterator[type[SessionRecommender]]:
    for one in of.__subclasses__():
        yield one
        yield from _subclasses(one)


def check_run_is_free(run_folder: Path, checkpoint: Path | None, run_option: str) -> None:
    """Refuse a fit that would overwrite a run's checkpoints without going on from them.

    Args:
        run_folder: Folder of the run.
        checkpoint: The checkpoint that the fit starts from, if any.
        run_option: The option that gives a run another folder.

    Raises:
        SessRecError: If the run has checkpoints and the fit starts from none of them, or goes on outside its run.
    """
    folder = run_folder / "checkpoints"
    if checkpoint is not None and checkpoint.resolve().parent != folder.resolve():
        raise SessRecError(
            f"{checkpoint} is not of the run {run_folder}: a fit goes on in its own run, by --config RUN/config.yaml "
            "--ckpt_path last"
        )
    if checkpoint is None and any(folder.glob("*.ckpt")):
        name = "last" if (folder / "last.ckpt").exists() else "best"
        raise SessRecError(
            f"the run {run_folder} exists: give another {run_option}, or go on with it: "
            f"--config {run_folder / 'config.yaml'} --ckpt_path {name}"
        )


def is_inside_epoch(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint was saved inside an epoch.

    Raises:
        SessRecError: If an earlier sessrec saved it where this one cannot resume, or it is damaged.
    """
    written = checkpoint.get("format", 1)
    if written < 2:
        raise SessRecError("the checkpoint was saved by sessrec 0.1: test it or fit again, it cannot be resumed")
    if written < 3 and checkpoint.get("progress", {}).get("steps"):
        raise SessRecError(
            "the checkpoint was saved inside an epoch by sessrec 0.2: finish the epoch with 0.2 (--trainer.max_epochs "
            f"{checkpoint['epoch'] + 1}), then resume with this one"
        )
    return Progress.of_checkpoint(checkpoint).inside_epoch


def work_done(checkpoint: dict[str, Any], inside_epoch: bool, trainer: Trainer) -> str | None:
    """What a finished fit has done, in words; None where there is something left to do.

    Args:
        checkpoint: The checkpoint.
        inside_epoch: Whether it was saved inside an epoch.
        trainer: The trainer of the fit that is to resume from it.
    """
    epochs = checkpoint["epoch"] + (0 if inside_epoch else 1)
    stop = early_stop(checkpoint, epochs, trainer)
    if stop is not None and stop.is_of_same_rule:
        return f"{stop.reason}; another patience or monitor in --trainer.callbacks continues it, more epochs do not"
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= epochs:
        return f"{epochs} of {trainer.max_epochs} epochs"
    if 0 < trainer.max_steps <= checkpoint["global_step"]:
        return f"{checkpoint['global_step']} of {trainer.max_steps} steps"
    if stop is not None:
        rank_zero_only(print)(f"the fit resumes by other rules: it has {stop.reason}")
    return None


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, and reads them without executing anything in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write under a temporary name, sync, rename: the file before it survives whatever happens.

        Raises:
            SessRecError: If the file cannot be written.
        """
        try:
            with atomic_write(path) as temporary:
                with temporary.open("wb") as stream:
                    torch.save(checkpoint, stream)
                add_checksum(temporary)
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
    """Saves ``last.ckpt``, from which a fit resumes as if it had never stopped, and stops the fit at a signal.

    It saves at the end of each epoch, and inside an epoch when the next window begins, after any validation.

    Args:
        every_n_steps: Save at the end of a window in which the number of steps passes a multiple of this; null for no
            such saving.
        every_minutes: Save at the end of a window when so many minutes have passed since the last time; null for no
            such saving.

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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to the signals from here on: before, there is nothing to save."""
        self._last_step, self._last_time = trainer.global_step, time.monotonic()
        self.signals.listen()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the signal handlers, before Lightning restores those that were there before it."""
        self.signals.leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the signal handlers."""
        self.signals.leave()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save what is due between two windows, and stop if a signal has come."""
        if _inside_epoch(pl_module):
            self._save_or_stop(trainer, self._is_due(trainer.global_step))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save a fit that another callback or ``max_steps`` stops inside an epoch."""
        self._save_where_stopped(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a fit that another callback stops by a validation inside an epoch."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save_where_stopped(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a complete epoch, and stop if a signal has come and there is another epoch to do."""
        if not _inside_epoch(pl_module):  # otherwise it has been saved where it was stopped
            is_over = _is_stopping(trainer) or trainer.current_epoch + 1 == trainer.max_epochs
            self._save_or_stop(trainer, save=True, stop=not is_over)

    def _is_due(self, step: int) -> bool:
        n, minutes = self.every_n_steps, self.every_minutes
        by_steps = n is not None and step // n > self._last_step // n
        return by_steps or (minutes is not None and time.monotonic() - self._last_time >= 60 * minutes)

    def _save_or_stop(self, trainer: Trainer, save: bool, stop: bool = True) -> None:
        """Save if any process is due or has received a signal, and stop all of them by an error in the latter case."""
        own = [int(self.signals.received or 0), int(save)]
        received, save_any = greatest_of_processes(own, trainer.strategy.root_device)
        if received or save_any:
            self._save(trainer)
        if received and stop:
            config = _last_file(trainer).parent.parent / "config.yaml"
            raise StoppedError(
                f"stopped by {signal.Signals(received).name} at step {trainer.global_step} and saved; resume with: "
                f"{program('fit')} --config {config} --ckpt_path last",
                received,
            )

    def _save_where_stopped(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _is_stopping(trainer) and _inside_epoch(pl_module):
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self._last_step, self._last_time = trainer.global_step, time.monotonic()
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            logger.save()  # what was logged before the checkpoint must not be lost after it
        trainer.save_checkpoint(_last_file(trainer), weights_only=False)


def _inside_epoch(model: LightningModule) -> bool:
    assert isinstance(model, SessionRecommender)
    return model.progress.inside_epoch


def _is_stopping(trainer: Trainer) -> bool:
    return trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step


def _last_file(trainer: Trainer) -> Path:
    return Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints" / "last.ckpt"


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt``, the greatest so far of the validation metric that ``monitor`` names."""

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
