"""What models share that learn by counting, in one pass over the training sessions."""

from __future__ import annotations

from typing import Any

import torch

from sessrec.data.session_parallel import Window
from sessrec.data.sessions import Sessions
from sessrec.models.base import SessionRecommender


class CountingRecommender(SessionRecommender):
    """A model without an optimiser: it counts in the first epoch, and the fit ends with it.

    Args:
        cutoffs: See `SessionRecommender`, as for the other options.
    """

    def count(self, window: Window) -> None:
        """Learn from a window of training steps; every one comes once."""

    def learn_sessions(self, sessions: Sessions) -> None:
        """Learn from the training sessions as a whole, before the first window."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make room for what was counted."""
        super().on_load_checkpoint(checkpoint)
        for name in self.grown_buffers:
            self.register_buffer(name, torch.zeros_like(checkpoint["state_dict"][name]))

    def finish_counting(self) -> None:
        """Turn the counts into what `score` needs, after the last window."""

    def configure_optimizers(self) -> Any:
        """No optimiser."""
        return []

    def learn(self, window: Window, start: int, stop: int) -> tuple[list[float], int]:
        """Count steps of the first epoch; asking for ten epochs does not count ten times."""
        part = window.part(start, stop)
        if self.current_epoch == 0:
            self.count(part)
        return [0.0] * part.n_steps, part.n_events

    def on_train_start(self) -> None:
        """Count from nothing, unless a fit goes on."""
        self.take_up_epoch()
        if self.current_epoch == 0 and not self.progress.steps:
            device = self.device
            self.build()
            self.learn_sessions(self.trainer.train_dataloader.sessions)  # type: ignore[union-attr]
            self.to(device)

    def on_validation_epoch_start(self) -> None:
        """Evaluate with the counts so far."""
        if self.trainer.state.fn == "fit":
            self.finish_counting()
        super().on_validation_epoch_start()

    def on_train_epoch_end(self) -> None:
        """Make the counts ready where no validation did, and end the fit: all there is has been counted."""
        self.finish_counting()
        if self.end_epoch():
            self.trainer.should_stop = True
