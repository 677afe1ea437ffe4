"""Put the rows of a click log into session order, sorting only what is not sorted.

Large arrays are worked on in blocks: fresh memory costs more than the work itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sessrec.click_log.arrays import empty

_RUNS, _ROWS = 1 << 17, 1 << 20  # in a block


def sort_into_sessions(
    session: np.ndarray, time: np.ndarray, columns: Sequence[np.ndarray], tie_break: np.ndarray | None = None
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Order rows by (first time of their session, session, time, tie break), equal ones as they stand.

    Args:
        session: Code of each row's session, 0 .. S - 1, every one used, shape (rows,).
        time: Time of each row, shape (rows,).
        columns: What is put in order, each of shape (rows,).
        tie_break: What orders rows of equal time, shape (rows,); None leaves them as they stand.

    Returns:
        The columns in that order; the first place of each session and the number of rows, int64, shape (S + 1,); and
        the code of each session in that order, int32, shape (S,).

    Example:
        >>> time = np.array([5, 1, 4, 2])
        >>> (ordered,), offsets, codes = sort_into_sessions(np.array([0, 1, 0, 1]), time, [time])
        >>> ordered.tolist(), offsets.tolist(), codes.tolist()
        ([1, 2, 4, 5], [0, 2, 4], [1, 0])
    """
    begins = np.flatnonzero(session[1:] != session[:-1]) + 1  # first row of each run but the first
    n_sessions = int(session.max()) + 1
    if len(begins) + 1 == n_sessions and _ascends_within(time, tie_break, begins):
        offsets = np.concatenate([[0], begins, [len(session)]])
        starts, codes = time[offsets[:-1]], session[offsets[:-1]].astype(np.int32)
        if (starts[1:] >= starts[:-1]).all():
            return list(columns), offsets, codes
        runs = np.argsort(starts, kind="stable")
        ordered, offsets = take_runs(columns, offsets, runs)
        return ordered, offsets, codes[runs]
    return _sort_rows(session, time, columns, tie_break, n_sessions)


def _ascends_within(time: np.ndarray, tie_break: np.ndarray | None, begins: np.ndarray) -> bool:
    """Whether time, and the tie break among equal times, never falls inside a run."""
    falls = time[1:] < time[:-1]
    if tie_break is not None:
        falls |= (time[1:] == time[:-1]) & (tie_break[1:] < tie_break[:-1])
    falls[begins - 1] = False
    return not falls.any()


def _sort_rows(
    session: np.ndarray, time: np.ndarray, columns: Sequence[np.ndarray], tie_break: np.ndarray | None, n_sessions: int
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    by_time = None
    if tie_break is not None:
        by_time = np.lexsort((tie_break, time))
    elif not (time[1:] >= time[:-1]).all():
        by_time = np.argsort(time, kind="stable")
    if by_time is not None:
        session = session[by_time]
    first = np.zeros(n_sessions, dtype=np.int64)  # row of each session: the last to be assigned, and so the earliest
    first[session[::-1]] = np.arange(len(session) - 1, -1, -1)
    codes = session[np.sort(first)].astype(np.int32)  # the sessions in the order of their first rows
    if tie_break is not None and by_time is not None:  # it orders the events of a session, not the sessions
        first_rows = by_time[first[codes]]
        codes = codes[np.lexsort((first_rows, time[first_rows]))]
    rank = np.empty(n_sessions, dtype=np.int32)
    rank[codes] = np.arange(n_sessions, dtype=np.int32)
    rank = rank[session]  # of each row's session
    offsets = np.concatenate([[0], np.cumsum(count_codes(rank, n_sessions))])
    order = by_time
    if not (rank[1:] >= rank[:-1]).all():
        order = np.argsort(rank, kind="stable")
        order = order if by_time is None else by_time[order]
    return [column if order is None else column[order] for column in columns], offsets, codes


def take_runs(
    columns: Sequence[np.ndarray], offsets: np.ndarray, runs: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Take some runs of rows out of columns, one run after the other.

    Args:
        columns: Arrays of one length.
        offsets: First row of each run, and the number of rows, shape (R + 1,).
        runs: The runs wanted, in the order wanted.

    Returns:
        The columns of the runs taken, and the offsets of the runs among them.
    """
    lengths = offsets[runs + 1] - offsets[runs]
    ends = np.cumsum(lengths)
    new_offsets = np.concatenate([[0], ends])
    taken = [empty(int(new_offsets[-1]), column.dtype) for column in columns]
    shift = offsets[runs] - new_offsets[:-1]
    for first in range(0, len(runs), _RUNS):
        start, stop = new_offsets[first], new_offsets[min(first + _RUNS, len(runs))]
        rows = np.arange(start, stop)
        rows += np.repeat(shift[first : first + _RUNS], lengths[first : first + _RUNS])
        for column, place in zip(columns, taken, strict=True):
            np.take(column, rows, out=place[start:stop], mode="clip")
    return taken, new_offsets


def count_codes(codes: np.ndarray, n_codes: int) -> np.ndarray:
    """How often each of the codes 0 .. n_codes - 1 occurs, int64, shape (n_codes,)."""
    if n_codes > len(codes):
        return np.bincount(codes, minlength=n_codes)
    counts = np.zeros(n_codes, dtype=np.int64)
    block = max(_ROWS, n_codes)
    for start in range(0, len(codes), block):
        counts += np.bincount(codes[start : start + block], minlength=n_codes)
    return counts
