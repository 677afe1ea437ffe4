"""Find the training sessions that resemble a session so far, for many positions at once and without loops over them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from sessrec.data.sessions import Sessions

_NONE = np.iinfo(np.int64).max
_LEAST = 1e-30  # least similarity above 0: weights that fall exponentially would end at 0


class Prefixes(NamedTuple):
    """The distinct items of some sessions so far, each at the last place where it stands."""

    row: np.ndarray
    """Which of the sessions, ascending, int64, shape (E,)."""
    item: np.ndarray
    """Item index, int64, shape (E,)."""
    place: np.ndarray
    """Place of the item in the session so far, from 1, int64, shape (E,)."""
    counts: np.ndarray
    """How often the item stands there, int64, shape (E,)."""
    lengths: np.ndarray
    """Events of each session so far, int64, shape (P,)."""

    @property
    def n_distinct(self) -> np.ndarray:
        """Distinct items of each session so far, int64, shape (P,)."""
        return np.bincount(self.row, minlength=len(self.lengths))

    def newest(self, n_items: int) -> Prefixes:
        """The newest distinct items of each session so far, at most so many."""
        from_end = np.lexsort((-self.place, self.row))  # newest first in each row
        first = np.searchsorted(self.row[from_end], np.arange(len(self.lengths)))
        rank = np.arange(len(from_end)) - first[self.row[from_end]]
        kept = np.sort(from_end[rank < n_items])
        return Prefixes(self.row[kept], self.item[kept], self.place[kept], self.counts[kept], self.lengths)


class PaddedSessions:
    """Sessions, padded at the end, shape (S, L), of which any position's session so far can be asked for.

    Example:
        >>> sessions = PaddedSessions(np.array([[4, 7, 4, 9]]))
        >>> so_far = sessions.up_to(np.array([0, 0]), np.array([1, 2]))
        >>> so_far.row.tolist(), so_far.item.tolist(), so_far.place.tolist(), so_far.counts.tolist()
        ([0, 0, 1, 1], [4, 7, 7, 4], [1, 2, 2, 3], [1, 1, 1, 2])
    """

    def __init__(self, items: np.ndarray) -> None:
        self.items = items
        n_columns = items.shape[1]
        order = np.argsort(items, axis=1, kind="stable")
        ordered = np.take_along_axis(items, order, axis=1)
        is_again = np.zeros(items.shape, dtype=bool)
        is_again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
        following = np.full_like(order, n_columns)
        following[:, :-1] = np.where(is_again[:, 1:], order[:, 1:], n_columns)  # column of the item's next event
        column = np.arange(n_columns)
        times = column - np.maximum.accumulate(np.where(is_again, 0, column), axis=1) + 1  # the item's events so far
        self._following, self._times = np.empty_like(order), np.empty_like(order)
        np.put_along_axis(self._following, order, following, axis=1)
        np.put_along_axis(self._times, order, times, axis=1)

    def up_to(self, row: np.ndarray, column: np.ndarray) -> Prefixes:
        """Sessions up to some positions, given by session and place of the position's own event from 0, shape (P,)."""
        width = int(column.max(initial=-1)) + 1
        is_last = (np.arange(width) <= column[:, None]) & (self._following[row, :width] > column[:, None])
        position, place = is_last.nonzero()
        session = row[position]
        return Prefixes(position, self.items[session, place], place + 1, self._times[session, place], column + 1)


class Positions:
    """Positions of some sessions, indexed as a tensor of that shape is: the queries of models that need whole sessions.

    The index holds session and place of each position, int64, shape (..., 2).
    """

    def __init__(self, sessions: PaddedSessions, index: Tensor) -> None:
        self.sessions = sessions
        self.index = index

    @classmethod
    def of_items(cls, items: Tensor) -> Positions:
        """All positions of padded sessions, shape (S, L)."""
        index = torch.ones(items.shape, device=items.device).nonzero().view(*items.shape, 2)
        return cls(PaddedSessions(items.cpu().numpy()), index)

    def __getitem__(self, chosen: Any) -> Positions:
        """Some of the positions."""
        return Positions(self.sessions, self.index[chosen])

    def __len__(self) -> int:
        """Size of the first dimension."""
        return len(self.index)

    @property
    def device(self) -> torch.device:
        """Device of the items that they were made from."""
        return self.index.device

    def prefixes(self) -> Prefixes:
        """The session up to each of P positions."""
        return self.sessions.up_to(*self.index.cpu().numpy().T)


class SessionIndex(NamedTuple):
    """Training sessions, the most recent first, by their items and their items by sessions; all compact."""

    session_offsets: np.ndarray
    """First entry of each session, and the number of entries, int32, shape (n + 1,)."""
    session_items: np.ndarray
    """Distinct items of each session, in the order in which they stand there for the last time, int32."""
    session_places: np.ndarray
    """Place of that last time in the session, from 1, int32."""
    item_offsets: np.ndarray
    """First entry of each item, and the number of entries, int32, shape (N + 1,)."""
    item_sessions: np.ndarray
    """Sessions that hold each item, the most recent first, int32."""
    ages: np.ndarray
    """Time from each session's last event to the last event of all, in units of the log (seconds), float64, (n,)."""

    @classmethod
    def of_sessions(cls, sessions: Sessions, n_items: int) -> SessionIndex:
        """Index training sessions; their last events order them, later ones first where these are equal."""
        lengths = np.diff(sessions.offsets)
        last = sessions.offsets[1:] - 1
        times = np.arange(len(sessions.items)) if sessions.times is None else sessions.times
        session = np.repeat(np.arange(len(lengths)), lengths)
        place = np.arange(len(session)) - np.repeat(sessions.offsets[:-1], lengths) + 1
        ends = np.asarray(times[last], dtype=np.float64)
        return cls.of_events(ends, session, np.asarray(sessions.items, dtype=np.int64), place, n_items)

    @classmethod
    def of_events(
        cls, ends: np.ndarray, session: np.ndarray, items: np.ndarray, place: np.ndarray, n_items: int
    ) -> SessionIndex:
        """Index sessions that end at some times, float64 (n,), given by session, item and place of each event."""
        order = np.lexsort((-np.arange(len(ends)), -ends))  # the most recent first
        recency = np.empty_like(order)
        recency[order] = np.arange(len(order))
        session = recency[session]
        entry = np.lexsort((place, items, session))
        is_last = np.ones(len(entry), dtype=bool)
        is_last[:-1] = (session[entry][1:] != session[entry][:-1]) | (items[entry][1:] != items[entry][:-1])
        entry = entry[is_last]
        entry = entry[np.lexsort((place[entry], session[entry]))]
        by_item = np.lexsort((session[entry], items[entry]))
        return cls(
            _offsets(session[entry], len(ends)),
            items[entry].astype(np.int32),
            place[entry].astype(np.int32),
            _offsets(items[entry], n_items),
            session[entry][by_item].astype(np.int32),
            ends.max(initial=-np.inf) - ends[order],
        )

    @property
    def lengths(self) -> np.ndarray:
        """Distinct items of each session, int32, shape (n,)."""
        return np.diff(self.session_offsets)

    def sessions_of_items(self, at_most: int) -> csr_array:
        """Matrix of items by sessions, 1 where the session holds the item and is among its most recent ones."""
        degrees, at_most = np.diff(self.item_offsets), min(at_most, len(self.ages))
        rank = np.arange(len(self.item_sessions)) - np.repeat(self.item_offsets[:-1], degrees)
        columns = self.item_sessions[rank < at_most]
        offsets = np.concatenate([[0], np.minimum(degrees, at_most).cumsum()]).astype(np.int32)
        shape = (len(degrees), len(self.ages))
        return csr_array((np.ones(len(columns)), columns, offsets), shape=shape)


def _offsets(group: np.ndarray, n_groups: int) -> np.ndarray:
    return np.concatenate([[0], np.bincount(group, minlength=n_groups).cumsum()]).astype(np.int32)


class Neighbours(NamedTuple):
    """Training sessions near some sessions so far, the nearest first."""

    row: np.ndarray
    """Which of the sessions so far, ascending, int64, shape (M,)."""
    session: np.ndarray
    """Training session, by recency, int64, shape (M,)."""
    similarity: np.ndarray
    """Similarity, float64, shape (M,)."""


def shared_weights(
    prefixes: Prefixes, weights: np.ndarray, sessions_of_items: csr_array, sample_size: int
) -> Neighbours:
    """Sum of the weights of the items that each session so far shares with recent training sessions.

    Args:
        prefixes: Sessions so far.
        weights: Weight of each of their items, not negative, float, shape (E,).
        sessions_of_items: See `SessionIndex.sessions_of_items`, of at least ``sample_size`` sessions an item.
        sample_size: How many of the sessions that share an item are looked at, the most recent ones.
    """
    offsets = np.concatenate([[0], prefixes.n_distinct.cumsum()])
    # weights of 0 count as sharing: the imaginary part keeps their entries
    values = weights + 1j if (weights == 0).any() else weights
    shape = (len(prefixes.lengths), sessions_of_items.shape[0])
    sums = csr_array((values, prefixes.item, offsets), shape=shape) @ sessions_of_items
    by_recency = sums.indices.astype(np.int64) << 32 | _bits(sums.data.real)
    row, keys = _smallest(by_recency, sums.indptr, sample_size, in_order=False)
    return Neighbours(row, keys >> 32, _of_bits(keys & 0xFFFFFFFF))


def nearest(candidates: Neighbours, n_rows: int, k: int) -> Neighbours:
    """The k most similar of the candidates of each of some sessions so far; of equal ones the more recent."""
    offsets = np.searchsorted(candidates.row, np.arange(n_rows + 1))
    by_similarity = (0x7FFFFFFF - _bits(candidates.similarity)) << 32 | candidates.session
    row, keys = _smallest(by_similarity, offsets, k, in_order=True)
    return Neighbours(row, keys & 0xFFFFFFFF, _of_bits(0x7FFFFFFF - (keys >> 32)))


def _bits(values: np.ndarray) -> np.ndarray:
    """Bits of numbers of at least 0 in float32, in which sums are equal whatever their order; only 0 becomes 0."""
    return np.maximum(values, _LEAST * (values > 0)).astype(np.float32).view(np.uint32).astype(np.int64)


def _of_bits(bits: np.ndarray) -> np.ndarray:
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def _smallest(keys: np.ndarray, offsets: np.ndarray, n: int, in_order: bool) -> tuple[np.ndarray, np.ndarray]:
    """The n smallest of the keys of each of some consecutive rows, in order or as they come; their rows first."""
    counts = np.diff(offsets)
    matrix = np.full((len(counts), int(counts.max(initial=0))), _NONE)
    matrix[np.arange(matrix.shape[1]) < counts[:, None]] = keys
    if in_order or matrix.shape[1] > n:
        matrix.sort(axis=1)
    row, column = (matrix[:, :n] != _NONE).nonzero()
    return row, matrix[row, column]


class SharedItems(NamedTuple):
    """The items of each neighbour, beside the place where the session so far has them."""

    neighbour: np.ndarray
    """Which neighbour, ascending, int64, shape (F,)."""
    item: np.ndarray
    """Item index, int64, shape (F,)."""
    own_place: np.ndarray
    """Last place of the item in the session so far, from 1; 0 where it does not have it, int32, shape (F,)."""
    place: np.ndarray
    """Last place of the item in the neighbour, from 1, int32, shape (F,)."""
    starts: np.ndarray
    """First entry of each neighbour, int64, shape (M,)."""

    def greatest(self, values: np.ndarray) -> np.ndarray:
        """The greatest value of each neighbour's items, shape (M,), from one of each item, shape (F,)."""
        return np.maximum.reduceat(values, self.starts) if len(self.starts) else values[:0]


def items_of_neighbours(prefixes: Prefixes, neighbours: Neighbours, index: SessionIndex, n_items: int) -> SharedItems:
    """Look up the items of the neighbours of some sessions so far."""
    counts = index.lengths[neighbours.session].astype(np.int64)
    starts = counts.cumsum() - counts
    neighbour = np.repeat(np.arange(len(counts)), counts)
    entry = np.arange(len(neighbour)) + np.repeat(index.session_offsets[neighbours.session] - starts, counts)
    item = index.session_items[entry].astype(np.int64)
    places = np.zeros((len(prefixes.lengths), n_items), dtype=np.int32)
    places[prefixes.row, prefixes.item] = prefixes.place
    own_place = places.ravel()[np.repeat(neighbours.row * n_items, counts) + item]
    return SharedItems(neighbour, item, own_place, index.session_places[entry], starts)
