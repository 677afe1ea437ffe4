"""Session-parallel training windows, and padded batches of whole sessions for evaluation.

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

from sessrec.sessions import Sessions

_CHUNK = 1 << 14  # sessions that are scheduled at a time
_BATCHES_SORTED = 64  # batches of whole sessions among which sessions are sorted by length


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

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return len(self.widths)

    @property
    def n_events(self) -> int:
        """Number of (input, target) pairs in the window."""
        return int(self.widths.sum())

    def stretches(self) -> Iterator[tuple[slice, slice | Tensor]]:
        """Consecutive steps with the same live lanes, and those lanes; one that has run out gets no more sessions."""
        bounds = [0, *(np.flatnonzero(np.diff(self.widths)) + 1).tolist(), len(self.widths)]
        for start, stop in itertools.pairwise(bounds):
            full = self.widths[start] == self.live.shape[1]
            yield slice(start, stop), slice(None) if full else self.live[start].nonzero()[:, 0]

    def lanes(self, lanes: slice) -> Window:
        """Some lanes of all steps."""
        inputs, targets, starts, live = (tensor[:, lanes].contiguous() for tensor in self[:4])
        return Window(inputs, targets, starts, live, live.sum(dim=1).numpy(), self.number, self.first_step)

    def part(self, start: int, stop: int) -> Window:
        """Steps ``start`` to ``stop`` (exclusive) of the window."""
        inputs, targets, starts, live = (tensor[start:stop] for tensor in self[:4])
        return Window(
            inputs, targets, starts, live, self.widths[start:stop], self.number, first_step=self.first_step + start
        )


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


class TrainLoader:
    """What the train loaders share: a session order that follows from seed and epoch alone, and a place to begin.

    Args:
        sessions: Sessions of at least two events each.
        shuffle: Whether to take the sessions in a new random order each epoch, in place of time order.
        seed: Seed of the shuffled orders.
    """

    def __init__(self, sessions: Sessions, shuffle: bool, seed: int) -> None:
        self.sessions = sessions
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self.steps_taken = 0

    @property
    def sampler(self) -> TrainLoader:
        """The loader itself: Lightning tells the epoch to its ``sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the session order of an epoch, counted from 0."""
        self.epoch = epoch

    def take_up(self, steps_taken: int) -> None:
        """Begin the next epoch inside: with the batch in which the last step was that had been taken.

        That batch comes as a whole, also where all its steps had been taken: what follows a batch is still to do.

        Args:
            steps_taken: Steps of the epoch that had been taken.
        """
        self.steps_taken = steps_taken

    def _generator(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.epoch])


class SessionParallelLoader(TrainLoader):
    """The train loader: every (input, target) pair once an epoch, in windows of session-parallel steps.

    The number of windows is the same in every epoch, also when shuffling changes the number of steps.

    Args:
        sessions: Sessions of at least two events each.
        n_lanes: Nominal batch size B. Fewer sessions than lanes leave the other lanes empty.
        steps_per_window: Steps in a window, about.
        shuffle: Whether to take the sessions in a new random order each epoch, in place of time order.
        seed: Seed of the shuffled orders; the order follows from it and the epoch alone.
        rank: Number of this process, where several take lanes of the same steps.
        n_ranks: Number of processes, each of which takes ``n_lanes`` lanes.
    """

    def __init__(
        self,
        sessions: Sessions,
        n_lanes: int,
        steps_per_window: int = 64,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        n_ranks: int = 1,
    ) -> None:
        super().__init__(sessions, shuffle, seed)
        self.n_lanes = n_lanes * n_ranks
        self.n_ranks = n_ranks
        self.own_lanes = slice(rank * n_lanes, (rank + 1) * n_lanes)
        self._grid = LaneGrid(sessions, self.n_lanes)
        self._n_windows = -(-self._grid.n_steps // steps_per_window)

    def __len__(self) -> int:
        """Number of windows in an epoch."""
        return self._n_windows

    def __iter__(self) -> Iterator[Window]:
        grid = self._grid
        if self.shuffle:
            order = self._generator().permutation(len(self.sessions)).astype(np.int32)
            grid = LaneGrid(self.sessions, self.n_lanes, order)
        bounds = np.arange(len(self) + 1) * grid.n_steps // len(self)
        first = max(0, int(np.searchsorted(bounds, self.steps_taken)) - 1)
        self.steps_taken = 0  # the epoch after this one begins at its beginning
        for window in grid.windows(bounds.tolist(), first):
            yield window if self.n_ranks == 1 else window.lanes(self.own_lanes)


class SessionBatch(NamedTuple):
    """Whole sessions to train on in one step, padded at the end with item 0."""

    items: Tensor
    """Items in order, int64, shape (S, L)."""
    lengths: Tensor
    """Number of events of each session, int64, shape (S,)."""
    number: int
    """Number of the batch in its epoch, from 0."""
    widths: np.ndarray
    """Number of (input, target) pairs, int64, shape (1,): a batch is one step."""

    @property
    def n_steps(self) -> int:
        """One."""
        return 1

    @property
    def first_step(self) -> int:
        """Steps of the epoch before this one."""
        return self.number


class SessionLoader(TrainLoader):
    """Batches of whole sessions to train on, of similar lengths so that little is padding; an epoch has them all.

    Sessions that stand near each other in the order are sorted by length before they are cut into batches; the batches
    of a shuffled epoch come in a random order.

    Args:
        sessions: Sessions of at least two events each.
        batch_size: Sessions in a batch.
        shuffle: Whether to take the sessions in a new random order each epoch, in place of time order.
        seed: Seed of the shuffled orders; the order follows from it and the epoch alone.
    """

    def __init__(self, sessions: Sessions, batch_size: int, shuffle: bool = False, seed: int = 0) -> None:
        super().__init__(sessions, shuffle, seed)
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.sessions) // self.batch_size)

    def __iter__(self) -> Iterator[SessionBatch]:
        generator, n_sessions = self._generator(), len(self.sessions)
        order = generator.permutation(n_sessions) if self.shuffle else np.arange(n_sessions)
        region = np.arange(n_sessions) // (self.batch_size * _BATCHES_SORTED)
        order = order[np.lexsort((np.diff(self.sessions.offsets)[order], region))]
        batches = generator.permutation(len(self)) if self.shuffle else np.arange(len(self))
        first, self.steps_taken = max(0, self.steps_taken - 1), 0
        for number in range(first, len(self)):
            start = batches[number] * self.batch_size
            chosen = order[start : start + self.batch_size]
            items, lengths = pad(self.sessions, chosen)
            n_pairs = np.array([lengths.sum() - len(lengths)])
            yield SessionBatch(torch.from_numpy(items), torch.from_numpy(lengths), number, n_pairs)


def pad(sessions: Sessions, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Items of some sessions, padded at the end with 0, int64, shape (S, L), and their lengths, int64, shape (S,)."""
    first = sessions.offsets[chosen]
    lengths = sessions.offsets[chosen + 1] - first
    column = np.arange(lengths.max() if len(lengths) else 2)[None, :]
    is_event = column < lengths[:, None]  # (S, L)
    items = np.zeros(is_event.shape, dtype=np.int64)
    items[is_event] = sessions.items[(first[:, None] + column)[is_event]]
    return items, lengths


class EvaluationLoader:
    """Padded batches of whole sessions, of similar lengths so that little is padding.

    Args:
        sessions: The sessions to evaluate or predict.
        batch_size: Sessions in a batch.
        by_length: Whether the shortest sessions come first; else the sessions' own order is kept.
        rank: Number of this process, where several share the sessions. One that gets none has one batch of none: a
            trainer would not wait for it otherwise.
        n_ranks: Number of processes.
    """

    def __init__(
        self, sessions: Sessions, batch_size: int, by_length: bool = True, rank: int = 0, n_ranks: int = 1
    ) -> None:
        self.sessions = sessions
        self.batch_size = batch_size
        lengths = np.diff(sessions.offsets)
        order = np.argsort(lengths, kind="stable") if by_length else np.arange(len(sessions))
        self._order = order[rank::n_ranks]

    def __len__(self) -> int:
        """Number of batches."""
        return max(1, -(-len(self._order) // self.batch_size))

    def __getitem__(self, number: int) -> EvaluationBatch:
        """Batch of the given number."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        chosen = self._order[number * self.batch_size : (number + 1) * self.batch_size]
        items, lengths = pad(self.sessions, chosen)
        return EvaluationBatch(torch.from_numpy(items), torch.from_numpy(lengths), torch.from_numpy(chosen))
