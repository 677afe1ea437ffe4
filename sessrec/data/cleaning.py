"""Drop what a protocol wants out of a click log, and count it."""

from __future__ import annotations

import numpy as np

from sessrec.click_log.arrays import place_in_run, take
from sessrec.click_log.events import Events


def clean_events(
    events: Events,
    drop_repeats: bool = False,
    min_session_length: int = 2,
    min_item_support: int = 1,
    max_session_length: int | None = None,
    max_passes: int | None = None,
) -> tuple[Events, dict[str, int]]:
    """Drop repeats, cut long sessions, and drop short sessions and rare items in turn.

    Args:
        events: Events in session order.
        drop_repeats: Whether to drop an event whose item is that of the event before it in the session.
        min_session_length: Sessions with fewer events are dropped.
        min_item_support: Items with fewer events are dropped.
        max_session_length: Sessions keep their first events up to this number; None keeps them whole.
        max_passes: How often short sessions and rare items are dropped, in this order, before short sessions are
            dropped a last time; None goes on until nothing changes.

    Returns:
        The events that are left, and the number of events dropped by each rule.
    """
    dropped = {"repeats": 0, "beyond_max_session_length": 0, "in_short_sessions": 0, "of_rare_items": 0}
    sessions_before, sessions_cut, passes = events.n_sessions, 0, 0

    def count(rule: str, kept: Events) -> Events:
        dropped[rule] += len(events) - len(kept)
        return kept

    if drop_repeats and (repeats := is_repeat(events)).any():
        events = count("repeats", events.select(~repeats))
    if max_session_length is not None and (sessions_cut := int((events.lengths > max_session_length).sum())):
        events = count("beyond_max_session_length", events.select(place_in_run(events.offsets) < max_session_length))
    while True:
        is_long = events.lengths >= min_session_length
        if not is_long.all():
            events = count("in_short_sessions", events.take_sessions(np.flatnonzero(is_long)))
        if passes == max_passes:
            break
        is_rare = (events.item_counts < min_item_support) & (events.item_counts > 0)
        if not is_rare.any():
            break
        events = count("of_rare_items", events.select(take(~is_rare, events.item)))
        passes += 1
    figures = {f"events_dropped_{rule}": n_events for rule, n_events in dropped.items()}
    return events, figures | {"sessions_cut": sessions_cut, "sessions_dropped": sessions_before - events.n_sessions}


def is_repeat(events: Events) -> np.ndarray:
    """Whether each event is of the item before it in its session, bool, shape (events,)."""
    repeats = np.zeros(len(events), dtype=bool)
    repeats[1:] = events.item[1:] == events.item[:-1]
    repeats[events.offsets[:-1]] = False
    return repeats
