"""Session order against a plain sort in Python, and codes against the ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import sessrec.click_log.ordering
from sessrec.click_log.ids import encode_ids, plain_numbers
from sessrec.click_log.ordering import count_codes, sort_into_sessions, take_runs


def by_plain_sort(session: list[int], time: list[float], tie: list[int] | None) -> tuple[list[int], list[int]]:
    """Rows in session order, and the sessions in the order of their first events, equal starts as the rows stand."""
    key = {row: (time[row], tie[row] if tie else 0, row) for row in range(len(session))}
    first = {s: min(key[row] for row in range(len(session)) if session[row] == s) for s in set(session)}
    order = sorted(first, key=lambda s: (first[s][0], first[s][2]))
    rows = sorted(range(len(session)), key=lambda row: (order.index(session[row]), *key[row]))
    return rows, order


@pytest.mark.parametrize("layout", ["random", "by session", "by time", "sorted", "one session"])
@pytest.mark.parametrize("has_tie_break", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_any_rows_come_into_session_order(
    monkeypatch: pytest.MonkeyPatch, layout: str, has_tie_break: bool, seed: int
) -> None:
    monkeypatch.setattr(sessrec.click_log.ordering, "_ROWS", 7)  # blocks smaller than the log
    monkeypatch.setattr(sessrec.click_log.ordering, "_RUNS", 3)
    generator = np.random.default_rng([seed, has_tie_break])
    n_rows = 60
    session = generator.integers(1 if layout == "one session" else 15, size=n_rows)
    session = np.unique(session, return_inverse=True)[1]
    time = generator.integers(25, size=n_rows).astype(float if seed % 2 else int)
    tie = generator.integers(5, size=n_rows) if has_tie_break else None
    if layout != "random":
        keys = {"by session": (session,), "by time": (time,), "sorted": (time, session), "one session": (session,)}
        rows = np.lexsort(keys[layout])
        session, time = session[rows], time[rows]
    expected, order = by_plain_sort(session.tolist(), time.tolist(), None if tie is None else tie.tolist())
    (rows, times), offsets, codes = sort_into_sessions(session, time, [np.arange(n_rows), time], tie)
    assert rows.tolist() == expected
    assert times.tolist() == time[expected].tolist()
    assert codes.tolist() == order
    assert offsets.tolist() == np.cumsum([0, *(np.count_nonzero(session == code) for code in order)]).tolist()


def test_runs_are_taken_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessrec.click_log.ordering, "_RUNS", 2)
    column = np.arange(100)
    offsets = np.array([0, 3, 3, 10, 50, 51, 100])
    runs = np.array([5, 0, 1, 3, 4])
    (taken,), new = take_runs([column], offsets, runs)
    assert taken.tolist() == [*range(51, 100), 0, 1, 2, *range(10, 50), 50]
    assert new.tolist() == [0, 49, 52, 52, 92, 93]


def test_counts_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessrec.click_log.ordering, "_ROWS", 4)
    codes = np.array([0, 2, 2, 5, 1, 2, 0, 5, 5], dtype=np.int32)
    assert count_codes(codes, 6).tolist() == [2, 1, 3, 0, 0, 3]
    assert count_codes(codes, 20).tolist() == [2, 1, 3, 0, 0, 3, *[0] * 14]


@pytest.mark.parametrize(
    "pieces",
    [
        [["5", "7", "5"], ["7", "6"]],
        [["5", "7"], ["x", "5"]],
        [["05", "5"], ["5"]],
        [["9223372036854775807", "5"], ["9223372036854775808"]],
        [["0", "00", "-0", "0.0", "1", "-1", "+1", "0x1", "1e0", " 1", "1 ", "\u0661"]],
        [["1", "1000000000000", "2"], ["1"]],
        [["", "a"], ["a", ""]],
        [[1, 5, 1], ["5", "1"]],
        [[-3, 4], [4]],
    ],
)
def test_codes_keep_every_id_apart(pieces: list[list]) -> None:
    texts = [str(value) for piece in pieces for value in piece]
    arrays = [pa.array(piece) for piece in pieces]
    codes, ids = encode_ids(
        [array if "" in piece else plain_numbers(array) for array, piece in zip(arrays, pieces, strict=True)]
    )
    assert [str(ids[int(code)]) for code in codes] == texts
    assert sorted(map(str, ids.to_pylist())) == sorted(set(texts))
    assert sorted(set(codes.tolist())) == list(range(len(ids)))
