"""The training loop of models that are trained by gradients: steps counted, losses checked, randomness that resumes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.optim import Optimizer

from sessrec.data.loaders import SessionBatch, TrainingBatches
from sessrec.data.session_parallel import Window
from sessrec.data.sessions import Sessions
from sessrec.distributed import exchange_gradients, n_processes, own_part, process_rank, sum_over_processes
from sessrec.errors import SessRecError
from sessrec.models.base import SessionRecommender
from sessrec.models.compatibility import check_clipping
from sessrec.models.fit_loop import Progress, count_steps, resume_after_epoch, resume_inside_epoch
from sessrec.models.schedules import Schedule, ScheduleName, ScheduleUnit
from sessrec.models.warm_start import WarmStart


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Have torch's global generators, which dropout draws from, follow from a generator alone, and restore them."""
    with torch.random.fork_rng(devices=[generator.device] if generator.device.type == "cuda" else []):
        seed = int(torch.randint(1 << 62, (), generator=generator, device=generator.device))
        torch.manual_seed(seed + process_rank())  # each drops elements of its own part
        yield


def set_rate(optimizer: Optimizer, rate: float | Tensor) -> None:
    """Set the learning rate of all parameters, a number or a scalar tensor; see `JoinedOptimizers`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"] if "rate_factor" in group else rate


class NeuralRecommender(SessionRecommender):
    """A model with an optimiser and an option ``learning_rate``; it offers `loss`, or a `train_window` of its own.

    Args:
        schedule: Course of the learning rate: ``constant``, falling to 0 at the end of the fit, ``linear`` or as half a
            ``cosine``, or in ``stairs``, each a tenth of the one before.
        schedule_unit: Whether the learning rate changes with every ``step`` or with every ``epoch``.
        warmup: Steps, or epochs, in which the learning rate rises in equal parts before it is reached.
        stair: Steps, or epochs, of one of the stairs.
        protocol: Options of `SessionRecommender`.
    """

    batches: TrainingBatches = "window"
    item_rows: tuple[str, ...] = ()
    """Parameters with a row for each item, which grow with the items where a fit begins with an earlier one's."""
    warm_start: WarmStart | None = None
    """The fit that this one begins with the weights and the optimiser's state of."""
    _last_time = 0.0

    def __init__(
        self,
        schedule: ScheduleName = "constant",
        schedule_unit: ScheduleUnit = "step",
        warmup: int = 0,
        stair: int = 3,
        **protocol: Any,
    ) -> None:
        super().__init__(**protocol)
        self.save_hyperparameters("schedule", "schedule_unit", "warmup", "stair")
        self.schedule = Schedule(schedule, schedule_unit, warmup, stair)
        self.schedule.check()
        self.rates: list[float] | None = None
        """Learning rate of each step of the window that is trained; None where it does not change in the fit."""
        self._length: int | None = None  # of the fit, in steps or epochs
        self._clip_value: float | None = None

    @property
    def options(self) -> Any:
        """Options of the model, by name."""
        return self.hparams

    def learn_sessions(self, sessions: Sessions) -> None:
        """Refuse to learn without a trainer."""
        raise SessRecError(f"{type(self).__name__} is trained by gradients: fit it with a Trainer")

    def loss(self, batch: Any) -> Tensor:
        """Sum of the loss over the pairs of a batch, scalar, for torch to differentiate."""
        raise TypeError(f"{type(self).__name__} has no loss method")

    def train_window(self, window: Any, optimizer: Optimizer, generator: torch.Generator) -> Tensor:
        """Take the steps of a batch; here one, by the gradient of the mean `loss`.

        Args:
            window: A `Window` of session-parallel steps, or a `SessionBatch`, which is one step.
            optimizer: The optimiser.
            generator: Source of all randomness, on the model's device.

        Returns:
            Sum of the loss over this process's pairs of each step, shape (steps,).
        """
        n_pairs, loss = int(window.widths.sum()), torch.zeros((), device=self.device)
        own = window if n_processes() == 1 else window.share(own_part(window.n_parts))
        with seeded(generator), torch.enable_grad():
            if own.widths.sum():
                loss = self.loss(own)
                (loss / n_pairs).backward()
        self.take_step(optimizer)
        return loss.detach()[None]

    @property
    def clips_gradients(self) -> bool:
        """Whether the trainer's ``gradient_clip_val`` is heeded; a `train_window` of one's own does by `take_step`."""
        return type(self).train_window is NeuralRecommender.train_window

    @property
    def trains_in_parallel(self) -> bool:
        """Whether several processes can train the model; a `train_window` of one's own has to know of the others."""
        return type(self).train_window is NeuralRecommender.train_window

    def take_step(self, optimizer: Optimizer) -> None:
        """Take the optimiser's step by the gradients that autograd has left, of all processes, clipped as asked for."""
        if n_processes() > 1:
            exchange_gradients([parameter for group in optimizer.param_groups for parameter in group["params"]])
        if self._trainer is not None and self.trainer.gradient_clip_val:
            self.clip_gradients(optimizer)
        optimizer.step()
        optimizer.zero_grad()

    def configure_callbacks(self) -> list[Callback]:
        """Check the clipping, and hide it until `setup`: Lightning refuses it where a model takes its own steps."""
        check_clipping(self.trainer, type(self).__name__, self.clips_gradients)
        self._clip_value, self.trainer.gradient_clip_val = self.trainer.gradient_clip_val, None
        return []

    def setup(self, stage: str) -> None:
        """See `SessionRecommender.setup`."""
        self.trainer.gradient_clip_val = self._clip_value
        super().setup(stage)

    def on_train_start(self) -> None:
        """Resume inside an epoch; options of this fit take precedence over those of the checkpoint's optimiser."""
        if self.global_step == 0:  # a new fit, of a model that an earlier one may have left inside an epoch
            self.progress = Progress()
        if self.progress.inside_epoch:
            self.trainer.train_dataloader.load_state_dict({"batch": self.progress.windows})  # type: ignore[union-attr]
            resume_inside_epoch(self.trainer, self.progress.windows)
        else:
            resume_after_epoch(self.trainer)
        self._last_time = time.perf_counter()
        if self.warm_start is not None and self.global_step == 0:
            optimizer = self.raw_optimizer()
            optimizer.load_state_dict(self.warm_start.state_for(optimizer, self))
        self.warm_start = None  # weights and state of the other fit are not held for the whole of this one
        for group in self.raw_optimizer().param_groups:
            group.update({name: self.options[name] for name in ("momentum",) if name in group and name in self.options})
        set_rate(self.raw_optimizer(), self.options.learning_rate)
        loader = self.trainer.train_dataloader
        self._length = self.schedule.length(self.trainer, loader) if self.schedule.changes else None

    def training_step(self, window: Window | SessionBatch, batch_idx: int) -> None:
        """Train on a window, cut where ``max_steps`` is reached, and log the mean loss of its pairs.

        Raises:
            SessRecError: If a loss is not finite.
        """
        first, left = self.progress.steps, self.trainer.max_steps - self.global_step
        stop = min(window.n_steps, first + left) if self.trainer.max_steps > 0 else window.n_steps
        is_whole = stop == window.n_steps
        if isinstance(window, Window) and (first or not is_whole):
            window = window.part(first, stop)
        self._set_rates(stop - first)
        losses = self.train_window(window, self.raw_optimizer(), self._generator(window.number))
        self.rates = None
        n_pairs = int(window.widths.sum())
        sums = sum_over_processes(losses.double()).tolist()  # the only synchronisation with the device
        for number, loss in enumerate(sums, self.global_step + 1):
            if not math.isfinite(loss):
                raise self.diverged(f"the training loss is {loss} at step {number}")
        self.progress.add(len(sums), sum(sums), n_pairs, is_whole)
        count_steps(self.trainer, len(sums))
        self._log_window(len(sums), sum(sums) / n_pairs, n_pairs)

    def _set_rates(self, n_steps: int) -> None:
        """Give the optimiser the rate of the first of some steps; a `train_window` of more than one sets the others."""
        if not self.schedule.changes:
            return
        by_step = self.schedule.unit == "step"
        done = [self.global_step + number if by_step else self.current_epoch for number in range(n_steps)]
        self.rates = [self.options.learning_rate * self.schedule.factor(n, self._length) for n in done]
        set_rate(self.raw_optimizer(), self.rates[0])

    def _log_window(self, n_steps: int, loss: float, n_pairs: float) -> None:
        now = time.perf_counter()
        speed, self._last_time = n_pairs / (now - self._last_time), now
        self.log("train/loss", loss, prog_bar=True, logger=False)
        self.log("train/events_per_second", speed, prog_bar=True, logger=False)
        interval = self.trainer.log_every_n_steps  # type: ignore[attr-defined] # optimiser steps, not batches
        if interval and self.global_step // interval > (self.global_step - n_steps) // interval:
            rate = self.raw_optimizer().param_groups[0]["lr"]
            self.log_at_step({"train/loss": loss, "train/events_per_second": speed, "train/learning_rate": rate})

    def on_train_epoch_end(self) -> None:
        """Log the mean loss of an epoch that is complete; a fit may stop inside."""
        progress = self.progress
        if progress.windows == self.trainer.num_training_batches:
            loss, self.progress = progress.loss / progress.n_pairs, Progress()
            self.log("train/loss_epoch", loss, logger=False)
            self.log_at_step({"train/loss_epoch": loss})

    def diverged(self, what: str) -> SessRecError:
        """The error of a fit whose numbers are no longer finite."""
        return SessRecError(
            f"{what}: the fit has diverged; try a lower --model.learning_rate than {self.options.learning_rate}"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Reject weights that are not finite, so that the checkpoint before stays.

        Raises:
            SessRecError: If one is not.
        """
        super().on_save_checkpoint(checkpoint)
        weights = checkpoint["state_dict"] if "state_dict" in checkpoint else dict(self.named_parameters())
        for name, weight in weights.items():  # whole tables also where a process has a part of them
            if not weight.isfinite().all():
                raise self.diverged(f"{name} is not finite at step {self.global_step}")

    def _generator(self, window_number: int) -> torch.Generator:
        """A generator that follows from seed, epoch and window alone: resumed fits and all processes draw the same."""
        entropy = np.random.SeedSequence([self.seed or 0, self.current_epoch, window_number])
        return torch.Generator(self.device).manual_seed(int(entropy.generate_state(1, np.uint64)[0]) >> 1)

    def raw_optimizer(self) -> Optimizer:
        """The optimiser, without Lightning's wrapper."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        return optimizer
