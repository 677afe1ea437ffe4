"""Learning-rate schedules: a warm-up, then a constant rate, one that falls to 0 at the end of the fit, or in stairs."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

from lightning.pytorch import Trainer

from sessrec.errors import SessRecError, check_choice, check_least

ScheduleName = Literal["constant", "linear", "cosine", "stairs"]
ScheduleUnit = Literal["step", "epoch"]


class Schedule(NamedTuple):
    """What part of the learning rate each step, or each epoch, has.

    It follows from the number of steps or epochs alone, so that a fit that resumes has the rates of one that never
    stopped.

    Example:
        >>> schedule = Schedule("linear", "step", warmup=1)
        >>> [schedule.factor(done, total=5) for done in range(5)]
        [0.5, 1.0, 0.75, 0.5, 0.25]
    """

    name: ScheduleName
    unit: ScheduleUnit
    warmup: int
    stair: int = 3

    def check(self) -> None:
        """Refuse options that are none.

        Raises:
            SessRecError: If a name is unknown or the warm-up negative.
        """
        check_choice("--model.schedule", self.name, ScheduleName)
        check_choice("--model.schedule_unit", self.unit, ScheduleUnit)
        check_least("--model.warmup", self.warmup, 0)
        check_least("--model.stair", self.stair, 1)

    def check_end(self, trainer: Trainer) -> None:
        """Refuse a rate that is to fall to the end of a fit that has none.

        Raises:
            SessRecError: If it is.
        """
        if self.falls_to_end and trainer.max_epochs in (None, -1) and trainer.max_steps < 0:
            raise SessRecError(
                f"--model.schedule {self.name} falls to the end of the fit, which has none: give --trainer.max_epochs "
                "or --trainer.max_steps"
            )

    @property
    def changes(self) -> bool:
        """Whether the rate is not that of the option throughout."""
        return self.name != "constant" or self.warmup > 0

    @property
    def falls_to_end(self) -> bool:
        """Whether the rate depends on where the fit ends."""
        return self.name in ("linear", "cosine")

    def factor(self, done: int, total: int | None) -> float:
        """The part that a step or epoch has.

        Args:
            done: Steps or epochs before it.
            total: Steps or epochs of the fit; None where it has no end.
        """
        if done < self.warmup:
            return (done + 1) / (self.warmup + 1)
        if self.name == "stairs":
            return 0.1 ** float((done - self.warmup) // self.stair)
        if self.name == "constant" or total is None:
            return 1.0
        fallen = min(1.0, (done - self.warmup) / max(1, total - self.warmup))
        return 1 - fallen if self.name == "linear" else (1 + math.cos(math.pi * fallen)) / 2

    def length(self, trainer: Trainer, loader: Any) -> int | None:
        """Steps or epochs of a fit, None where it has no end.

        Shuffled epochs of session-parallel lanes differ by some steps; each is counted as one in time order.

        Args:
            trainer: The trainer of the fit.
            loader: Its train loader.

        Raises:
            SessRecError: If the rate is to fall to the end of a fit that has none, or that comes before that of the
                warm-up.
        """
        steps, fast_dev_run = _steps_of_epoch(trainer, loader), trainer.fast_dev_run  # type: ignore[attr-defined]
        ends = [] if trainer.max_epochs in (None, -1) else [trainer.max_epochs * steps]
        ends += [] if trainer.max_steps < 0 else [trainer.max_steps]
        self.check_end(trainer)
        total = min(ends, default=None)
        if total is not None and self.unit == "epoch":
            total = -(-total // steps)
        if self.falls_to_end and total is not None and self.warmup >= total and not fast_dev_run:
            raise SessRecError(
                f"--model.warmup {self.warmup} must be less than the {total} {self.unit}s of the fit "
                f"(--model.schedule_unit {self.unit})"
            )
        return total


def _steps_of_epoch(trainer: Trainer, loader: Any) -> int:
    """Optimiser steps of an epoch in time order; fewer where batches are limited."""
    limit, n_batches = trainer.limit_train_batches, len(loader)
    n_batches = min(n_batches, limit) if isinstance(limit, int) else int(n_batches * limit)
    return max(1, n_batches * loader.n_steps // len(loader))
