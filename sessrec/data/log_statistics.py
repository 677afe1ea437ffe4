"""Describe a click log, and warn of what a careful colleague would ask about."""

from __future__ import annotations

import time as clock
from typing import Any

import numpy as np

from sessrec.click_log.events import Events
from sessrec.data.cleaning import is_repeat
from sessrec.text import counted, time_text

_DAY = 86400
_BLOCK = 1 << 20  # events worked on at a time


def describe(events: Events) -> dict[str, Any]:
    """Counts, session lengths, repeats, time span and how much the most popular items have of all events."""
    lengths, counts = events.lengths, np.sort(events.item_counts)[::-1]
    counts = counts[counts > 0]
    repeats = is_repeat(events)
    copies = repeats.copy()
    copies[1:] &= events.time[1:] == events.time[:-1]
    figures: dict[str, Any] = {
        **events.counts(),
        "mean_length": round(float(lengths.mean()), 2),
        "median_length": float(np.median(lengths)),
        "longest": int(lengths.max()),
        "sessions_of_length_1": int((lengths == 1).sum()),
        "immediate_repeats": int(repeats.sum()),
        "of_these_at_the_same_time": int(copies.sum()),
        "share_of_top_1%_items": _share(counts, 0.01),
        "share_of_top_10%_items": _share(counts, 0.1),
        "items_with_fewer_than_5_events": int((counts < 5).sum()),
    }
    if events.has_times:
        days = events_per_day(events.time)[1]
        figures |= {
            "first_time": time_text(float(events.time[0])),
            "last_time": time_text(float(events.time.max())),
            "days_with_events": int(np.count_nonzero(days)),
        }
    return figures


def _share(counts: np.ndarray, part: float) -> float:
    """Share of the events that the given part of the items has, the most popular ones."""
    return round(float(counts[: max(1, round(part * len(counts)))].sum() / counts.sum()), 4)


def events_per_day(times: np.ndarray) -> tuple[int, np.ndarray]:
    """Events on each day (UTC) from the first to the last, for times in Unix seconds, shape (events,).

    Returns:
        The first day, counted from 1970-01-01, and the number of events of each day; of each multiple of days where
        the log spans more than a million days.
    """
    first, last = int(times.min() // _DAY), int(times.max() // _DAY)
    width = max(1, (last - first) // 1_000_000)
    counts = np.zeros((last - first) // width + 1, dtype=np.int64)
    for start in range(0, len(times), _BLOCK):
        days = (times[start : start + _BLOCK] / _DAY - first) / width  # never negative, so that cutting rounds down
        counts += np.bincount(days.astype(np.int64), minlength=len(counts))
    return first, counts


def log_warnings(events: Events, max_session_length: int | None = None, has_order: bool = False) -> list[str]:
    """What looks wrong in a click log as it was read.

    Args:
        events: Events before any cleaning.
        max_session_length: Length to which sessions will be cut.
        has_order: Whether a column orders the events of equal time.
    """
    found = _warn_of_lengths(events, max_session_length)
    return found + (_warn_of_times(events, has_order) if events.has_times else [])


def _warn_of_lengths(events: Events, max_session_length: int | None) -> list[str]:
    found, lengths = [], events.lengths
    longest = int(lengths.argmax())
    share = lengths[longest] / len(events)
    is_robot = lengths[longest] > 1000 or (share > 0.01 and lengths[longest] > 200)
    if is_robot and (max_session_length is None or max_session_length > 1000):
        found.append(
            f"session {_session_id(events, longest)!r} has {lengths[longest]:,} events ({share:.1%} of all), and "
            f"{int((lengths > 200).sum()):,} sessions have more than 200: robots? --data.max_session_length cuts them"
        )
    if (singles := float((lengths == 1).mean())) >= 0.3:
        found.append(f"{singles:.0%} of the sessions have one event only: nothing can be predicted in them")
    return found


def _warn_of_times(events: Events, has_order: bool) -> list[str]:
    found, times = [], events.time
    if n_negative := int(np.count_nonzero(times < 0)):
        found.append(f"{counted(n_negative, 'time')} before 1970, the first {time_text(float(times[0]))}")
    if n_future := int(np.count_nonzero(times > clock.time() + _DAY)):
        found.append(f"{counted(n_future, 'time')} in the future, the last {time_text(float(times.max()))}")
    first_day, per_day = events_per_day(times)
    days = np.flatnonzero(per_day)
    steps = np.diff(days)
    if steps.max(initial=0) > 7 and len(per_day) < 1_000_000:
        begin = np.datetime64(first_day + int(days[steps.argmax()]), "D")
        found.append(f"the clock jumps: no event for {steps.max() - 1:,} days after {begin}; are all times right?")
    if not has_order and len(per_day) > 1 and _are_at_midnight(times):
        found.append(
            "all times are at midnight: within a day, events are in the order of rows, unless --data.order_column "
            "orders them"
        )
    spans = times[events.offsets[1:] - 1] - events.starts
    if n_long := int(np.count_nonzero(spans > _DAY)):
        longest = int(spans.argmax())
        found.append(
            f"{counted(n_long, 'session')} longer than a day, {_session_id(events, longest)!r} of "
            f"{spans[longest] / _DAY:.1f} days: does its id come back? --data.session_gap cuts at gaps"
        )
    return found


def _are_at_midnight(times: np.ndarray) -> bool:
    return all(not (times[start : start + _BLOCK] % _DAY).any() for start in range(0, len(times), _BLOCK))


def _session_id(events: Events, session: int) -> str:
    return str(events.session_ids[int(events.numbers[session])])


def precision_warning(part: str, n_positions: int) -> list[str]:
    """A warning where a part has too few positions for a metric's second decimal."""
    margin = 1.96 * 0.5 / max(n_positions, 1) ** 0.5
    size = f"the {part} part has {counted(n_positions, 'position')}"
    text = f"{size}: a Recall near 0.5 is known to about {margin:.3f} up or down"
    return [text] if round(margin, 9) > 0.01 else []
