"""Popularity: the same ranking for everybody, by training events."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sessrec.data.sessions import Sessions
from sessrec.models.base import SessionRecommender


class Popularity(SessionRecommender):
    """Ranks items by how often they occur in training."""

    counts: Tensor
    adds_up = True

    def build(self) -> None:
        """Create the counts."""
        self.register_buffer("counts", torch.zeros(self.n_items, dtype=torch.int64))

    def learn_sessions(self, sessions: Sessions) -> None:
        """Count every event once."""
        self.counts = torch.from_numpy(np.bincount(sessions.items, minlength=self.n_items))
        if self.earlier is not None:
            self.counts += torch.from_numpy(self.earlier.by_item(self.earlier.model.counts.numpy()))

    def encode(self, items: Tensor) -> Tensor:
        """Queries of no content, float64, shape (S, L, 1): every position gets the same ranking."""
        return torch.zeros((*items.shape, 1), dtype=torch.float64, device=items.device)

    def score(self, queries: Tensor, items: slice) -> Tensor:
        """Training events of each item, float64, shape (P, n)."""
        return queries + self.counts[items]
