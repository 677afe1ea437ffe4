"""What models share that look at the whole session so far and find the scores of all items at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sessrec.models.counting import CountingRecommender
from sessrec.models.neighbours import PaddedSessions, Prefixes


class PrefixRecommender(CountingRecommender):
    """Scores the whole catalogue from the distinct items of a session so far; offers `score_prefixes`.

    A query is a position (session, place) in the sessions that were encoded last.

    Args:
        cutoffs: See `SessionRecommender`, as for the other options.
    """

    scores_in_blocks = False

    def score_prefixes(self, prefixes: Prefixes) -> np.ndarray:
        """Score all items for some sessions so far.

        Args:
            prefixes: The sessions so far.

        Returns:
            Scores, higher is better, float64, shape (P, N).
        """
        raise TypeError(f"{type(self).__name__} has no score_prefixes method")

    def encode(self, items: Tensor) -> Tensor:
        """Keep the sessions, and number their positions: int64, shape (S, L, 2)."""
        self._sessions = PaddedSessions(items.cpu().numpy())
        return torch.ones(items.shape, device=items.device).nonzero().view(*items.shape, 2)

    def score(self, queries: Tensor, items: slice) -> Tensor:
        """Score of each item, float64, shape (P, n)."""
        row, column = queries.cpu().numpy().T
        scores = self.score_prefixes(self._sessions.up_to(row, column))
        return torch.from_numpy(scores[:, items]).to(queries.device)
