"""VSTAN: STAN with a weight for how new the newest shared item is, and idf.

References:
    Ludewig, Mauro, Latifi and Jannach, "Empirical Analysis of Session-Based Recommendation Algorithms", User Modeling
    and User-Adapted Interaction 31, 2021.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sessrec.models.compatibility import check_ranges
from sessrec.models.neighbourhood import NeighbourhoodRecommender
from sessrec.models.neighbours import Prefixes
from sessrec.models.stan import scores_by_distance


class VSTAN(NeighbourhoodRecommender):
    """Ranks items as STAN does, and prefers neighbours that share what the session looked at last, and rare items.

    To STAN's score of an item by a neighbour, VSTAN adds the factor exp((p - L) / l4), p of L being the last place, in
    the session so far, of the item that is newest in the neighbour among those shared, and the factor 1 + w
    log(sessions / sessions with the item).

    Args:
        n_neighbours: Training sessions that give scores (session-rec: 500).
        sample_size: Training sessions with an item in common that are looked at, the most recent ones (session-rec:
            5000).
        place_decay: Events over which the weight of an item of the session so far falls to 1/e, l1 in the paper
            (session-rec: 1.02).
        recency_decay: Days over which the weight of a training session falls to 1/e, l2 in the paper (session-rec: 5 or
            more, by the data). Where the log has no times, 86,400 rows stand for a day.
        distance_decay: Events over which a neighbour's items lose 1/e, away from the newest one shared, l3 in the
            paper (session-rec: 2.05).
        shared_decay: Events over which the weight of the newest shared item falls to 1/e, l4 (session-rec: 1.02).
        idf_weight: Weight w of the idf (session-rec: 5).
        protocol: Options of `SessionRecommender`.
    """

    def __init__(
        self,
        n_neighbours: int = 500,
        sample_size: int = 2500,
        place_decay: float = 1.02,
        recency_decay: float = 5.0,
        distance_decay: float = 2.05,
        shared_decay: float = 1.02,
        idf_weight: float = 5.0,
        **protocol: Any,
    ) -> None:
        super().__init__(n_neighbours, sample_size, idf_weight, **protocol)
        self.save_hyperparameters()
        self.place_decay, self.recency_decay = place_decay, recency_decay
        self.distance_decay, self.shared_decay = distance_decay, shared_decay
        check_ranges(vars(self), {"(0, inf]": "place_decay recency_decay distance_decay shared_decay"})

    def score_prefixes(self, prefixes: Prefixes) -> np.ndarray:
        """Weighted sum over the neighbours, float64, shape (P, N)."""
        return scores_by_distance(self, prefixes, self.shared_decay)
