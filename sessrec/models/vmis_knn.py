"""VMIS-kNN: VSKNN on an index of each item's most recent sessions.

References:
    Kersbergen, Sprangers and Schelter, "Serenade - Low-Latency Session-Based Recommendation in e-Commerce at Scale",
    SIGMOD 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sessrec.errors import SessRecError
from sessrec.metrics import CUTOFFS, TieMode
from sessrec.models.neighbourhood import NeighbourhoodRecommender
from sessrec.neighbours import Prefixes, items_of_neighbours, nearest


class VMISKNN(NeighbourhoodRecommender):
    """Ranks items by the most recent sessions that share the newest items of the session so far.

    Each of the newest distinct items, its last place being p of L events, adds p over the number of these items to the
    similarity of the sessions that hold it. A neighbour gives its items its similarity times 1 - 0.1 s, s being the
    step of the newest item that it shares, counted in events from the end of the session so far (1 for the last one),
    and nothing from step 10 on.

    Args:
        n_neighbours: Training sessions that give scores, k in the paper.
        sample_size: Training sessions with an item in common that are looked at, the most recent ones, m in the paper.
        max_items: Newest distinct items of the session that are looked at.
        idf_weight: Weight w of the idf: an item's score is multiplied by 1 + w log(sessions / sessions with the item).
        cutoffs: Lengths K of the recommendation list for Recall@K, MRR@K and NDCG@K.
        tie_mode: Rank of a target whose score other items share: conservative (below them all), standard (above them
            all) or median.
        k: Items that predict gives a session.
        exclude_last: Whether the session's last item is no candidate for the next one.
        exclude_seen: Whether no item of the session so far is a candidate.
    """

    def __init__(
        self,
        n_neighbours: int = 100,
        sample_size: int = 500,
        max_items: int = 9,
        idf_weight: float = 0.0,
        cutoffs: Sequence[int] = CUTOFFS,
        tie_mode: TieMode = "conservative",
        k: int = 20,
        exclude_last: bool = False,
        exclude_seen: bool = False,
    ) -> None:
        super().__init__(
            n_neighbours,
            sample_size,
            idf_weight,
            cutoffs=cutoffs,
            tie_mode=tie_mode,
            k=k,
            exclude_last=exclude_last,
            exclude_seen=exclude_seen,
        )
        self.save_hyperparameters()
        if max_items < 1:
            raise SessRecError(f"--model.max_items must be at least 1, got {max_items}")
        self.max_items = max_items

    def score_prefixes(self, prefixes: Prefixes) -> np.ndarray:
        """Weighted sum over the neighbours, float64, shape (P, N)."""
        newest, n_rows, learnt = prefixes.newest(self.max_items), len(prefixes.lengths), self.learnt
        candidates = self.candidates(newest, newest.place / newest.n_distinct[newest.row])
        found = nearest(candidates, n_rows, self.n_neighbours)
        entries = items_of_neighbours(newest, found, learnt.index, self.n_items)
        steps = prefixes.lengths[found.row] - entries.greatest(entries.own_place) + 1
        decays = np.where(steps < 10, 1 - 0.1 * steps, 0.0)
        scores = self.sum_over_neighbours(found, found.similarity * decays, n_rows)
        return self.with_idf(scores)
