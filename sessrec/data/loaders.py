"""Loaders of training batches, and of padded batches of whole sessions for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sessrec.data.session_parallel import LaneGrid, Window
from sessrec.data.sessions import Sessions

TrainingBatches = Literal["log", "window", "sessions"]


class LogLoader:
    """The loader of models that learn in one pass: one batch, itself, which has all training sessions."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    def __len__(self) -> int:
        """One."""
        return 1

    def __iter__(self) -> Iterator[LogLoader]:
        yield self


class TrainLoader:
    """What the train loaders share: an order that follows from seed and epoch alone, and a batch to begin with."""

    def __init__(self, sessions: Sessions, shuffle: bool, seed: int) -> None:
        self.sessions = sessions
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self._first = 0  # batch that the next epoch begins with
        self._batch = 0  # batch in hand

    @property
    def sampler(self) -> TrainLoader:
        """The loader itself: Lightning tells the epoch to its ``sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the session order of an epoch, counted from 0."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Number of the batch in hand."""
        return {"batch": self._batch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Begin the next epoch with the batch that was in hand; the epochs after it begin at their beginning."""
        self._first = state_dict["batch"]

    def _numbers(self, n_batches: int) -> Iterator[int]:
        """Numbers of the epoch's batches that are left."""
        first, self._first = self._first, 0
        for number in range(first, n_batches):
            self._batch = number
            yield number

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
        seed: Seed of the shuffled orders.
        n_ranks: Number of processes that train together, each on ``n_lanes`` lanes of the same steps.
    """

    def __init__(
        self,
        sessions: Sessions,
        n_lanes: int,
        steps_per_window: int = 64,
        shuffle: bool = False,
        seed: int = 0,
        n_ranks: int = 1,
    ) -> None:
        super().__init__(sessions, shuffle, seed)
        self.n_lanes = n_lanes * n_ranks
        self._grid = LaneGrid(sessions, self.n_lanes)
        self._n_windows = -(-self._grid.n_steps // steps_per_window)

    @property
    def n_steps(self) -> int:
        """Optimiser steps of an epoch in the sessions' own order; a shuffled one may have some more or fewer."""
        return self._grid.n_steps

    def __len__(self) -> int:
        """Number of windows in an epoch."""
        return self._n_windows

    def __iter__(self) -> Iterator[Window]:
        grid = self._grid
        if self.shuffle:
            order = self._generator().permutation(len(self.sessions)).astype(np.int32)
            grid = LaneGrid(self.sessions, self.n_lanes, order)
        bounds = np.arange(len(self) + 1) * grid.n_steps // len(self)
        for _, window in zip(self._numbers(len(self)), grid.windows(bounds.tolist(), self._first), strict=True):
            yield window


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
    def n_parts(self) -> int:
        """Number of sessions."""
        return len(self.lengths)

    def share(self, sessions: slice) -> SessionBatch:
        """Some of the sessions."""
        lengths = self.lengths[sessions]
        widths = np.array([int(lengths.sum()) - len(lengths)])
        return SessionBatch(self.items[sessions], lengths, self.number, widths)


class SessionLoader(TrainLoader):
    """Batches of whole sessions to train on, in time order or a random one; an epoch has them all.

    Sessions are not sorted by length, which would save padding: a step on sessions of one length follows what is true
    of that length, and the weights swing from length to length.

    Args:
        sessions: Sessions of at least two events each.
        batch_size: Sessions in a batch, for each process.
        shuffle: Whether to take the sessions in a new random order each epoch, in place of time order.
        seed: Seed of the shuffled orders.
        n_ranks: Number of processes that train together, each on its part of the same batches.
    """

    def __init__(
        self, sessions: Sessions, batch_size: int, shuffle: bool = False, seed: int = 0, n_ranks: int = 1
    ) -> None:
        super().__init__(sessions, shuffle, seed)
        self.batch_size = batch_size * n_ranks

    @property
    def n_steps(self) -> int:
        """Optimiser steps of an epoch, one a batch."""
        return len(self)

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.sessions) // self.batch_size)

    def __iter__(self) -> Iterator[SessionBatch]:
        n_sessions = len(self.sessions)
        order = self._generator().permutation(n_sessions) if self.shuffle else np.arange(n_sessions)
        for number in self._numbers(len(self)):
            chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
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


class EvaluationBatch(NamedTuple):
    """Whole sessions, padded at the end with item 0."""

    items: Tensor
    """Items in order, int64, shape (S, L)."""
    lengths: Tensor
    """Number of events of each session, int64, shape (S,)."""
    sessions: Tensor
    """Index of each session in its `Sessions`, int64, shape (S,)."""

    def positions(self) -> tuple[Tensor, Tensor]:
        """Row and place of every event that has a next item, session by session, both int64, shape (P,)."""
        places = torch.arange(self.items.shape[1] - 1, device=self.items.device)
        row, place = (places < self.lengths[:, None] - 1).nonzero().T
        return row, place


class EvaluationLoader:
    """Padded batches of whole sessions, of similar lengths so that little is padding.

    Args:
        sessions: The sessions to evaluate or predict.
        batch_size: Sessions in a batch.
        by_length: Whether the shortest sessions come first; else the sessions' own order is kept.
        rank: Number of this process, where several share the sessions. All have as many batches, of which one may hold
            no session: what they do together, they do as often.
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
        self._most = -(-len(order) // n_ranks)  # sessions of a process

    def __len__(self) -> int:
        """Number of batches."""
        return max(1, -(-self._most // self.batch_size))

    def __getitem__(self, number: int) -> EvaluationBatch:
        """Batch of the given number."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        chosen = self._order[number * self.batch_size : (number + 1) * self.batch_size]
        items, lengths = pad(self.sessions, chosen)
        return EvaluationBatch(torch.from_numpy(items), torch.from_numpy(lengths), torch.from_numpy(chosen))
