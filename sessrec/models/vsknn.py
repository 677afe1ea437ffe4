"""VSKNN: SKNN in which the newest items of the session weigh most.

References:
    Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms", User Modeling and User-Adapted
    Interaction 28, 2018.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from sessrec.errors import check_choice
from sessrec.models.neighbourhood import NeighbourhoodRecommender
from sessrec.models.neighbours import Neighbours, Prefixes, items_of_neighbours, nearest

Weighting = Literal["div", "linear", "quadratic", "log", "same"]


class VSKNN(NeighbourhoodRecommender):
    """Ranks items by neighbours whose similarity and scores fall with the age of what they share.

    The similarity of a training session is the sum of the weights of the items that it shares, over the number of
    distinct items so far. A neighbour gives its items its similarity times a decay by the step of the newest item that
    it shares, counted from the end of the session so far (1 for the last item); with idf, rare items score more.

    Args:
        n_neighbours: Training sessions that give scores (session-rec: 100).
        sample_size: Training sessions with an item in common that are looked at, the most recent ones (session-rec:
            1000).
        weighting: Weight of an item whose last place is p of L: div p/L, linear 1 - 0.1 (L - p) and at least 0,
            quadratic (p/L)^2, log 1 / log10(L - p + 1.7), same 1 (session-rec: div).
        decay: Decay at a step s: div 1/s, linear 1 - 0.1 s and at least 0, quadratic 1/s^2, log 1 / log10(s + 1.7),
            same 1 (session-rec: div).
        idf_weight: Weight w of the idf: an item's score is multiplied by 1 + w log(sessions / sessions with the item)
            (session-rec: none).
        protocol: Options of `SessionRecommender`.
    """

    def __init__(
        self,
        n_neighbours: int = 100,
        sample_size: int = 1000,
        weighting: Weighting = "quadratic",
        decay: Weighting = "quadratic",
        idf_weight: float = 0.0,
        **protocol: Any,
    ) -> None:
        super().__init__(n_neighbours, sample_size, idf_weight, **protocol)
        self.save_hyperparameters()
        check_choice("weighting", weighting, Weighting)
        check_choice("decay", decay, Weighting)
        self.weighting, self.decay = weighting, decay

    def score_prefixes(self, prefixes: Prefixes) -> np.ndarray:
        """Weighted sum over the neighbours, float64, shape (P, N)."""
        n_rows, learned = len(prefixes.lengths), self.learned
        row, session, shared = self.candidates(prefixes, self._weights(prefixes))
        found = nearest(Neighbours(row, session, shared / prefixes.n_distinct[row]), n_rows, self.n_neighbours)
        entries = items_of_neighbours(prefixes, found, learned.index, self.n_items)
        steps = prefixes.lengths[found.row] - entries.greatest(entries.own_place) + 1
        scores = self.sum_over_neighbours(found, found.similarity * self._decays(steps), n_rows)
        return self.with_idf(scores)

    def _weights(self, prefixes: Prefixes) -> np.ndarray:
        length = prefixes.lengths[prefixes.row]
        if self.weighting in ("div", "quadratic"):
            return (prefixes.place / length) ** (1 if self.weighting == "div" else 2)
        return _falling(self.weighting, length - prefixes.place)

    def _decays(self, steps: np.ndarray) -> np.ndarray:
        if self.decay in ("div", "quadratic"):
            return 1 / steps ** (1.0 if self.decay == "div" else 2.0)
        return _falling(self.decay, steps)


def _falling(kind: str, distance: np.ndarray) -> np.ndarray:
    """What falls with a distance alone, never below 0: far items would count against what they share."""
    if kind == "linear":
        return np.maximum(0.0, 1 - 0.1 * distance)
    return 1 / np.log10(distance + 1.7) if kind == "log" else np.ones(len(distance))
