"""What the neighbourhood methods share: they find training sessions like the session so far, and add up their items."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from sessrec.data.sessions import Sessions
from sessrec.errors import SessRecError, check_least
from sessrec.models.base import SessionRecommender
from sessrec.models.earlier import Earlier
from sessrec.models.neighbours import Neighbours, Positions, Prefixes, SessionIndex, shared_weights


class NeighbourhoodRecommender(SessionRecommender):
    """Scores items by the training sessions near the session so far; offers `score_prefixes`.

    It learns an index of the training sessions, in buffers that its checkpoint holds. Sessions are recent by their last
    events; where these are equal, by their order. Similarities and scores are rounded to 32 bits, so that sums are
    equal whatever the order in which they were summed up. A similarity above 0 is taken as 1e-30 at least, so that it
    stays one; a score below 1e-45 is 0.
    """

    scores_in_blocks = False
    adds_up = True
    data_dependent_buffers = SessionIndex._fields

    def __init__(self, n_neighbours: int, sample_size: int, idf_weight: float, **protocol: Any) -> None:
        super().__init__(**protocol)
        check_least("--model.n_neighbours", n_neighbours, 1)
        check_least("--model.sample_size", sample_size, 1)
        if not 0 <= idf_weight < np.inf:
            raise SessRecError(f"--model.idf_weight must be a number of at least 0, got {idf_weight}")
        self.idf_weight, self.n_neighbours, self.sample_size = idf_weight, n_neighbours, sample_size
        self._learned: _Learned | None = None

    def build(self) -> None:
        """Create an empty index."""
        self._keep(SessionIndex.of_sessions(Sessions(np.zeros(0, np.int32), np.zeros(1, np.int64)), self.n_items))

    def learn_sessions(self, sessions: Sessions) -> None:
        """Index the training sessions, and those of an earlier fit."""
        index = SessionIndex.of_sessions(sessions, self.n_items)
        if self.earlier is not None and len(sessions):
            assert sessions.times is not None
            end = float(sessions.times.max())  # on which the ages count
            index = SessionIndex.of_events(*_joined(_events_of(self.earlier), _events(index, end)), self.n_items)
        self._keep(index)

    def _keep(self, index: SessionIndex) -> None:
        for name, array in index._asdict().items():
            self.register_buffer(name, torch.from_numpy(array))
        self._learned = None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make room for the checkpoint's index."""
        super().on_load_checkpoint(checkpoint)
        self._learned = None

    def score_prefixes(self, prefixes: Prefixes) -> np.ndarray:
        """Score all items for some sessions so far; higher is better, float64, shape (P, N)."""
        raise TypeError(f"{type(self).__name__} has no score_prefixes method")

    def encode(self, items: Tensor) -> Positions:
        """The positions of the sessions, shape (S, L)."""
        return Positions.of_items(items)

    def score(self, queries: Positions, items: slice) -> Tensor:
        """Score of each item, float32, shape (P, n)."""
        scores = self.score_prefixes(queries.prefixes())
        return torch.from_numpy(scores[:, items]).to(queries.device).float()

    @property
    def learned(self) -> _Learned:
        """The index, as arrays."""
        if self._learned is None:
            index = SessionIndex(*(getattr(self, name).cpu().numpy() for name in SessionIndex._fields))
            self._learned = _Learned(index, self.sample_size)
        return self._learned

    def candidates(self, prefixes: Prefixes, weights: np.ndarray) -> Neighbours:
        """Recent training sessions that share items, with the sum of these items' weights."""
        return shared_weights(prefixes, weights, self.learned.sessions_of_items, self.sample_size)

    def with_idf(self, scores: np.ndarray) -> np.ndarray:
        """Scores, (P, N), those of rare items raised by the idf's weight."""
        return scores * (1 + self.idf_weight * self.learned.idf) if self.idf_weight else scores

    def sum_over_neighbours(self, neighbours: Neighbours, weights: np.ndarray, n_rows: int) -> np.ndarray:
        """Sum of the weights of the neighbours that hold each item, float64, shape (P, N)."""
        offsets = np.searchsorted(neighbours.row, np.arange(n_rows + 1))
        held = self.learned.items_of_sessions
        return (csr_array((weights, neighbours.session, offsets), shape=(n_rows, held.shape[0])) @ held).toarray()


_Events = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # ends of the sessions; session, item and place


def _events(index: SessionIndex, end: float) -> _Events:
    """The sessions of an index whose last event is at some time, the oldest first."""
    n_sessions = len(index.ages)
    session = n_sessions - 1 - np.repeat(np.arange(n_sessions), index.lengths)
    return end - index.ages[::-1], session, index.session_items.astype(np.int64), index.session_places.astype(np.int64)


def _events_of(earlier: Earlier) -> _Events:
    """The sessions of an earlier fit, without items that are left out; one that has no other is left out, too.

    Raises:
        SessRecError: If its times are not known.
    """
    if earlier.model.trained_until is None:
        raise SessRecError("--init_from: the times of its sessions are not known, so that none can be added: fit anew")
    ends, session, items, place = _events(earlier.model.learned.index, earlier.model.trained_until)
    item = earlier.place_of(items)
    kept = item >= 0
    stays, number = np.unique(session[kept], return_inverse=True)
    return ends[stays], number.reshape(-1), item[kept], place[kept]


def _joined(before: _Events, now: _Events) -> _Events:
    """The sessions of both, the former first."""
    ends, session, item, place = (np.concatenate(pair) for pair in zip(before, now, strict=True))
    session[len(before[1]) :] += len(before[0])
    return ends, session, item, place


class _Learned:
    """An index, and what is worked out from it once."""

    def __init__(self, index: SessionIndex, sample_size: int) -> None:
        self.index = index
        n_sessions, degrees = len(index.ages), np.diff(index.item_offsets)
        self.sessions_of_items = index.sessions_of_items(sample_size)
        self.items_of_sessions = csr_array(
            (np.ones(len(index.session_items)), index.session_items, index.session_offsets),
            shape=(n_sessions, len(degrees)),
        )
        self.idf = np.log(np.maximum(1, n_sessions) / np.maximum(1, degrees))
