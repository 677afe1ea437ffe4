"""Split a click log at one global time, and prove that nothing leaks across it.

References:
    Hidasi and Czapp, "Widespread Flaws in Offline Evaluation of Recommender Systems", RecSys 2023,
    on time-based splits.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa

from sessrec.click_log.events import Events
from sessrec.click_log.times import parse_duration, times_from_column
from sessrec.errors import SessRecError
from sessrec.text import time_text

Straddling = Literal["cut", "test"]

_SESSIONS = 1 << 17  # worked on at a time


def split_time(
    events: Events,
    ratio: float | None = None,
    duration: str | float | None = None,
    start: str | float | None = None,
    name: str = "test",
) -> float:
    """The time t, in Unix seconds, at which the later part begins.

    Args:
        events: Events in session order.
        ratio: Share of the sessions, by start, that begin at t or later: t is the start of the session at position
            floor((1 - ratio) n). Used where neither of the others is given.
        duration: Length of the later part before the last event, seconds or a text such as ``1d``, ``12h``, ``30m``.
        start: t itself, in seconds or as ISO text.
        name: Name of the part, ``test`` or ``val``, for messages.

    Raises:
        SessRecError: If t lies outside the log, or the log has no times to measure a duration in.
    """
    first, last = events.time[0], events.time.max()
    if start is not None:
        option, value = f"--data.{name}_start", start
        t = parse_time(start, option)
    elif duration is not None:
        option, value = f"--data.{name}_duration", duration
        if not events.has_times:
            raise SessRecError(f"{option} needs times; with --data.time_column null use --data.{name}_ratio")
        t = float(last) - parse_duration(duration, option)
    else:
        assert ratio is not None
        if not 0 < ratio < 1:
            raise SessRecError(f"--data.{name}_ratio must be above 0 and below 1, got {ratio}")
        starts = events.starts
        return float(starts[min(int((1 - ratio) * len(starts) + 1e-9), len(starts) - 1)])
    if not first < t <= last:
        cut, begin, end = (time_text(float(x)) if events.has_times else f"row {x:.0f}" for x in (t, first, last))
        raise SessRecError(f"{option} {value} splits at {cut}, outside the log's times {begin} to {end}")
    return t


def split_events(
    events: Events, t: float, straddling: Straddling = "cut", min_length: int = 1
) -> tuple[Events, Events, dict[str, int]]:
    """Split at t: no training event is at or after t, ever.

    Args:
        events: Events in session order.
        t: The time at which the later part begins.
        straddling: What becomes of a session that is under way at t: ``cut`` keeps its head in the earlier part and
            drops its tail, ``test`` puts all of it into the later part.
        min_length: Heads with fewer events are dropped.

    Returns:
        The earlier and the later events, and the counts ``straddling_sessions``, ``events_of_tails`` and
        ``events_of_short_heads``, which were dropped.
    """
    first_late = int(np.searchsorted(events.starts, t))  # sessions are in the order of their starts
    later = events.sessions_between(first_late, events.n_sessions)
    earlier = events.sessions_between(0, first_late)
    straddling_sessions = np.flatnonzero(earlier.time[earlier.offsets[1:] - 1] >= t)
    counts = {"straddling_sessions": len(straddling_sessions), "events_of_tails": 0, "events_of_short_heads": 0}
    if not len(straddling_sessions):
        return earlier, later, counts
    if straddling == "test":
        early = np.delete(np.arange(first_late), straddling_sessions)
        late = np.concatenate([straddling_sessions, np.arange(first_late, events.n_sessions)])
        return events.take_sessions(early), events.take_sessions(late), counts
    keep = earlier.time < t
    counts["events_of_tails"] = int(np.count_nonzero(~keep))
    for session in straddling_sessions.tolist():
        head = keep[earlier.offsets[session] : earlier.offsets[session + 1]]
        if (n_events := int(np.count_nonzero(head))) < min_length:
            counts["events_of_short_heads"] += n_events
            head[:] = False
    return earlier.select(keep), later, counts


def leakage_report(train: Events, test: Events, t: float) -> dict[str, int]:
    """Count what would make the test part known in advance, of two parts of one log that was split at t.

    Returns:
        ``train_events_at_or_after_t``, ``shared_sessions`` and ``test_events_before_t`` (not 0 only where straddling
        sessions go to test), ``items_only_in_test``, and ``repeated_sessions``: test sessions whose sequence of items
        occurs as a training session too, which is no leak but worth knowing.
    """
    return {
        "train_events_at_or_after_t": int(np.count_nonzero(train.time >= t)),
        "test_events_before_t": int(np.count_nonzero(test.time < t)),
        "shared_sessions": int(np.count_nonzero(np.isin(test.numbers, train.numbers))),
        "items_only_in_test": int(np.count_nonzero((test.item_counts > 0) & (train.item_counts == 0))),
        "repeated_sessions": _n_repeated(train, test),
    }


def _n_repeated(train: Events, test: Events) -> int:
    """Test sessions whose sequence of items occurs in training, told by a hash of 64 bits."""
    if not len(train) or not len(test):
        return 0
    generator = np.random.default_rng(0)
    longest = int(max(train.lengths.max(), test.lengths.max()))
    of_item = generator.integers(2**63, size=len(train.item_ids), dtype=np.uint64)
    of_position = generator.integers(2**63, size=longest, dtype=np.uint64) * 2 + 1
    wanted, known = (_hashes(events, of_item, of_position) for events in (test, train))
    may_match = np.zeros(1 << 24, dtype=bool)  # most of the known can be told apart by 24 bits
    may_match[wanted >> np.uint64(40)] = True
    known = known[may_match[known >> np.uint64(40)]]
    return int(np.count_nonzero(np.isin(wanted, known)))


def _hashes(events: Events, of_item: np.ndarray, of_position: np.ndarray) -> np.ndarray:
    """One number for each session's sequence of items, modulo 2 ** 64."""
    hashes = np.empty(events.n_sessions, dtype=np.uint64)
    for first in range(0, events.n_sessions, _SESSIONS):
        offsets = events.offsets[first : first + _SESSIONS + 1]
        position = np.arange(offsets[0], offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))
        terms = of_item[events.item[offsets[0] : offsets[-1]]]
        terms *= of_position[position]
        hashes[first : first + _SESSIONS] = np.add.reduceat(terms, offsets[:-1] - offsets[0])
    return hashes


def parse_time(start: str | float, option: str) -> float:
    """A time that an option gives, in seconds or as ISO text.

    Raises:
        SessRecError: If it cannot be read.
    """
    column = pa.chunked_array([pa.array([str(start)])])
    try:
        return float(times_from_column(column, "s", option)[0][0])
    except SessRecError as error:
        text = f"{option} is {start!r}; write Unix seconds, or a time like 2014-04-07T10:51:09Z"
        raise SessRecError(text) from error
