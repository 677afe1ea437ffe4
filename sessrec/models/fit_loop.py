"""The place of a fit in its epoch, and the one file that touches the counters of Lightning's loops.

Lightning counts batches and the calls of wrapped optimisers. A batch of sessrec is a window of many optimiser steps, so
the steps are counted here, and a resumed fit sets Lightning's counters from its own `Progress`. Read in Lightning 2.6.6
(``loops/fit_loop.py``, ``loops/training_epoch_loop.py``, ``loops/progress.py``); tests/models/test_fit_loop.py checks
what is relied on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.loop import _Loop

from sessrec.errors import SessRecError


@dataclass
class Progress:
    """What a fit has done in its epoch; all zero between two epochs.

    Example:
        >>> progress = Progress()
        >>> progress.add(n_steps=2, loss=12.0, n_pairs=6, is_whole=False)  # ``max_steps`` cuts a window
        >>> progress.add(n_steps=3, loss=8.0, n_pairs=4, is_whole=True)
        >>> progress
        Progress(windows=1, steps=0, loss=20.0, n_pairs=10)
    """

    windows: int = 0
    """Windows whose steps have all been taken."""
    steps: int = 0
    """Steps taken in the window after these, which ``max_steps`` has cut; 0 elsewhere."""
    loss: float = 0.0
    """Sum of the loss over all pairs."""
    n_pairs: int = 0
    """Number of pairs."""

    @property
    def inside_epoch(self) -> bool:
        """Whether the epoch has begun and is not complete."""
        return self.windows > 0 or self.steps > 0

    def add(self, n_steps: int, loss: float, n_pairs: int, is_whole: bool) -> None:
        """Count the steps of a window, or of a part of it; ``is_whole`` where the window has none left."""
        self.windows, self.steps = (self.windows + 1, 0) if is_whole else (self.windows, self.steps + n_steps)
        self.loss, self.n_pairs = self.loss + loss, self.n_pairs + n_pairs

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)

    @classmethod
    def of_checkpoint(cls, checkpoint: dict[str, Any]) -> Progress:
        """The place that a checkpoint holds; none in one of an earlier sessrec, which kept another one.

        Raises:
            SessRecError: If the checkpoint is damaged.
        """
        if checkpoint.get("format", 1) < 3:
            return cls()
        try:
            return cls(**checkpoint["progress"])
        except (KeyError, TypeError) as error:
            raise SessRecError("the checkpoint does not say where its fit was: it is damaged") from error


def count_steps(trainer: Trainer, n_steps: int) -> None:
    """Add optimiser steps to the trainer's ``global_step``; Lightning does not save a fit without any."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for counts in (progress.total, progress.current):
        counts.ready += n_steps
        counts.completed += n_steps


def resume_inside_epoch(trainer: Trainer, n_batches: int) -> None:
    """Set Lightning's counters so that a fit resumes in its epoch after some batches.

    A checkpoint is saved at the start of the next batch, or where a callback stops the fit; Lightning has other
    counters in each place, and for a batch that was in hand it counts a start twice. From ``on_train_start`` on, all
    of them say that as many batches as the model has seen are done, with whatever followed the last of them.
    """
    fit_loop = trainer.fit_loop
    epochs, batches = fit_loop.epoch_progress, fit_loop.epoch_loop.batch_progress
    earlier = batches.total.ready - batches.current.ready  # batches of the epochs before
    for counts, n in ((batches.current, n_batches), (batches.total, earlier + n_batches)):
        counts.ready = counts.started = counts.processed = counts.completed = n  # type: ignore[attr-defined]
    batches.is_last_batch = False
    for counts in (epochs.current, epochs.total):
        counts.processed = counts.completed = counts.started - 1  # type: ignore[attr-defined]
    fit_loop.update_restart_stage()


def resume_after_epoch(trainer: Trainer) -> None:
    """Have a fit that resumes at the end of an epoch begin the next one.

    With ``max_steps``, Lightning takes the finished epoch up again, has nothing to do in it, and counts it twice.
    """
    fit_loop = trainer.fit_loop
    if fit_loop.restarted_on_epoch_end:
        fit_loop.epoch_progress.increment_completed()
        _Loop.restarting.fset(fit_loop, False)  # type: ignore[attr-defined] # its own setter would not with max_steps
        fit_loop.update_restart_stage()
        trainer.train_dataloader.load_state_dict({"batch": 0})  # type: ignore[union-attr]
