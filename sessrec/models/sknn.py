"""SKNN: items of the training sessions most similar to the session so far, as sets.

References:
    Jannach and Ludewig, "When Recurrent Neural Networks meet the Neighborhood for Session-Based Recommendation", RecSys
    2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from sessrec.errors import check_choice
from sessrec.metrics import CUTOFFS, TieMode
from sessrec.models.neighbourhood import NeighbourhoodRecommender
from sessrec.neighbours import Neighbours, Prefixes, nearest

SetSimilarity = Literal["cosine", "jaccard"]


class SKNN(NeighbourhoodRecommender):
    """Ranks items by the summed similarity of the neighbours that hold them, order left aside.

    The similarity of a training session to the session so far is that of the sets of their items: the cosine, items in
    common over the root of the product of both sizes, or Jaccard's, items in common over items in any of the two.

    Args:
        n_neighbours: Training sessions that give scores (session-rec: 500).
        sample_size: Training sessions with an item in common that are looked at, the most recent ones (session-rec:
            1000).
        similarity: cosine or jaccard.
        cutoffs: Lengths K of the recommendation list for Recall@K, MRR@K and NDCG@K.
        tie_mode: Rank of a target whose score other items share: conservative (below them all), standard (above them
            all) or median.
        k: Items that predict gives a session.
        exclude_last: Whether the session's last item is no candidate for the next one.
        exclude_seen: Whether no item of the session so far is a candidate.
    """

    def __init__(
        self,
        n_neighbours: int = 500,
        sample_size: int = 1000,
        similarity: SetSimilarity = "cosine",
        cutoffs: Sequence[int] = CUTOFFS,
        tie_mode: TieMode = "conservative",
        k: int = 20,
        exclude_last: bool = False,
        exclude_seen: bool = False,
    ) -> None:
        super().__init__(
            n_neighbours,
            sample_size,
            cutoffs=cutoffs,
            tie_mode=tie_mode,
            k=k,
            exclude_last=exclude_last,
            exclude_seen=exclude_seen,
        )
        self.save_hyperparameters()
        check_choice("similarity", similarity, SetSimilarity)
        self.similarity = similarity

    def score_prefixes(self, prefixes: Prefixes) -> np.ndarray:
        """Summed similarity, float64, shape (P, N)."""
        row, session, shared = self.candidates(prefixes, np.ones(len(prefixes.item)))
        own, other = prefixes.n_distinct[row], self.learnt.index.lengths[session]
        similar = shared / (np.sqrt(own * other) if self.similarity == "cosine" else own + other - shared)
        found = nearest(Neighbours(row, session, similar), len(prefixes.lengths), self.n_neighbours)
        return self.sum_over_neighbours(found, found.similarity, len(prefixes.lengths))
