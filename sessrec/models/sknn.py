"""SKNN: items of the training sessions most similar to the session so far, as sets.

References:
    Jannach and Ludewig, "When Recurrent Neural Networks meet the Neighborhood for Session-Based Recommendation", RecSys
    2017.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from sessrec.errors import check_choice
from sessrec.models.neighbourhood import NeighbourhoodRecommender
from sessrec.models.neighbours import Neighbours, Prefixes, nearest

SetSimilarity = Literal["cosine", "jaccard"]


class SKNN(NeighbourhoodRecommender):
    """Ranks items by the summed similarity of the neighbours that hold them, order left aside.

    The similarity of a training session to the session so far is that of the sets of their items: the cosine, items in
    common over the root of the product of both sizes, or Jaccard's, items in common over items in any of the two.

    Args:
        n_neighbours: Training sessions that give scores (session-rec: 500).
        sample_size: Training sessions with an item in common that are looked at, the most recent ones (session-rec:
            1000).
        similarity: cosine or jaccard (session-rec: jaccard; the paper: cosine).
        protocol: Options of `SessionRecommender`.
    """

    def __init__(
        self,
        n_neighbours: int = 500,
        sample_size: int = 1000,
        similarity: SetSimilarity = "cosine",
        **protocol: Any,
    ) -> None:
        super().__init__(n_neighbours, sample_size, idf_weight=0.0, **protocol)
        self.save_hyperparameters()
        check_choice("similarity", similarity, SetSimilarity)
        self.similarity = similarity

    def score_prefixes(self, prefixes: Prefixes) -> np.ndarray:
        """Summed similarity, float64, shape (P, N)."""
        row, session, shared = self.candidates(prefixes, np.ones(len(prefixes.item)))
        own, other = prefixes.n_distinct[row], self.learned.index.lengths[session]
        similar = shared / (np.sqrt(own * other) if self.similarity == "cosine" else own + other - shared)
        found = nearest(Neighbours(row, session, similar), len(prefixes.lengths), self.n_neighbours)
        return self.sum_over_neighbours(found, found.similarity, len(prefixes.lengths))
