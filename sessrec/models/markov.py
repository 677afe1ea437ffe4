"""First-order Markov chain: what followed this item in training, blended with popularity."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from sessrec.data.sessions import Sessions
from sessrec.errors import SessRecError
from sessrec.models.base import SessionRecommender
from sessrec.models.item_rules import rows_of

_TIE_BREAK = 1e-9  # weight of popularity at alpha 0: far below any difference between two transition scores


class Markov(SessionRecommender):
    """Ranks items by how often they followed the session's last item.

    With a the last item, item b scores (1 - alpha) count(a, b) / max_b count(a, b) + alpha count(b) / max_b count(b);
    an item a without successors leaves the ranking to popularity. With alpha 0, popularity breaks the ties: items that
    never followed a come after those that did, the popular first.

    Args:
        alpha: Share of popularity in the score, in [0, 1]; 0 is the first-order chain of the literature.
        protocol: Options of `SessionRecommender`.
    """

    counts: Tensor
    """Training events of each item, int64, shape (N,)."""
    offsets: Tensor
    """First transition of each item, and the number of transitions, int64, shape (N + 1,)."""
    successors: Tensor
    """Next item of each transition, by item, int64, shape (transitions,)."""
    shares: Tensor
    """Count of each transition over the greatest of its item, float64, shape (transitions,)."""
    greatest: Tensor
    """The greatest count among each item's transitions, int64, shape (N,); zeros where an earlier release made it."""

    data_dependent_buffers = ("successors", "shares")
    adds_up = True

    def __init__(self, alpha: float = 0.0, **protocol: Any) -> None:
        super().__init__(**protocol)
        if not 0 <= alpha <= 1:
            raise SessRecError(f"--model.alpha must be in [0, 1], got {alpha}")
        self.save_hyperparameters()
        self.alpha = alpha

    def build(self) -> None:
        """Create the counts and an empty table of transitions."""
        self.register_buffer("counts", torch.zeros(self.n_items, dtype=torch.int64))
        self.register_buffer("offsets", torch.zeros(self.n_items + 1, dtype=torch.int64))
        self.register_buffer("successors", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("shares", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("greatest", torch.zeros(self.n_items, dtype=torch.int64))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take what an earlier release has not kept as 0."""
        if "counts" in (weights := checkpoint["state_dict"]):
            weights.setdefault("greatest", torch.zeros_like(weights["counts"]))
        super().on_load_checkpoint(checkpoint)

    def learn_sessions(self, sessions: Sessions) -> None:
        """Count events and transitions, which never cross the border between two sessions."""
        items = np.asarray(sessions.items, dtype=np.int64)
        inside = np.ones(len(items), dtype=bool)
        inside[sessions.offsets[:-1]] = False  # nothing comes before a session's first event
        place = np.flatnonzero(inside)
        pairs, counts = np.unique(items[place - 1] * self.n_items + items[place], return_counts=True)
        item, successor = np.divmod(pairs, self.n_items)
        of_item = np.bincount(items, minlength=self.n_items)
        if self.earlier is not None:
            item, successor, counts = self._with_earlier(item, successor, counts)
            of_item += self.earlier.by_item(self.earlier.model.counts.numpy())
        greatest = np.zeros(self.n_items, dtype=np.int64)
        np.maximum.at(greatest, item, counts)
        offsets = np.concatenate([[0], np.bincount(item, minlength=self.n_items).cumsum()])
        self.counts, self.greatest = torch.from_numpy(of_item), torch.from_numpy(greatest)
        self.offsets, self.successors = torch.from_numpy(offsets), torch.from_numpy(successor)
        self.shares = torch.from_numpy(counts / greatest[item])

    def _with_earlier(
        self, item: np.ndarray, successor: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Transitions and their counts, with those of the earlier fit added."""
        assert self.earlier is not None
        own = self.earlier.model
        if len(own.shares) and not own.greatest.any():
            raise SessRecError("--init_from: an earlier release has not kept the counts of its transitions: fit anew")
        greatest = own.greatest.numpy()[np.repeat(np.arange(own.n_items), np.diff(own.offsets.numpy()))]
        before = np.rint(own.shares.numpy() * greatest)
        now = csr_array((counts.astype(np.float64), (item, successor)), shape=(self.n_items, self.n_items))
        both = csr_array(now + self.earlier.by_pair(own.offsets.numpy(), own.successors.numpy(), before))
        both.sort_indices()
        item = np.repeat(np.arange(self.n_items), np.diff(both.indptr))
        return item, both.indices.astype(np.int64), both.data.astype(np.int64)

    def encode(self, items: Tensor) -> Tensor:
        """The position's own item, int64, shape (S, L, 1): a first-order chain knows no more."""
        return items[:, :, None]

    def score(self, queries: Tensor, items: slice) -> Tensor:
        """Blended score of each item, float64, shape (P, n)."""
        last = queries[:, 0]
        row, transition = rows_of(self.offsets, last)
        successor = self.successors[transition]
        inside = (successor >= items.start) & (successor < items.stop)
        row, successor, share = row[inside], successor[inside], self.shares[transition[inside]]
        alpha = max(self.alpha, _TIE_BREAK)
        popularity = self.counts[items] / self.counts.max().clamp(min=1).double()  # (n,)
        has_successors = self.offsets[last + 1] > self.offsets[last]
        weight = torch.ones_like(last, dtype=torch.float64).masked_fill_(has_successors, alpha)
        scores = weight[:, None] * popularity  # popularity alone where there are no successors
        scores[row, successor - items.start] += (1 - alpha) * share
        return scores
