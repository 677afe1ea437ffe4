"""Session-parallel steps: which session is in which lane at which step, and windows of such steps.

References:
    Hidasi, Karatzoglou, Baltrunas and Tikk, "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016,
    section 3.1.1 (session-parallel mini-batches).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sessrec.data.sessions import Sessions

_CHUNK = 1 << 14  # sessions that are scheduled at a time


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
    number: int
    """Number of the window in its epoch, from 0."""
    first_step: int
    """Steps of the epoch before this window."""
    n_before: int = 0
    """Steps before these in the whole window, of which `part` has taken these."""
    n_after: int = 0
    """Steps after these in the whole window."""

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return len(self.widths)

    @property
    def n_events(self) -> int:
        """Number of (input, target) pairs in the window."""
        return int(self.widths.sum())

    def runs(self) -> Iterator[tuple[slice, slice | Tensor]]:
        """Runs of steps with the same live lanes, and those lanes; one that has run out gets no more sessions."""
        bounds = [0, *(np.flatnonzero(np.diff(self.widths)) + 1).tolist(), len(self.widths)]
        for start, stop in itertools.pairwise(bounds):
            full = self.widths[start] == self.live.shape[1]
            yield slice(start, stop), slice(None) if full else self.live[start].nonzero()[:, 0]

    def lanes(self, lanes: slice) -> Window:
        """Some lanes of all steps."""
        inputs, targets, starts, live = (tensor[:, lanes].contiguous() for tensor in self[:4])
        return Window(inputs, targets, starts, live, live.sum(dim=1).numpy(), *self[5:])

    def part(self, start: int, stop: int) -> Window:
        """Steps ``start`` to ``stop`` (exclusive) of the window, with the random numbers that they have in it."""
        inputs, targets, starts, live = (tensor[start:stop] for tensor in self[:4])
        place = self.first_step + start, self.n_before + start, self.n_after + self.n_steps - stop
        return Window(inputs, targets, starts, live, self.widths[start:stop], self.number, *place)


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
    free = list(range(n_lanes))
    chunks = [_schedule_next(free, n_pairs[first : first + _CHUNK]) for first in range(0, len(n_pairs), _CHUNK)]
    empty = np.empty(0, dtype=np.int64)
    return np.concatenate([empty, *(lane for lane, _ in chunks)]), np.concatenate(
        [empty, *(step for _, step in chunks)]
    )


def _schedule_next(free: list[int], n_pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lanes and first steps of the sessions that come next.

    Args:
        free: For each lane, (step at which it is free) * (number of lanes) + lane, a heap; it goes on from here.
        n_pairs: Pairs of each session.
    """
    n_lanes = len(free)
    taken = [heapq.heapreplace(free, free[0] + steps) for steps in (n_pairs * n_lanes).tolist()]
    first_step, lane = np.divmod(np.array(taken, dtype=np.int64), n_lanes)
    return lane, first_step


class _Segments(NamedTuple):
    """Sessions in lanes, in the order in which they begin; all int64, shape (sessions,)."""

    first_event: np.ndarray
    n_pairs: np.ndarray
    lane: np.ndarray
    first_step: np.ndarray

    def take(self, which: np.ndarray | slice) -> _Segments:
        return _Segments(*(part[which] for part in self))

    def join(self, later: _Segments) -> _Segments:
        return _Segments(*(np.concatenate(parts) for parts in zip(self, later, strict=True)))


class LaneGrid:
    """Sessions laid out in lanes: which event stands in which cell (step, lane).

    The schedule is worked out as the windows are taken, so that nothing of the size of the log is in memory.

    Args:
        sessions: Sessions of at least two events each.
        n_lanes: Number of lanes.
        order: Order in which the sessions are taken, integers, shape (S,); as they stand where None.
    """

    def __init__(self, sessions: Sessions, n_lanes: int, order: np.ndarray | None = None) -> None:
        self._sessions = sessions
        self._n_lanes = n_lanes
        self._order = order
        self.n_steps = max((int((part.first_step + part.n_pairs).max()) for part in self._segments()), default=0)

    def _segments(self) -> Iterator[_Segments]:
        """All sessions in the order in which they begin, some thousands at a time."""
        offsets, free = self._sessions.offsets, list(range(self._n_lanes))
        for first in range(0, len(self._sessions), _CHUNK):
            if self._order is None:
                bounds = offsets[first : first + _CHUNK + 1]
                first_event, end = np.array(bounds[:-1]), bounds[1:]
            else:
                chosen = self._order[first : first + _CHUNK]
                first_event, end = offsets[chosen], offsets[chosen + 1]
            n_pairs = end - first_event - 1
            yield _Segments(first_event, n_pairs, *_schedule_next(free, n_pairs))

    def windows(self, bounds: Sequence[int], first: int = 0) -> Iterator[Window]:
        """One window after the other.

        Args:
            bounds: Steps at which windows begin, ascending, and the step at which the last one ends.
            first: Number of the window to begin with.
        """
        later = self._segments()
        held = next(later, None)
        for number, (start, stop) in enumerate(itertools.pairwise(bounds[first:]), first):
            while held is not None and held.first_step[-1] < stop and (more := next(later, None)) is not None:
                held = held.take(held.first_step + held.n_pairs > start).join(more)
            if held is None:
                return
            n_begun = int(np.searchsorted(held.first_step, stop))
            begun = held.take(slice(n_begun))
            begun = begun.take(begun.first_step + begun.n_pairs > start)
            yield self._window(begun, number, start, stop)
            held = begun.join(held.take(slice(n_begun, None)))

    def window(self, start: int, stop: int) -> Window:
        """Steps ``start`` to ``stop`` (exclusive) of the epoch."""
        return next(self.windows([start, stop]))

    def _window(self, sessions: _Segments, number: int, start: int, stop: int) -> Window:
        """Put the cells of some sessions, all under way between the two steps, into their places."""
        first = np.maximum(sessions.first_step, start)
        n_cells = np.minimum(sessions.first_step + sessions.n_pairs, stop) - first
        within = np.arange(n_cells.sum()) - np.repeat(np.cumsum(n_cells) - n_cells, n_cells)
        step = within + np.repeat(first - start, n_cells)
        lane = np.repeat(sessions.lane, n_cells)
        event = within + np.repeat(sessions.first_event + first - sessions.first_step, n_cells)
        shape = (stop - start, self._n_lanes)
        inputs, targets = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        starts, live = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        inputs[step, lane] = self._sessions.items[event]
        targets[step, lane] = self._sessions.items[event + 1]
        starts[step, lane] = step + start == np.repeat(sessions.first_step, n_cells)
        live[step, lane] = True
        return Window(
            inputs=torch.from_numpy(inputs),
            targets=torch.from_numpy(targets),
            starts=torch.from_numpy(starts),
            live=torch.from_numpy(live),
            widths=live.sum(axis=1),
            number=number,
            first_step=start,
        )
