"""How far a fit is inside an epoch: what a checkpoint needs so that the fit can go on from there."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Progress:
    """Steps taken in the epoch under way, and the sums behind the figures that are logged for them.

    Example:
        >>> progress = Progress()
        >>> progress.begin_window(first_step=0, n_steps=3)
        >>> progress.add_steps([4.0, 8.0], n_pairs=6)
        >>> progress.steps_left, progress.window_mean
        (1, 2.0)
    """

    steps: int = 0
    """Steps taken in this epoch."""
    window_stop: int = 0
    """Step of the epoch at which the window under way ends."""
    window_losses: list[float] = field(default_factory=list)
    """Sum of the loss over the lanes, for each step taken in the window under way."""
    window_pairs: int = 0
    """Pairs that these steps have learnt from."""
    loss: float = 0.0
    """Sum of the loss over all pairs of the windows before."""
    n_pairs: int = 0
    """Number of those pairs."""

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Progress:
        """Take up what `state_dict` gave."""
        return cls(**deepcopy(state))

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and a list."""
        return asdict(self)

    @property
    def steps_left(self) -> int:
        """Steps of the window under way that are still to take."""
        return self.window_stop - self.steps

    def begin_window(self, first_step: int, n_steps: int) -> None:
        """Take up a window, from its beginning or where it was left.

        A window counts as under way until the next one begins: what follows its last step may be gone on with too.
        """
        if self.window_stop == first_step + n_steps:
            return
        self.loss, self.n_pairs = self.loss + sum(self.window_losses), self.n_pairs + self.window_pairs
        self.window_stop, self.window_losses, self.window_pairs = first_step + n_steps, [], 0

    def add_steps(self, losses: list[float], n_pairs: int) -> None:
        """Count steps that were taken, with the loss of each and the pairs of all."""
        self.steps += len(losses)
        self.window_losses += losses
        self.window_pairs += n_pairs

    @property
    def window_mean(self) -> float:
        """Mean loss of the pairs of the window under way."""
        return sum(self.window_losses) / self.window_pairs

    @property
    def epoch_mean(self) -> float:
        """Mean loss of the epoch's pairs so far."""
        return (self.loss + sum(self.window_losses)) / (self.n_pairs + self.window_pairs)


def inside_window(loops: dict[str, Any]) -> dict[str, Any]:
    """The state of Lightning's loops as it was inside the training step of the window under way.

    Lightning has a state for each place where a checkpoint can be taken: inside the step, after it, after a validation
    that follows. Going on from inside the step, with none of its steps left, does all that follows as it was done.

    Args:
        loops: ``checkpoint["loops"]``.

    Returns:
        A copy in which the window is still to be processed.
    """
    loops = deepcopy(loops)
    batches = loops["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (batches["total"], batches["current"]):
        counts["processed"] = counts["completed"] = counts["ready"] - 1
    batches["is_last_batch"] = False  # which is found out again when the window comes
    loops["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1  # a restart counts it again
    return loops
