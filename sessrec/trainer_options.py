"""Refuses options of the trainer that leave nothing to do, or that models and hardware do not heed, before any work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry, CUDAAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import EarlyStopping

from sessrec.errors import SessRecError, check_least
from sessrec.suggestions import did_you_mean

_LEAST = {"check_val_every_n_epoch": 1, "log_every_n_steps": 0, "num_sanity_val_steps": -1}
_GREATEST_SEED = 2**32 - 1  # of NumPy
_TRAINING_CURVES = ("train/loss", "train/loss_epoch", "train/events_per_second")


def check_seed(seed: int | bool) -> None:
    """Refuse a seed that NumPy does not take.

    Raises:
        SessRecError: If it is out of range.
    """
    if not 0 <= seed <= _GREATEST_SEED:
        raise SessRecError(f"--seed_everything must be from 0 to {_GREATEST_SEED}, got {seed}")


def check_trainer_options(options: Any) -> None:
    """Refuse what leaves nothing to train, and what the training step would not heed.

    Raises:
        SessRecError: If there is one such.
    """
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        if options[name] == 0:
            raise SessRecError(f"--trainer.{name} 0 leaves nothing to train")
    for name, least in _LEAST.items():
        check_least(f"--trainer.{name}", options[name], least)
    if options["accumulate_grad_batches"] not in (1, None):
        raise SessRecError(
            "--trainer.accumulate_grad_batches is not supported: every mini-batch is one update by its own gradient"
        )


def check_hardware(options: Any) -> None:
    """Refuse names of accelerators and precisions that the models do not work with, or that are not here.

    Raises:
        SessRecError: If there is one such.
    """
    accelerator, precision = options.accelerator, options.precision
    known = ["auto", "gpu", *AcceleratorRegistry.available_accelerators()]
    if isinstance(accelerator, str):
        if accelerator not in known:
            raise SessRecError(f"--trainer.accelerator {accelerator}: no such kind{did_you_mean(accelerator, known)}")
        if accelerator in ("gpu", "cuda") and not (CUDAAccelerator.is_available() or MPSAccelerator.is_available()):
            raise SessRecError(f"--trainer.accelerator {accelerator}: there is no GPU here; give cpu or auto")
    if precision is not None and str(precision).split("-")[0] == "16":  # which Lightning would change on a CPU
        raise SessRecError(f"--trainer.precision {precision} is not supported: give bf16-mixed for 16 bits")


def check_share(trainer: Trainer, part: str, n_batches: int) -> None:
    """Refuse a share of the batches of a part that is less than one.

    Args:
        trainer: The trainer.
        part: The part: train, val, test or predict.
        n_batches: Number of its batches.

    Raises:
        SessRecError: If it is.
    """
    share = getattr(trainer, f"limit_{part}_batches")
    if n_batches and isinstance(share, float) and 0 < share < 1 / n_batches:
        raise SessRecError(
            f"--trainer.limit_{part}_batches {share} is less than one of the {n_batches} {part} batches: give at "
            f"least {1 / n_batches:.4g}, or a number of batches such as 1"
        )


def check_batches(trainer: Trainer, n_train: int, n_val: int) -> None:
    """Refuse shares of an epoch that are less than a batch, and a validation that its end comes before.

    Args:
        trainer: The trainer of the fit.
        n_train: Batches of an epoch.
        n_val: Batches of a validation, 0 for none.

    Raises:
        SessRecError: If there is one such.
    """
    check_share(trainer, "train", n_train)
    check_share(trainer, "val", n_val)
    interval, limit = trainer.val_check_interval, trainer.limit_train_batches
    n_train = min(n_train, limit) if isinstance(limit, int) else int(n_train * limit)
    if not isinstance(interval, int) or trainer.check_val_every_n_epoch is None or not trainer.limit_val_batches:
        return
    if not 1 <= interval <= n_train:
        raise SessRecError(
            f"--trainer.val_check_interval {interval} must be from 1 to the {n_train} batches of an epoch, or a "
            "share of them such as 0.5; --trainer.check_val_every_n_epoch null counts on from epoch to epoch"
        )


def check_stopping(trainer: Trainer, metrics: Sequence[str], logs_more: bool) -> None:
    """Refuse early stopping by a metric that there is not, or that is to fall where greater is better.

    Args:
        trainer: The trainer of the fit.
        metrics: Names of the validation's metrics, none where there is no validation.
        logs_more: Whether the model may log others, as one of somebody else's may.

    Raises:
        SessRecError: If there is one such.
    """
    callbacks = [one for one in trainer.callbacks if isinstance(one, EarlyStopping)]  # type: ignore[attr-defined]
    for callback in callbacks:
        monitor, known = callback.monitor, [*metrics, *_TRAINING_CURVES]
        if monitor not in known and callback.strict and not logs_more:
            hint = did_you_mean(monitor, known) or f"; there are {', '.join(known)}"
            raise SessRecError(f"--trainer.callbacks: EarlyStopping monitors {monitor}, which is no metric here{hint}")
        if monitor in metrics and callback.mode == "min":
            raise SessRecError(
                f"--trainer.callbacks: EarlyStopping would stop while {monitor} rises: give "
                "--trainer.callbacks.mode max"
            )


def trainer_refusal(options: Any, error: Exception) -> SessRecError:
    """The error for options that the trainer itself refuses: with the option and its value where it names one."""
    text = " ".join(str(error).split())
    named = next((word for word in re.findall(r"\w+", text) if word in options), None)
    option = "--trainer" if named is None else f"--trainer.{named} {options[named]}"
    return SessRecError(f"{option}: {text}")
