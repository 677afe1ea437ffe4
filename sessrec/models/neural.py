"""What models share that are trained by gradients: losses checked and logged, and randomness that can resume."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from sessrec.data.loaders import SessionBatch
from sessrec.data.session_parallel import Window
from sessrec.distributed import n_processes, process_rank, sum_over_processes
from sessrec.errors import SessRecError
from sessrec.models.base import SessionRecommender


class NeuralRecommender(SessionRecommender):
    """A model with an optimiser and an option ``learning_rate``; offers `train_steps`.

    Args:
        protocol: Options of `SessionRecommender`.
    """

    options: Any

    def __init__(self, **protocol: Any) -> None:
        super().__init__(**protocol)
        self._last_time = 0.0

    def train_steps(
        self, batch: Any, optimizer: Optimizer, generator: torch.Generator, start: int, stop: int
    ) -> Tensor:
        """Take some steps of a batch.

        Args:
            batch: A window of steps, or whole sessions for one step.
            optimizer: The optimiser.
            generator: Source of randomness of the whole batch, on the model's device.
            start: First step to take.
            stop: Step to stop before.

        Returns:
            Sum of the loss over the pairs of each step, shape (steps,).
        """
        raise TypeError(f"{type(self).__name__} has no train_steps method")

    def on_train_start(self) -> None:
        """Let the options of this fit win over those in a resumed checkpoint's optimiser."""
        self.take_up_epoch()
        self._last_time = time.perf_counter()
        for group in self.raw_optimizer().param_groups:
            group.update({name: self.options[name] for name in ("momentum",) if name in group})
            group["lr"] = self.options.learning_rate

    def learn(self, window: Window | SessionBatch, start: int, stop: int) -> tuple[list[float], int]:
        """Train on steps of a window; the loss of each, and the number of pairs.

        Raises:
            SessRecError: If a loss is not finite.
        """
        losses = self.train_steps(window, self.raw_optimizer(), self._generator(window.number), start, stop)
        n_pairs = losses.new_tensor([window.widths[start:stop].sum()])
        # the only synchronisation with the device
        *sums, pairs = sum_over_processes(torch.cat([losses, n_pairs]).double()).tolist()
        for number, loss in enumerate(sums, self.global_step + 1):
            if not math.isfinite(loss):
                raise self.diverged(f"the training loss is {loss} at step {number}")
        return sums, int(pairs)

    def finish_window(self, window: Window | SessionBatch) -> None:
        """Log the mean loss of the window's pairs."""
        n_pairs, mean_loss = self.progress.window_pairs, self.progress.window_mean
        now = time.perf_counter()
        speed, self._last_time = n_pairs / (now - self._last_time), now
        self.log("train/loss", mean_loss, prog_bar=True, logger=False)
        self.log("train/events_per_second", speed, prog_bar=True, logger=False)
        interval = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if interval and self.global_step // interval > (self.global_step - window.n_steps) // interval:
            rate = self.raw_optimizer().param_groups[0]["lr"]
            self._log_figures({"train/loss": mean_loss, "train/events_per_second": speed, "train/learning_rate": rate})

    def on_train_epoch_end(self) -> None:
        """Log the mean loss of the epoch, where it is complete."""
        loss = self.progress.epoch_mean
        if self.end_epoch():
            self.log("train/loss_epoch", loss, logger=False)
            self._log_figures({"train/loss_epoch": loss})

    def _log_figures(self, figures: dict[str, float]) -> None:
        for logger in self.loggers:
            logger.log_metrics(figures, step=self.global_step)

    def diverged(self, what: str) -> SessRecError:
        """The error of a fit whose numbers are no longer finite."""
        return SessRecError(
            f"{what}: the fit has diverged; try a lower --model.learning_rate than {self.options.learning_rate}"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to save weights that are not finite: the checkpoint before is to be kept.

        Raises:
            SessRecError: If one is not.
        """
        super().on_save_checkpoint(checkpoint)
        for name, weight in self.named_parameters():
            if not weight.isfinite().all():
                raise self.diverged(f"{name} is not finite at step {self.global_step}")

    def _generator(self, window_number: int) -> torch.Generator:
        """A generator that follows from seed, epoch and window alone, so that a resumed fit draws the same."""
        rank = [process_rank()] if n_processes() > 1 else []
        entropy = np.random.SeedSequence([self.seed or 0, self.current_epoch, window_number, *rank])
        return torch.Generator(self.device).manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))

    def raw_optimizer(self) -> Optimizer:
        """The optimiser, without Lightning's wrapper."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        return optimizer
