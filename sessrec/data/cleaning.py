"""Drop what a protocol wants out of a click log, and count it."""

from __future__ import annotations

import numpy as np

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
    sessions_before, sessions_cut = events.n_sessions, 0
    if drop_repeats:
        events, dropped["repeats"] = _without_repeats(events)
    if max_session_length is not None:
        sessions_cut = int((events.lengths > max_session_length).sum())
        events, dropped["beyond_max_session_length"] = _shortened(events, max_session_length)
    passes = 0
    while True:
        events, n_short = _without_short_sessions(events, min_session_length)
        dropped["in_short_sessions"] += n_short
        if passes == max_passes:
            break
        events, n_rare = _without_rare_items(events, min_item_support)
        dropped["of_rare_items"] += n_rare
        passes += 1
        if n_rare == 0:
            break
    figures = {f"events_dropped_{rule}": count for rule, count in dropped.items()}
    return events, figures | {"sessions_cut": sessions_cut, "sessions_dropped": sessions_before - events.n_sessions}


def _without_repeats(events: Events) -> tuple[Events, int]:
    repeats = is_repeat(events)
    n_repeats = int(np.count_nonzero(repeats))
    return (events.select(~repeats) if n_repeats else events), n_repeats


def is_repeat(events: Events) -> np.ndarray:
    """Whether each event is of the item before it in its session, bool, shape (events,)."""
    repeats = np.zeros(len(events), dtype=bool)
    repeats[1:] = events.item[1:] == events.item[:-1]
    repeats[events.offsets[:-1]] = False
    return repeats


def _shortened(events: Events, max_length: int) -> tuple[Events, int]:
    excess = np.maximum(events.lengths - max_length, 0)
    if not excess.any():
        return events, 0
    position = np.arange(len(events)) - np.repeat(events.offsets[:-1], events.lengths)
    return events.select(position < max_length), int(excess.sum())


def _without_short_sessions(events: Events, min_length: int) -> tuple[Events, int]:
    is_long = events.lengths >= min_length
    if is_long.all():
        return events, 0
    kept = events.take_sessions(np.flatnonzero(is_long))
    return kept, len(events) - len(kept)


def _without_rare_items(events: Events, min_support: int) -> tuple[Events, int]:
    counts = events.item_counts
    is_rare = (counts < min_support) & (counts > 0)
    if not is_rare.any():
        return events, 0
    kept = events.select(~is_rare[events.item])
    return kept, len(events) - len(kept)
