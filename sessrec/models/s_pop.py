"""S-Pop: what the session has looked at most, then what everybody has.

References:
    Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016, section 4.2.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sessrec.models.base import SessionRecommender
from sessrec.models.neighbours import Positions


class SPop(SessionRecommender):
    """Ranks items by how often they stand in the session so far; popularity in training breaks the ties."""

    scores_in_blocks = False
    adds_up = True  # its counts are those of the vocabulary

    def encode(self, items: Tensor) -> Positions:
        """The positions of the sessions, shape (S, L)."""
        return Positions.of_items(items)

    def score(self, queries: Positions, items: slice) -> Tensor:
        """Count in the session, and popularity as a fraction below 1, float64, shape (P, n)."""
        counts, prefixes = self.vocabulary.counts, queries.prefixes()
        scores = np.tile(counts / (counts.max(initial=0) + 1), (len(prefixes.lengths), 1))
        scores[prefixes.row, prefixes.item] += prefixes.counts
        return torch.from_numpy(scores[:, items]).to(queries.device)
