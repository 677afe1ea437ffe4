"""Put the rows of a click log into session order, sorting only what is not sorted."""

from __future__ import annotations

import numpy as np


def session_order(
    session: np.ndarray, time: np.ndarray, tie_break: np.ndarray | None = None
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Order rows by (first time of their session, session, time, tie break), equal ones as they stand.

    Args:
        session: Code of each row's session, 0 .. S - 1, every one used, shape (rows,).
        time: Time of each row, shape (rows,).
        tie_break: What orders rows of equal time, shape (rows,); None leaves them as they stand.

    Returns:
        The rows in that order, None where they stand in it already; the first place of each session and the number of
        rows, int64, shape (S + 1,); and the code of each session in that order, shape (S,).

    Example:
        >>> order, offsets, codes = session_order(np.array([0, 1, 0, 1]), np.array([5, 1, 4, 2]))
        >>> order.tolist(), offsets.tolist(), codes.tolist()
        ([1, 3, 2, 0], [0, 2, 4], [1, 0])
    """
    begins = np.flatnonzero(np.concatenate([[True], session[1:] != session[:-1]]))  # first row of each run
    n_sessions = int(session.max()) + 1
    if len(begins) == n_sessions and _ascends_within(time, tie_break, begins):
        return _order_of_runs(session, time, begins)
    by_time = _time_order(time, tie_break)
    if by_time is not None:
        session = session[by_time]
    rank, codes = _rank_by_first_row(session, n_sessions)
    rank = rank[session]  # of each row's session
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rank, minlength=n_sessions))])
    if (rank[1:] >= rank[:-1]).all():
        return by_time, offsets, codes
    by_session = np.argsort(rank, kind="stable")
    return (by_session if by_time is None else by_time[by_session]), offsets, codes


def _ascends_within(time: np.ndarray, tie_break: np.ndarray | None, begins: np.ndarray) -> bool:
    """Whether time, and the tie break among equal times, never falls inside a run."""
    falls = time[1:] < time[:-1]
    if tie_break is not None:
        falls |= (time[1:] == time[:-1]) & (tie_break[1:] < tie_break[:-1])
    falls[begins[1:] - 1] = False
    return not falls.any()


def _order_of_runs(
    session: np.ndarray, time: np.ndarray, begins: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Each session is one sorted run: only the runs need an order."""
    offsets = np.concatenate([begins, [len(session)]])
    starts = time[begins]
    if (starts[1:] >= starts[:-1]).all():
        return None, offsets, session[begins]
    runs = np.argsort(starts, kind="stable")
    order, offsets = gather_runs(offsets, runs)
    return order, offsets, session[begins][runs]


def gather_runs(offsets: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of some runs, one run after the other, and the offsets of the runs among them.

    Args:
        offsets: First row of each run, and the number of rows, shape (R + 1,).
        runs: The runs wanted, in the order wanted.

    Example:
        >>> rows, offsets = gather_runs(np.array([0, 2, 5]), np.array([1, 0]))
        >>> rows.tolist(), offsets.tolist()
        ([2, 3, 4, 0, 1], [0, 3, 5])
    """
    lengths = np.diff(offsets)[runs]
    ends = np.cumsum(lengths)
    narrow = np.int32 if offsets[-1] < 2**31 else np.int64  # half the memory, which is what takes the time
    rows = np.repeat((offsets[runs] - (ends - lengths)).astype(narrow), lengths)
    rows += np.arange(len(rows), dtype=narrow)
    return rows, np.concatenate([[0], ends])


def _time_order(time: np.ndarray, tie_break: np.ndarray | None) -> np.ndarray | None:
    """Rows by time, None where they stand so already."""
    if tie_break is not None:
        return np.lexsort((tie_break, time))
    return None if (time[1:] >= time[:-1]).all() else np.argsort(time, kind="stable")


def _rank_by_first_row(session: np.ndarray, n_sessions: int) -> tuple[np.ndarray, np.ndarray]:
    """Place of each session in the order of first rows, and the sessions in that order."""
    n_rows = len(session)
    narrow = np.int32 if n_rows < 2**31 else np.int64
    first = np.zeros(n_sessions, dtype=narrow)
    first[session[::-1]] = np.arange(n_rows - 1, -1, -1, dtype=narrow)  # the last assignment holds: the earliest row
    is_first = np.zeros(n_rows, dtype=bool)
    is_first[first] = True
    codes = session[is_first]
    rank = np.empty(n_sessions, dtype=np.int32)
    rank[codes] = np.arange(n_sessions)
    return rank, codes
