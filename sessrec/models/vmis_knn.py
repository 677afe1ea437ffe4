"""VMIS-kNN: VSKNN on an index of each item's most recent sessions.

References:
    Kersbergen, Sprangers and Schelter, "Serenade - Low-Latency Session-Based Recommendation in e-Commerce at Scale",
    SIGMOD 2022.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sessrec.errors import check_least
from sessrec.models.neighbourhood import NeighbourhoodRecommender
from sessrec.models.neighbours import Prefixes, items_of_neighbours, nearest


class VMISKNN(NeighbourhoodRecommender):
    """Ranks items by the most recent sessions that share the newest items of the session so far.

    Each of the newest distinct items, its last place being p of L events, adds p over the number of these items to the
    similarity of the sessions that hold it. A neighbour gives its items its similarity times 1 - 0.1 s, s being the
    step of the newest item that it shares, counted in events from the end of the session so far (1 for the last one),
    and nothing from step 10 on.

    Args:
        n_neighbours: Training sessions that give scores, k in the paper (Serenade's configuration: 500; here as
            VSKNN's).
        sample_size: Training sessions with an item in common that are looked at, the most recent ones, m in the paper
            (Serenade's configuration: 500).
        max_items: Newest distinct items of the session that are looked at (Serenade's configuration: 2; here as many as
            the decay leaves something of).
        idf_weight: Weight w of the idf: an item's score is multiplied by 1 + w log(sessions / sessions with the item),
            as VSKNN has it.
        idf: Whether an item's score is multiplied by log(sessions / sessions with the item) itself, as the paper has
            it.
        protocol: Options of `SessionRecommender`.
    """

    def __init__(
        self,
        n_neighbours: int = 100,
        sample_size: int = 500,
        max_items: int = 9,
        idf_weight: float = 0.0,
        idf: bool = False,
        **protocol: Any,
    ) -> None:
        super().__init__(n_neighbours, sample_size, idf_weight, **protocol)
        self.save_hyperparameters()
        check_least("--model.max_items", max_items, 1)
        self.max_items, self.idf = max_items, idf

    def score_prefixes(self, prefixes: Prefixes) -> np.ndarray:
        """Weighted sum over the neighbours, float64, shape (P, N)."""
        newest, n_rows, learned = prefixes.newest(self.max_items), len(prefixes.lengths), self.learned
        candidates = self.candidates(newest, newest.place / newest.n_distinct[newest.row])
        found = nearest(candidates, n_rows, self.n_neighbours)
        entries = items_of_neighbours(newest, found, learned.index, self.n_items)
        steps = prefixes.lengths[found.row] - entries.greatest(entries.own_place) + 1
        decays = np.where(steps < 10, 1 - 0.1 * steps, 0.0)
        scores = self.sum_over_neighbours(found, found.similarity * decays, n_rows)
        return self.with_idf(scores * learned.idf if self.idf else scores)
