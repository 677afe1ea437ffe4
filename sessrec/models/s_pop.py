"""S-Pop: what the session has looked at most, then what everybody has.

References:
    Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016, section 4.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sessrec.models.neighbours import Prefixes
from sessrec.models.prefix import PrefixRecommender


class SPop(PrefixRecommender):
    """Ranks items by how often they stand in the session so far; popularity in training breaks the ties.

    Args:
        protocol: Options of `SessionRecommender`.
    """

    def __init__(self, **protocol: Any) -> None:
        super().__init__(**protocol)
        self.save_hyperparameters()

    def score_prefixes(self, prefixes: Prefixes) -> np.ndarray:
        """Count in the session, and popularity as a fraction below 1, float64, shape (P, N)."""
        counts = self.known_items.counts
        scores = np.tile(counts / (counts.max(initial=0) + 1), (len(prefixes.lengths), 1))
        scores[prefixes.row, prefixes.item] += prefixes.counts
        return scores
