"""A fit that early stopping has ended stays ended until it is given another rule for stopping."""

from __future__ import annotations

from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason


class EarlyStop(NamedTuple):
    """How early stopping has ended a fit."""

    reason: str
    is_of_same_rule: bool
    """Whether the fit that is to resume stops by the same monitor and patience, so that nothing is left to do."""


def early_stop(checkpoint: dict[str, Any], epochs: int, trainer: Trainer) -> EarlyStop | None:
    """How early stopping has ended the fit of a checkpoint; None where it has not.

    Args:
        checkpoint: The checkpoint.
        epochs: Epochs that it has done.
        trainer: The trainer of the fit that is to resume from it.
    """
    states = {key: state for key, state in checkpoint["callbacks"].items() if key.startswith(EarlyStopping.__name__)}
    stopped = {key: state for key, state in states.items() if _has_stopped(state)}
    if not stopped or epochs < (trainer.min_epochs or 0) or checkpoint["global_step"] < (trainer.min_steps or 0):
        return None
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        state = stopped.get(callback.state_key) if isinstance(callback, EarlyStopping) else None
        if state is not None and (callback.patience == state["patience"] or not _has_waited(state)):
            return EarlyStop(_reason(state, callback.monitor, checkpoint), True)
    return EarlyStop(_reason(next(iter(stopped.values())), "its metric", checkpoint), False)


def _has_waited(state: dict[str, Any]) -> bool:
    return state["wait_count"] >= max(1, state["patience"])


def _has_stopped(state: dict[str, Any]) -> bool:
    reason = state.get("stopping_reason", EarlyStoppingReason.NOT_STOPPED.value)
    return _has_waited(state) or reason != EarlyStoppingReason.NOT_STOPPED.value


def _reason(state: dict[str, Any], monitor: str, checkpoint: dict[str, Any]) -> str:
    at = f"been ended by early stopping at step {checkpoint['global_step']}"
    if not _has_waited(state):
        return f"{at} ({state['stopping_reason_message']})"
    return f"{at} ({monitor} has not improved for {state['wait_count']} validations, patience {state['patience']})"


class OwnPatience(Callback):
    """Has early stopping heed the patience of this fit, not that of the checkpoint from which it resumes."""

    def __init__(self) -> None:
        self._patience: dict[EarlyStopping, int] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note the patience before a checkpoint's is loaded."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        self._patience = {callback: callback.patience for callback in callbacks if isinstance(callback, EarlyStopping)}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set it, and forget a stop that is over."""
        for callback, patience in self._patience.items():
            callback.patience, callback.stopped_epoch = patience, 0
            callback.stopping_reason, callback.stopping_reason_message = EarlyStoppingReason.NOT_STOPPED, None
