"""Sessions as arrays: what every model trains on and is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sessrec.events import Events
from sessrec.vocabulary import Vocabulary


@dataclass(frozen=True)
class Sessions:
    """Item indices of many sessions, one after the other.

    Example:
        >>> sessions = Sessions(np.array([4, 2, 2, 0, 1], dtype=np.int32), np.array([0, 3, 5]), ["a", "b"])
        >>> len(sessions), sessions[1].tolist()
        (2, [0, 1])
    """

    items: np.ndarray
    """Item index of every event, int32, shape (events,)."""
    offsets: np.ndarray
    """First event of each session, and the number of events, int64, shape (S + 1,)."""
    session_ids: list[str]
    """Session id of each session, as in the click log."""

    def __len__(self) -> int:
        """Number of sessions."""
        return len(self.offsets) - 1

    def __getitem__(self, session: int) -> np.ndarray:
        """Items of one session, int32."""
        return self.items[self.offsets[session] : self.offsets[session + 1]]

    @property
    def n_positions(self) -> int:
        """Number of events that have a next item: the (input, target) pairs."""
        return len(self.items) - len(self)


def map_events(events: Events, vocabulary: Vocabulary, min_length: int = 2) -> tuple[Sessions, dict[str, int]]:
    """Turn events into sessions of item indices, without the items that the vocabulary lacks.

    Unknown items go first and the pairs are formed afterwards: A ? B gives the pair A B.

    Args:
        events: Events in session order.
        vocabulary: Items known to the model.
        min_length: Sessions that are left with fewer events are dropped.

    Returns:
        The sessions, and the counts ``unknown_events``, ``unknown_items``, ``short_sessions``, ``short_events`` of what
        was dropped.
    """
    index_of_code = vocabulary.index_of(events.item_ids)  # (distinct item ids of the log,), -1 unknown
    items = index_of_code[events.item]
    known = items >= 0
    session, items = events.session[known], items[known]
    lengths = np.bincount(session, minlength=events.n_sessions)
    keep = lengths >= min_length
    items = items[keep[session]]
    counts = {
        "unknown_events": int((~known).sum()),
        "unknown_items": len(np.unique(events.item[~known])),
        "short_sessions": int((~keep[np.unique(events.session)]).sum()),
        "short_events": int(lengths[~keep].sum()),
    }
    offsets = np.concatenate([[0], np.cumsum(lengths[keep])]).astype(np.int64)
    session_ids = [events.session_ids[number] for number in np.flatnonzero(keep).tolist()]
    return Sessions(items.astype(np.int32), offsets, session_ids), counts
