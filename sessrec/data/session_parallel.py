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
_SEGMENT = np.dtype([(name, np.int64) for name in ("first_event", "lane", "first_step", "end")])
"""A session in its lane: it takes the steps ``first_step`` to ``end`` (exclusive)."""


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

    def runs(self) -> Iterator[tuple[slice, slice | Tensor]]:
        """Runs of steps with the same live lanes, and those lanes; one that has run out gets no more sessions."""
        bounds = [0, *(np.flatnonzero(np.diff(self.widths)) + 1).tolist(), len(self.widths)]
        for start, stop in itertools.pairwise(bounds):
            full = self.widths[start] == self.live.shape[1]
            yield slice(start, stop), slice(None) if full else self.live[start].nonzero()[:, 0]

    @property
    def n_parts(self) -> int:
        """Number of lanes."""
        return self.inputs.shape[1]

    def share(self, lanes: slice) -> Window:
        """Some lanes of all steps."""
        inputs, targets, starts, live = (tensor[:, lanes].contiguous() for tensor in self[:4])
        return Window(inputs, targets, starts, live, live.sum(dim=1).cpu().numpy(), *self[5:])

    def part(self, start: int, stop: int) -> Window:
        """Steps ``start`` to ``stop`` (exclusive) of the window, with the random numbers that they have in it."""
        inputs, targets, starts, live = (tensor[start:stop] for tensor in self[:4])
        place = self.first_step + start, self.n_before + start, self.n_after + self.n_steps - stop
        return Window(inputs, targets, starts, live, self.widths[start:stop], self.number, *place)


class LaneGrid:
    """Sessions laid out in lanes: which event stands in which cell (step, lane).

    Sessions are taken in order; each goes to the lane that is free first, the lowest lane where several are. The
    schedule is worked out as the windows are taken, so that nothing of the size of the log is in memory.

    Args:
        sessions: Sessions of at least two events each.
        n_lanes: Number of lanes.
        order: Order in which the sessions are taken, integers, shape (S,); as they stand where None.
    """

    def __init__(self, sessions: Sessions, n_lanes: int, order: np.ndarray | None = None) -> None:
        self._sessions = sessions
        self._n_lanes = n_lanes
        self._order = order
        self.n_steps = max((int(segments["end"].max()) for segments in self._segments()), default=0)

    def _segments(self) -> Iterator[np.ndarray]:
        """All sessions as segments in the order in which they begin, some thousands at a time."""
        offsets, n_sessions = self._sessions.offsets, len(self._sessions)
        free = list(range(self._n_lanes))  # a heap: (step at which a lane is free) * (number of lanes) + lane
        for first in range(0, n_sessions, _CHUNK):
            stop = min(first + _CHUNK, n_sessions)
            chosen = np.arange(first, stop) if self._order is None else self._order[first:stop]
            segments = np.empty(len(chosen), dtype=_SEGMENT)
            segments["first_event"] = offsets[chosen]
            n_pairs = offsets[chosen + 1] - offsets[chosen] - 1
            taken = [heapq.heapreplace(free, free[0] + steps) for steps in (n_pairs * self._n_lanes).tolist()]
            segments["first_step"], segments["lane"] = np.divmod(taken, self._n_lanes)
            segments["end"] = segments["first_step"] + n_pairs
            yield segments

    def windows(self, bounds: Sequence[int], first: int = 0) -> Iterator[Window]:
        """One window after the other.

        Args:
            bounds: Steps at which windows begin, ascending, and the step at which the last one ends.
            first: Number of the window to begin with.
        """
        later, held = self._segments(), np.empty(0, dtype=_SEGMENT)
        for number, (start, stop) in enumerate(itertools.pairwise(bounds[first:]), first):
            while not len(held) or held["first_step"][-1] < stop:
                if (more := next(later, None)) is None:
                    break
                held = np.concatenate([held[held["end"] > start], more])
            held = held[held["end"] > start]
            yield self._window(held[: np.searchsorted(held["first_step"], stop)], number, start, stop)

    def window(self, start: int, stop: int) -> Window:
        """Steps ``start`` to ``stop`` (exclusive) of the epoch."""
        return next(self.windows([start, stop]))

    def _window(self, segments: np.ndarray, number: int, start: int, stop: int) -> Window:
        """Put the cells of some segments, all under way between the two steps, into their places."""
        first = np.maximum(segments["first_step"], start)
        n_cells = np.minimum(segments["end"], stop) - first
        within = np.arange(n_cells.sum()) - np.repeat(np.cumsum(n_cells) - n_cells, n_cells)
        step = within + np.repeat(first - start, n_cells)
        lane = np.repeat(segments["lane"], n_cells)
        event = within + np.repeat(segments["first_event"] + first - segments["first_step"], n_cells)
        shape = (stop - start, self._n_lanes)
        inputs, targets = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        starts, live = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        inputs[step, lane] = self._sessions.items[event]
        targets[step, lane] = self._sessions.items[event + 1]
        starts[step, lane] = step + start == np.repeat(segments["first_step"], n_cells)
        live[step, lane] = True
        cells = torch.from_numpy(inputs), torch.from_numpy(targets), torch.from_numpy(starts), torch.from_numpy(live)
        return Window(*cells, live.sum(axis=1), number, start)
