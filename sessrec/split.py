"""Split a click log at one global time, and prove that nothing leaks across it.

References:
    Hidasi and Czapp, "Widespread Flaws in Offline Evaluation of Recommender Systems", RecSys 2023,
    on time-based splits.
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import pyarrow as pa

from sessrec.errors import SessRecError
from sessrec.events import Events
from sessrec.times import times_from_column

Straddling = Literal["cut", "test"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def split_time(
    events: Events,
    ratio: float | None = None,
    duration: str | float | None = None,
    start: str | float | None = None,
    name: str = "test",
) -> float:
    """The time t at which the later part begins.

    Args:
        events: Events in session order.
        ratio: Share of the sessions, by start, that begin at t or later: t is the start of the session at position
            floor((1 - ratio) n). Used where neither of the others is given.
        duration: Length of the later part before the last event, seconds or a text such as ``1d``, ``12h``, ``30m``.
        start: t itself, in seconds or as ISO text.
        name: Name of the part, ``test`` or ``val``, for messages.

    Returns:
        The time t, Unix seconds.

    Raises:
        SessRecError: If t lies outside the log, or the log has no times to measure a duration in.
    """
    first, last = events.time.min(), events.time.max()
    if start is not None:
        t = _parse_time(start)
        option, value = f"--data.{name}_start", start
    elif duration is not None:
        if not events.has_times:
            raise SessRecError(
                f"--data.{name}_duration needs times; with --data.time_column null use --data.{name}_ratio"
            )
        t = float(last) - parse_duration(duration, f"--data.{name}_duration")
        option, value = f"--data.{name}_duration", duration
    else:
        assert ratio is not None
        if not 0 < ratio < 1:
            raise SessRecError(f"--data.{name}_ratio must be above 0 and below 1, got {ratio}")
        starts = events.time[np.flatnonzero(np.diff(events.session, prepend=-1))]  # sessions are ordered by their start
        return float(starts[min(int((1 - ratio) * len(starts) + 1e-9), len(starts) - 1)])
    if not first < t <= last:
        raise SessRecError(f"{option} {value} splits at {t:g}, outside the log's times {first} to {last}")
    return t


def split_events(events: Events, t: float, straddling: Straddling = "cut") -> tuple[Events, Events, dict[str, int]]:
    """Split at t: no training event is at or after t, ever.

    Args:
        events: Events in session order.
        t: The time at which the later part begins.
        straddling: What becomes of a session that is under way at t: ``cut`` keeps its head in the earlier part and
            drops its tail, ``test`` puts all of it into the later part.

    Returns:
        The earlier and the later events, and the counts ``straddling_sessions`` and ``dropped_events``.
    """
    is_first = np.diff(events.session, prepend=-1) > 0
    starts = events.time[is_first]
    session = np.cumsum(is_first) - 1  # position among the sessions that have events
    is_last = np.concatenate([is_first[1:], [True]])
    straddles = (starts < t) & (events.time[is_last] >= t)
    early = events.time < t
    if straddling == "test":
        in_test = ((starts >= t) | straddles)[session]
        in_train = ~in_test
    else:
        in_test = (starts >= t)[session]
        in_train = early & ~in_test
    counts = {
        "straddling_sessions": int(straddles.sum()),
        "dropped_events": int((~in_train & ~in_test).sum()),
    }
    return events.select(in_train), events.select(in_test), counts


def leakage_report(train: Events, test: Events, t: float) -> dict[str, int]:
    """Count what would make the test part known in advance.

    Args:
        train: Events before t.
        test: Events of the later part, from the same log.
        t: The time of the split.

    Returns:
        ``train_events_at_or_after_t``, ``shared_sessions`` and ``test_events_before_t`` (not 0 only where straddling
        sessions go to test), ``items_only_in_test``, and ``repeated_sessions``: test sessions whose sequence of items
        occurs as a training session too, which is no leak but worth knowing.
    """
    sequences = {*_sequences(train)}
    return {
        "train_events_at_or_after_t": int((train.time >= t).sum()),
        "test_events_before_t": int((test.time < t).sum()),
        "shared_sessions": len(np.intersect1d(train.session, test.session)),
        "items_only_in_test": len(np.setdiff1d(test.item, train.item)),
        "repeated_sessions": sum(sequence in sequences for sequence in _sequences(test)),
    }


def parse_duration(duration: str | float, option: str) -> float:
    """Seconds of a duration.

    Args:
        duration: A number of seconds, or a number followed by s, m, h, d or w.
        option: The option it came from, for the message.

    Raises:
        SessRecError: If the text is no duration.

    Example:
        >>> parse_duration("1.5h", "--data.test_duration")
        5400.0
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*)\s*([smhdw]?)\s*", str(duration))
    if match is None:
        raise SessRecError(f"{option} is {duration!r}; write seconds, or a number and one of s, m, h, d, w such as 1d")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def _parse_time(start: str | float) -> float:
    column = pa.chunked_array([pa.array([str(start)])])
    return float(times_from_column(column, "s", "--data.test_start")[0][0])


def _sequences(events: Events) -> list[bytes]:
    bounds = np.flatnonzero(np.diff(events.session, prepend=-1))
    return [items.tobytes() for items in np.split(events.item, bounds[1:])] if len(events) else []
