"""Session-parallel training windows, and padded batches of whole sessions for evaluation.

References:
    Hidasi, Karatzoglou, Baltrunas and Tikk, "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016,
    section 3.1.1 (session-parallel mini-batches).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sessrec.sessions import Sessions

_CHUNK = 1 << 16  # sessions that are numbers of Python at a time


class Window(NamedTuple):
    """Consecutive session-parallel steps; one Lightning batch of a fit.

    Cells of lanes that have run out of sessions are False in ``live``; their items are 0 and mean nothing.
    """

    inputs: Tensor
    """Item of each lane's event, int64, shape (steps, B)."""
    targets: Tensor
    """Next item of the same session, int64, shape (steps, B)."""
    starts: Tensor
    """True where the lane begins a session, with a hidden state of zero, bool, shape (steps, B)."""
    live: Tensor
    """True where the lane holds a session, bool, shape (steps, B)."""
    widths: np.ndarray
    """How many lanes are live at each step, int64, shape (steps,); on the CPU whatever the device."""

    @property
    def n_events(self) -> int:
        """Number of (input, target) pairs in the window."""
        return int(self.widths.sum())

    def head(self, n_steps: int) -> Window:
        """The first steps of the window."""
        parts: Any = (part[:n_steps] for part in self)
        return Window(*parts)


class EvaluationBatch(NamedTuple):
    """Whole sessions, padded at the end with item 0."""

    items: Tensor
    """Items in order, int64, shape (S, L)."""
    lengths: Tensor
    """Number of events of each session, int64, shape (S,)."""
    sessions: Tensor
    """Index of each session in its `Sessions`, int64, shape (S,)."""


def lane_schedule(n_pairs: np.ndarray, n_lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Give each session the lane that takes it and the step at which it begins.

    Sessions are taken in order; each goes to the lane that is free first, the lowest lane where several are.

    Args:
        n_pairs: Number of (input, target) pairs of each session in order, at least 1, int64, shape (S,).
        n_lanes: Number of lanes.

    Returns:
        The lane and the first step of each session, both int64, shape (S,).

    Example:
        >>> lane, first_step = lane_schedule(np.array([3, 1, 2, 1, 2]), n_lanes=3)
        >>> lane.tolist(), first_step.tolist()
        ([0, 1, 2, 1, 1], [0, 0, 0, 1, 2])
    """
    free = list(range(n_lanes))  # already a heap: step at which a lane is free * n_lanes + lane
    taken = np.empty(len(n_pairs), dtype=np.int64)
    for first in range(0, len(n_pairs), _CHUNK):
        ahead = (n_pairs[first : first + _CHUNK] * n_lanes).tolist()
        taken[first : first + _CHUNK] = [heapq.heapreplace(free, free[0] + steps) for steps in ahead]
    first_step, lane = np.divmod(taken, n_lanes)
    return lane, first_step


class LaneGrid:
    """Sessions laid out in lanes: which event stands in which cell (step, lane).

    A lane is never idle before its last session ends, so the cells are found by bisection, and nothing of the size of
    the log is built.

    Args:
        sessions: Sessions of at least two events each.
        n_lanes: Number of lanes.
        order: Order in which the sessions are taken, int64, shape (S,); as they stand where None.
    """

    def __init__(self, sessions: Sessions, n_lanes: int, order: np.ndarray | None = None) -> None:
        self._items, self._offsets, self._n_lanes = sessions.items, sessions.offsets, n_lanes
        n_pairs = np.diff(sessions.offsets) - 1
        if order is not None:
            n_pairs = n_pairs[order]
        lane, first_step = lane_schedule(n_pairs, n_lanes)
        self.n_steps = int((first_step + n_pairs).max(initial=0))
        keys = lane * self.n_steps + first_step  # number of the cell where a session begins, lane by lane
        by_lane = np.argsort(keys)
        self._keys = keys[by_lane]
        # twelve bytes a session is all that stays in memory; the rest may be mapped from files
        self._session = (by_lane if order is None else order[by_lane]).astype(np.int32)

    def window(self, start: int, stop: int) -> Window:
        """Steps ``start`` to ``stop`` (exclusive) of the epoch."""
        steps = np.arange(start, stop)[:, None]
        cells = np.arange(self._n_lanes)[None, :] * self.n_steps + steps  # (steps, B)
        place = np.searchsorted(self._keys, cells, side="right") - 1
        within = cells - self._keys[place]  # pairs since the session began
        session = self._session[place]
        first_event = self._offsets[session]
        live = (within < self._offsets[session + 1] - first_event - 1) & (place >= 0)
        # a lane with no session of its own finds another lane's last one, which ended before: never live
        event = np.where(live, first_event + within, 0)
        inputs, targets = self._items[event], self._items[event + 1]
        return Window(
            inputs=torch.from_numpy(np.where(live, inputs, 0).astype(np.int64)),
            targets=torch.from_numpy(np.where(live, targets, 0).astype(np.int64)),
            starts=torch.from_numpy(live & (within == 0)),
            live=torch.from_numpy(live),
            widths=live.sum(axis=1),
        )


class SessionParallelLoader:
    """The train loader: every (input, target) pair once an epoch, in windows of session-parallel steps.

    The number of windows is the same in every epoch, also when shuffling changes the number of steps.

    Args:
        sessions: Sessions of at least two events each.
        n_lanes: Nominal batch size B. Fewer sessions than lanes leave the other lanes empty.
        steps_per_window: Steps in a window, about.
        shuffle: Whether to take the sessions in a new random order each epoch, in place of time order.
        seed: Seed of the shuffled orders; the order follows from it and the epoch alone.
    """

    def __init__(
        self, sessions: Sessions, n_lanes: int, steps_per_window: int = 64, shuffle: bool = False, seed: int = 0
    ) -> None:
        self.sessions = sessions
        self.n_lanes = n_lanes
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self._grid = LaneGrid(sessions, n_lanes)
        self._n_windows = -(-self._grid.n_steps // steps_per_window)

    @property
    def sampler(self) -> SessionParallelLoader:
        """The loader itself: Lightning tells the epoch to its ``sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the session order of an epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of windows in an epoch."""
        return self._n_windows

    def __iter__(self) -> Iterator[Window]:
        grid = self._grid
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.sessions))
            grid = LaneGrid(self.sessions, self.n_lanes, order)
        bounds = np.arange(len(self) + 1) * grid.n_steps // len(self)
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            yield grid.window(start, stop)


class EvaluationLoader:
    """Padded batches of whole sessions, of similar lengths so that little is padding.

    Args:
        sessions: The sessions to evaluate or predict.
        batch_size: Sessions in a batch.
        by_length: Whether the shortest sessions come first; else the sessions' own order is kept.
    """

    def __init__(self, sessions: Sessions, batch_size: int, by_length: bool = True) -> None:
        self.sessions = sessions
        self.batch_size = batch_size
        lengths = np.diff(sessions.offsets)
        self._order = np.argsort(lengths, kind="stable") if by_length else np.arange(len(sessions))

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.sessions) // self.batch_size)

    def __getitem__(self, number: int) -> EvaluationBatch:
        """Batch of the given number."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        chosen = self._order[number * self.batch_size : (number + 1) * self.batch_size]
        first = self.sessions.offsets[chosen]
        lengths = self.sessions.offsets[chosen + 1] - first
        column = np.arange(lengths.max())[None, :]
        is_event = column < lengths[:, None]  # (S, L)
        items = np.zeros(is_event.shape, dtype=np.int64)
        items[is_event] = self.sessions.items[(first[:, None] + column)[is_event]]
        return EvaluationBatch(torch.from_numpy(items), torch.from_numpy(lengths), torch.from_numpy(chosen))
