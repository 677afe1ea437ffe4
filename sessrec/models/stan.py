"""STAN: session neighbours with weights for place, recency and distance.

References:
    Garg, Gupta, Malhotra, Vig and Shroff, "Sequence and Time Aware Neighborhood for Session-based Recommendations:
    STAN", SIGIR 2019.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sessrec.models.compatibility import check_ranges
from sessrec.models.neighbourhood import NeighbourhoodRecommender
from sessrec.models.neighbours import Neighbours, Prefixes, items_of_neighbours, nearest


class STAN(NeighbourhoodRecommender):
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
        super().__init__(n_neighbours, sample_size, idf_weight=0.0, **protocol)
        self.save_hyperparameters()
        self.place_decay, self.recency_decay, self.distance_decay = place_decay, recency_decay, distance_decay
        check_ranges(vars(self), {"(0, inf]": "place_decay recency_decay distance_decay"})

    def score_prefixes(self, prefixes: Prefixes) -> np.ndarray:
        """Weighted sum over the neighbours, float64, shape (P, N)."""
        return scores_by_distance(self, prefixes)


def _similar_sessions(model: Any, prefixes: Prefixes) -> Neighbours:
    """The nearest training sessions of each session so far, by the places of shared items and the sessions' ages."""
    n_rows, index = len(prefixes.lengths), model.learned.index
    weights = np.exp((prefixes.place - prefixes.lengths[prefixes.row]) / model.place_decay)
    norms = np.sqrt(np.bincount(prefixes.row, weights**2, minlength=n_rows))
    row, session, shared = model.candidates(prefixes, weights)
    newest = np.full(n_rows, np.inf)
    np.minimum.at(newest, row, index.ages[session])
    recency = np.exp(-(index.ages[session] - newest[row]) / (model.recency_decay * 86400))
    similar = shared / (norms[row] * np.sqrt(index.lengths[session])) * recency
    return nearest(Neighbours(row, session, similar), n_rows, model.n_neighbours)


def scores_by_distance(model: Any, prefixes: Prefixes, shared_decay: float | None = None) -> np.ndarray:
    """Score items, float64, shape (P, N), by neighbours, weighted by the distance to the newest item that they share.

    Args:
        model: A `STAN` or `VSTAN`, whose options are taken.
        prefixes: Sessions so far.
        shared_decay: As in `VSTAN`; None for no such weight.
    """
    found = _similar_sessions(model, prefixes)
    entries = items_of_neighbours(prefixes, found, model.learned.index, model.n_items)
    shared_place = entries.greatest(np.where(entries.own_place > 0, entries.place, 0))  # in each neighbour, (M,)
    distance = np.abs(entries.place - shared_place[entries.neighbour])
    scores = found.similarity[entries.neighbour] * np.exp(-distance / model.distance_decay)
    if shared_decay is not None:
        is_newest = entries.place == shared_place[entries.neighbour]
        newest_place = entries.greatest(np.where(is_newest, entries.own_place, 0))  # in the session so far, (M,)
        scores *= np.exp(-(prefixes.lengths[found.row] - newest_place) / shared_decay)[entries.neighbour]
    cell, shape = found.row[entries.neighbour] * model.n_items + entries.item, (len(prefixes.lengths), model.n_items)
    return model.with_idf(np.bincount(cell, scores, minlength=shape[0] * shape[1]).reshape(shape))
