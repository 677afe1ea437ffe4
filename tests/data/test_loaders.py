"""Session-parallel windows against a plain simulation, and evaluation batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers import make_sessions

import sessrec.data.session_parallel
from sessrec.data.loaders import EvaluationLoader, SessionParallelLoader
from sessrec.data.session_parallel import LaneGrid, Window
from sessrec.data.sessions import Sessions


def simulate(sequences: list[list[int]], n_lanes: int) -> list[list[tuple[int, int, bool]]]:
    """(input, target, start) of every live lane at every step, as the paper's figure does it."""
    waiting = list(sequences)
    lanes: list[tuple[list[int], int] | None] = [(waiting.pop(0), 0) if waiting else None for _ in range(n_lanes)]
    steps = []
    while any(lanes):
        steps.append([(lane[0][lane[1]], lane[0][lane[1] + 1], lane[1] == 0) for lane in lanes if lane])
        for number, lane in enumerate(lanes):
            if lane is None:
                continue
            sequence, position = lane
            if position + 2 < len(sequence):
                lanes[number] = (sequence, position + 1)
            else:
                lanes[number] = (waiting.pop(0), 0) if waiting else None
    return steps


def cells(windows: list[Window]) -> list[list[tuple[int, int, bool]]]:
    steps = []
    for window in windows:
        for step, live in enumerate(window.live):
            columns = (window.inputs[step][live], window.targets[step][live], window.starts[step][live])
            steps.append(list(zip(*(column.tolist() for column in columns), strict=True)))
            assert window.widths[step] == len(steps[-1])
    return steps


def random_sequences(n_sessions: int, longest: int, seed: int) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 30, size=generator.integers(2, longest + 1)).tolist() for _ in range(n_sessions)]


def test_worked_example() -> None:
    """Sessions abcd | ef | ghi | jk | lmn in three lanes."""
    sequences = [["abcdefghijklmn".index(letter) for letter in word] for word in ("abcd", "ef", "ghi", "jk", "lmn")]
    steps = cells(list(SessionParallelLoader(make_sessions(sequences), n_lanes=3)))
    text = ["".join("abcdefghijklmn"[cell[part]] for cell in step) for step in steps for part in (0, 1)]
    assert text == ["aeg", "bfh", "bjh", "cki", "cl", "dm", "m", "n"]
    resets = [[int(cell[2]) for cell in step] for step in steps]
    assert resets == [[1, 1, 1], [0, 1, 0], [0, 1], [0]]


@pytest.mark.parametrize(
    ("n_sessions", "n_lanes", "longest"), [(50, 4, 9), (3, 8, 5), (1, 1, 2), (1, 5, 7), (40, 40, 3), (200, 7, 2)]
)
@pytest.mark.parametrize("steps_per_window", [1, 7, 64])
def test_equals_simulation(n_sessions: int, n_lanes: int, longest: int, steps_per_window: int) -> None:
    sequences = random_sequences(n_sessions, longest, seed=n_sessions)
    loader = SessionParallelLoader(make_sessions(sequences), n_lanes, steps_per_window)
    windows = list(loader)
    assert len(windows) == len(loader)
    assert cells(windows) == simulate(sequences, n_lanes)
    assert cells(list(loader)) == cells(windows)  # the next epoch is the same


@pytest.mark.parametrize("n_sessions", [1, 3, 8, 40])
@pytest.mark.parametrize("n_lanes", [1, 4, 8])
@pytest.mark.parametrize("steps_per_window", [1, 3, 64])
def test_stretches_are_runs_of_equal_live_lanes(n_sessions: int, n_lanes: int, steps_per_window: int) -> None:
    sequences = random_sequences(n_sessions, 9, seed=n_sessions)
    for window in SessionParallelLoader(make_sessions(sequences), n_lanes, steps_per_window):
        lanes_of = [[lane for lane, is_live in enumerate(row) if is_live] for row in window.live.tolist()]
        runs = [(lanes, len(list(steps))) for lanes, steps in itertools.groupby(lanes_of)]
        ours = []
        stop = 0
        for steps, lanes in window.runs():
            assert (steps.start, steps.step) == (stop, None)
            stop = steps.stop
            # a full stretch is a view: nothing of it is copied
            assert isinstance(lanes, slice) == (len(lanes_of[steps.start]) == n_lanes)
            ours.append((torch.arange(n_lanes)[lanes].tolist(), stop - steps.start))
        assert ours == runs


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_shuffled_epochs_visit_every_pair_once_in_an_order_of_their_own(epoch: int) -> None:
    sequences = random_sequences(37, 8, seed=3)
    loader = SessionParallelLoader(make_sessions(sequences), 5, steps_per_window=3, shuffle=True, seed=11)
    loader.sampler.set_epoch(epoch)
    windows = list(loader)
    assert len(windows) == len(loader)
    order = np.random.default_rng([11, epoch]).permutation(37)
    assert cells(windows) == simulate([sequences[number] for number in order], 5)
    assert sorted((a, b) for step in cells(windows) for a, b, _ in step) == sorted(
        pair for sequence in sequences for pair in zip(sequence, sequence[1:], strict=False)
    )


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_batches_hold_every_session_whole(batch_size: int) -> None:
    sequences = random_sequences(23, 11, seed=5)
    loader = EvaluationLoader(make_sessions(sequences), batch_size)
    seen = {}
    for batch in loader:
        assert len(batch.items) <= batch_size
        for items, length, session in zip(*(part.tolist() for part in batch), strict=True):
            seen[session] = items[:length]
            assert not any(items[length:])
    assert [seen[session] for session in range(23)] == sequences


@pytest.mark.parametrize("chunk", [1, 2, 5, 50])
@pytest.mark.parametrize(("n_lanes", "steps_per_window"), [(1, 3), (4, 1), (7, 2), (60, 100)])
def test_windows_do_not_depend_on_chunks(
    monkeypatch: pytest.MonkeyPatch, chunk: int, n_lanes: int, steps_per_window: int
) -> None:
    sequences = random_sequences(41, 12, seed=8)
    monkeypatch.setattr(sessrec.data.session_parallel, "_CHUNK", chunk)
    windows = list(SessionParallelLoader(make_sessions(sequences), n_lanes, steps_per_window))
    assert cells(windows) == simulate(sequences, n_lanes)
    grid = LaneGrid(make_sessions(sequences), n_lanes)
    middle = grid.window(3, min(9, grid.n_steps))  # any window can be had by itself
    assert cells([middle]) == simulate(sequences, n_lanes)[3:9]


def test_sessions_are_left_as_they_are() -> None:
    sessions = make_sessions([[3, 1, 2], [0, 1]])
    before = (sessions.items.copy(), sessions.offsets.copy())
    list(SessionParallelLoader(sessions, 2))
    list(EvaluationLoader(sessions, 1))
    LaneGrid(sessions, 1)
    assert isinstance(sessions, Sessions)
    np.testing.assert_array_equal(sessions.items, before[0])
    np.testing.assert_array_equal(sessions.offsets, before[1])
