"""Popularity: the same ranking for everybody, by training events."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sessrec.batches import Window
from sessrec.metrics import CUTOFFS, TieMode
from sessrec.models.counting import CountingRecommender


class Popularity(CountingRecommender):
    """Ranks items by how often they occur in training.

    It learns by counting, in the first epoch; further epochs change nothing.

    Args:
        cutoffs: Lengths K of the recommendation list for Recall@K, MRR@K and NDCG@K.
        tie_mode: Rank of a target whose score other items share: conservative (below them all), standard (above them
            all) or median.
        k: Items that predict gives a session.
        exclude_last: Whether the session's last item is no candidate for the next one.
        exclude_seen: Whether no item of the session so far is a candidate.
    """

    counts: Tensor

    def __init__(
        self,
        cutoffs: Sequence[int] = CUTOFFS,
        tie_mode: TieMode = "conservative",
        k: int = 20,
        exclude_last: bool = False,
        exclude_seen: bool = False,
    ) -> None:
        super().__init__(cutoffs, tie_mode, k, exclude_last, exclude_seen)
        self.save_hyperparameters()

    def build(self) -> None:
        """Create the counts."""
        self.register_buffer("counts", torch.zeros(self.n_items, dtype=torch.int64))

    def count(self, window: Window) -> None:
        """Count every event once: a session's first as an input, the others as targets."""
        for items, chosen in ((window.inputs, window.starts), (window.targets, window.live)):
            self.counts += torch.bincount(items[chosen], minlength=self.n_items)

    def encode(self, items: Tensor) -> Tensor:
        """Queries of no content, float64, shape (S, L, 1): every position gets the same ranking."""
        return torch.zeros((*items.shape, 1), dtype=torch.float64, device=items.device)

    def score(self, queries: Tensor, items: slice) -> Tensor:
        """Training events of each item, float64, shape (P, n)."""
        return queries + self.counts[items]
