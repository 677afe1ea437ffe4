"""First-order Markov chain: what followed this item in training, blended with popularity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sessrec.data.session_parallel import Window
from sessrec.errors import SessRecError
from sessrec.models.counting import CountingRecommender

_TIE_BREAK = 1e-9  # weight of popularity at alpha 0: far below any difference between two transition scores
_MAX_PENDING = 4_000_000  # transitions kept before they are summed up


class Markov(CountingRecommender):
    """Ranks items by how often they followed the session's last item.

    With a the last item, item b scores (1 - alpha) count(a, b) / max_b count(a, b) + alpha count(b) / max_b count(b);
    an item a without successors leaves the ranking to popularity. With alpha 0, popularity breaks the ties: items that
    never followed a come after those that did, the popular first. It learns by counting, in the first epoch; further
    epochs change nothing.

    Args:
        alpha: Share of popularity in the score, in [0, 1]; 0 is the first-order chain of the literature.
        protocol: Options of `SessionRecommender`.

    Raises:
        SessRecError: If ``alpha`` is not in [0, 1].
    """

    counts: Tensor
    """Training events of each item, int64, shape (N,)."""
    offsets: Tensor
    """First transition of each item, and the number of transitions, int64, shape (N + 1,)."""
    successors: Tensor
    """Next item of each transition, by item, int64, shape (transitions,)."""
    shares: Tensor
    """Count of each transition over the greatest of its item, float64, shape (transitions,)."""

    grown_buffers = ("successors", "shares")

    def __init__(
        self,
        alpha: float = 0.0,
        **protocol: Any,
    ) -> None:
        super().__init__(**protocol)
        if not 0 <= alpha <= 1:
            raise SessRecError(f"--model.alpha must be in [0, 1], got {alpha}")
        self.save_hyperparameters()
        self.alpha = alpha
        self._pending: list[Tensor] = []
        self._has_news = False

    def build(self) -> None:
        """Create the counts and an empty table of transitions."""
        self.register_buffer("counts", torch.zeros(self.n_items, dtype=torch.int64))
        self.register_buffer("offsets", torch.zeros(self.n_items + 1, dtype=torch.int64))
        self.register_buffer("successors", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("shares", torch.zeros(0, dtype=torch.float64))
        self._sums = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the sums beside the buffers, where a fit may go on counting."""
        super().on_save_checkpoint(checkpoint)
        if self.progress.steps:
            self._sum_up()
            checkpoint["sums"] = self._sums

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the sums over."""
        super().on_load_checkpoint(checkpoint)
        if "sums" in checkpoint:
            self._sums, self._pending, self._has_news = checkpoint["sums"], [], True

    def count(self, window: Window) -> None:
        """Count the window's transitions; they never cross the border between two sessions."""
        inputs, targets = window.inputs[window.live], window.targets[window.live]
        self.counts += torch.bincount(window.inputs[window.starts], minlength=self.n_items)
        self.counts += torch.bincount(targets, minlength=self.n_items)
        self._has_news = True
        self._pending.append((inputs * self.n_items + targets).cpu())
        if sum(map(len, self._pending)) > _MAX_PENDING:
            self._sum_up()

    def _sum_up(self) -> None:
        """Add the pending transitions to the sums, one entry for each distinct pair."""
        pairs, counts = self._sums
        pending = torch.cat([pairs, *self._pending])
        weights = torch.cat([counts, torch.ones(len(pending) - len(pairs), dtype=torch.int64)])
        pairs, place = pending.unique(return_inverse=True)
        self._sums = (pairs, torch.zeros_like(pairs).index_add_(0, place, weights))
        self._pending = []

    def finish_counting(self) -> None:
        """Lay the sums out by item, each divided by the greatest of its item."""
        if not self._has_news:  # a model that was loaded and goes on keeps what it has
            return
        self._has_news = False
        self._sum_up()
        pairs, counts = self._sums
        item, successors = pairs // self.n_items, pairs % self.n_items
        greatest = torch.zeros(self.n_items, dtype=torch.int64).scatter_reduce_(0, item, counts, "amax")
        n_successors = torch.bincount(item, minlength=self.n_items)
        offsets = torch.cat([n_successors.new_zeros(1), n_successors.cumsum(0)])
        self.register_buffer("offsets", offsets.to(self.device))
        self.register_buffer("successors", successors.to(self.device))
        self.register_buffer("shares", (counts.double() / greatest[item]).to(self.device))

    def encode(self, items: Tensor) -> Tensor:
        """The position's own item, int64, shape (S, L, 1): a first-order chain knows no more."""
        return items[:, :, None]

    def score(self, queries: Tensor, items: slice) -> Tensor:
        """Blended score of each item, float64, shape (P, n)."""
        last = queries[:, 0]
        start, n_successors = self.offsets[last], self.offsets[last + 1] - self.offsets[last]
        row = torch.repeat_interleave(n_successors)  # (transitions of all positions,)
        transition = (
            start[row] + torch.arange(len(row), device=last.device) - (n_successors.cumsum(0) - n_successors)[row]
        )
        successor = self.successors[transition]
        inside = (successor >= items.start) & (successor < items.stop)
        row, successor, share = row[inside], successor[inside], self.shares[transition[inside]]
        alpha = max(self.alpha, _TIE_BREAK)
        popularity = self.counts[items] / self.counts.max().clamp(min=1).double()  # (n,)
        weight = torch.ones_like(last, dtype=torch.float64).masked_fill_(n_successors > 0, alpha)
        scores = weight[:, None] * popularity  # popularity alone where there are no successors
        scores[row, successor - items.start] += (1 - alpha) * share
        return scores
