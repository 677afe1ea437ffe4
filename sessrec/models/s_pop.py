"""S-Pop: what the session has looked at most, then what everybody has.

References:
    Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016, section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sessrec.metrics import CUTOFFS, TieMode
from sessrec.models.prefix import PrefixRecommender
from sessrec.neighbours import Prefixes


class SPop(PrefixRecommender):
    """Ranks items by how often they stand in the session so far; popularity in training breaks the ties.

    Args:
        cutoffs: Lengths K of the recommendation list for Recall@K, MRR@K and NDCG@K.
        tie_mode: Rank of a target whose score other items share: conservative (below them all), standard (above them
            all) or median.
        k: Items that predict gives a session.
        exclude_last: Whether the session's last item is no candidate for the next one.
        exclude_seen: Whether no item of the session so far is a candidate.
    """

    def __init__(
        self,
        cutoffs: Sequence[int] = CUTOFFS,
        tie_mode: TieMode = "conservative",
        k: int = 20,
        exclude_last: bool = False,
        exclude_seen: bool = False,
    ) -> None:
        super().__init__(
            cutoffs=cutoffs,
            tie_mode=tie_mode,
            k=k,
            exclude_last=exclude_last,
            exclude_seen=exclude_seen,
        )
        self.save_hyperparameters()

    def score_prefixes(self, prefixes: Prefixes) -> np.ndarray:
        """Count in the session, and popularity as a fraction below 1, float64, shape (P, N)."""
        counts = self.known_items.counts
        scores = np.tile(counts / (counts.max(initial=0) + 1), (len(prefixes.lengths), 1))
        scores[prefixes.row, prefixes.item] += prefixes.counts
        return scores
