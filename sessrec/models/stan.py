"""STAN: session neighbours with weights for place, recency and distance.

References:
    Garg, Gupta, Malhotra, Vig and Shroff, "Sequence and Time Aware Neighborhood for Session-based Recommendations:
    STAN", SIGIR 2019.
"""

from __future__ import annotations

from typing import Any

from sessrec.models.sequence_time import SequenceTimeRecommender


class STAN(SequenceTimeRecommender):
    """Ranks items by neighbours, weighted by the places of shared items, the neighbour's age and the items' distance.

    With w = exp((p - L) / l1) for the item whose last place is p of L, the similarity of a training session of n
    distinct items is the sum of w over the shared items, over the root of the sum of all w^2 and the root of n, times
    exp(-age / l2). The age is that of its last event, seen from the most recent session looked at: which moment is now,
    changes no rank. A neighbour gives an item its similarity times exp(-d / l3), d places away from the newest item it
    shares.

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
        protocol: Options of `SessionRecommender`.
    """

    def __init__(
        self,
        n_neighbours: int = 500,
        sample_size: int = 2500,
        place_decay: float = 1.02,
        recency_decay: float = 5.0,
        distance_decay: float = 2.05,
        **protocol: Any,
    ) -> None:
        super().__init__(
            place_decay,
            recency_decay,
            distance_decay,
            n_neighbours=n_neighbours,
            sample_size=sample_size,
            idf_weight=0.0,
            **protocol,
        )
        self.save_hyperparameters()
