"""What STAN and VSTAN share: similarities by place and age, and scores by the distance to what is shared."""

from __future__ import annotations

from typing import Any

import numpy as np

from sessrec.errors import SessRecError
from sessrec.models.neighbourhood import NeighbourhoodRecommender
from sessrec.models.neighbours import Neighbours, Prefixes, SharedItems, items_of_neighbours, nearest


class SequenceTimeRecommender(NeighbourhoodRecommender):
    """Scores items by neighbours, weighted by the places of shared items, the neighbour's age and the items' distance.

    Args:
        place_decay: Events over which the weight of an item of the session so far falls to 1/e.
        recency_decay: Days over which the weight of a training session falls to 1/e.
        distance_decay: Events over which a neighbour's items lose 1/e, away from the newest one shared.
        others: Options of `NeighbourhoodRecommender`.
    """

    def __init__(self, place_decay: float, recency_decay: float, distance_decay: float, **others: Any) -> None:
        super().__init__(**others)
        self.place_decay = self.positive("place_decay", place_decay)
        self.recency_decay = self.positive("recency_decay", recency_decay)
        self.distance_decay = self.positive("distance_decay", distance_decay)

    @staticmethod
    def positive(name: str, value: float) -> float:
        """The value of an option that must be above 0.

        Raises:
            SessRecError: If it is not.
        """
        if not value > 0:
            raise SessRecError(f"--model.{name} must be above 0, got {value}")
        return value

    def similar_sessions(self, prefixes: Prefixes) -> Neighbours:
        """The nearest training sessions of each session so far."""
        n_rows, index = len(prefixes.lengths), self.learnt.index
        weights = np.exp((prefixes.place - prefixes.lengths[prefixes.row]) / self.place_decay)
        norms = np.sqrt(np.bincount(prefixes.row, weights**2, minlength=n_rows))
        row, session, shared = self.candidates(prefixes, weights)
        newest = np.full(n_rows, np.inf)
        np.minimum.at(newest, row, index.ages[session])
        recency = np.exp(-(index.ages[session] - newest[row]) / (self.recency_decay * 86400))
        similar = shared / (norms[row] * np.sqrt(index.lengths[session])) * recency
        return nearest(Neighbours(row, session, similar), n_rows, self.n_neighbours)

    def neighbour_weights(
        self, prefixes: Prefixes, found: Neighbours, entries: SharedItems, at: np.ndarray
    ) -> np.ndarray:
        """A factor of each neighbour, shape (M,), from the place in it of the newest item it shares, shape (M,)."""
        return np.ones(len(at))

    def score_prefixes(self, prefixes: Prefixes) -> np.ndarray:
        """Weighted sum over the neighbours, float64, shape (P, N)."""
        found = self.similar_sessions(prefixes)
        entries = items_of_neighbours(prefixes, found, self.learnt.index, self.n_items)
        shared_place = entries.greatest(np.where(entries.own_place > 0, entries.place, 0))
        distance = np.abs(entries.place - shared_place[entries.neighbour])
        scores = found.similarity[entries.neighbour] * np.exp(-distance / self.distance_decay)
        scores *= self.neighbour_weights(prefixes, found, entries, shared_place)[entries.neighbour]
        cell, shape = found.row[entries.neighbour] * self.n_items + entries.item, (len(prefixes.lengths), self.n_items)
        return self.with_idf(np.bincount(cell, scores, minlength=shape[0] * shape[1]).reshape(shape))
