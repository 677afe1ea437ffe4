"""Sessions as arrays: what every model trains on and is evaluated on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.click_log.arrays import place_in_run, take, take_texts
from sessrec.click_log.events import Events
from sessrec.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Sessions:
    """Item indices of many sessions, one after the other; the arrays may be mapped from files.

    Example:
        >>> sessions = Sessions(np.array([4, 2, 2, 0, 1], dtype=np.int32), np.array([0, 3, 5]))
        >>> len(sessions), sessions[1].tolist()
        (2, [0, 1])
    """

    items: np.ndarray
    """Item index of every event, int32, shape (events,)."""
    offsets: np.ndarray
    """First event of each session, and the number of events, int64, shape (S + 1,)."""
    times: np.ndarray | None = None
    """Unix seconds of every event (row numbers where the log has no times), int64 or float64, shape (events,)."""
    session_ids: pa.Array | None = None
    """Session id of each session, text as in the click log, length S."""
    event_numbers: np.ndarray | None = None
    """Number of every event in its session before items that the model does not know were left out, from 1, int32,
    shape (events,); None where none was left out."""

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

    @cached_property
    def digest(self) -> str:
        """Fingerprint of the items and where sessions begin; equal sessions have equal ones."""
        digest = hashlib.sha256()
        for array, kind in ((self.offsets, "<i8"), (self.items, "<i4")):
            digest.update(np.ascontiguousarray(array, dtype=kind).data)
        return digest.hexdigest()

    def digest_of_ids(self, item_ids: Sequence[str]) -> str:
        """Fingerprint of the sessions by the ids of the click log, however items are numbered."""
        digest = hashlib.sha256(np.ascontiguousarray(self.offsets, dtype="<i8").data)
        ids = pa.array(item_ids, pa.large_string())
        for start in range(0, len(self.items), 1 << 20):
            _add_text(digest, ids.take(pa.array(self.items[start : start + (1 << 20)])))
        if self.session_ids is not None:
            _add_text(digest, self.session_ids.cast(pa.large_string()))
        return digest.hexdigest()


def digest_of_texts(texts: Sequence[str]) -> str:
    """Fingerprint of some texts in their order."""
    digest = hashlib.sha256()
    _add_text(digest, pa.array(texts, pa.large_string()))
    return digest.hexdigest()


def _add_text(digest: Any, texts: pa.Array) -> None:
    """Add the lengths and bytes of some texts to a digest."""
    digest.update(pc.binary_length(texts).to_numpy(zero_copy_only=False).astype("<i8").data)
    digest.update("".join(texts.to_pylist()).encode("utf-8"))


def map_events(events: Events, vocabulary: Vocabulary, min_length: int = 2) -> tuple[Sessions, dict[str, int | str]]:
    """Turn events into sessions of item indices, without the items that the vocabulary lacks.

    Unknown items go first and the pairs are formed afterwards: A ? B gives the pair A B.

    Args:
        events: Events in session order.
        vocabulary: Items known to the model.
        min_length: Sessions that are left with fewer events are dropped.

    Returns:
        The sessions, and the counts ``unknown_events``, ``unknown_items``, ``short_sessions``, ``short_events`` of what
        was dropped; with some unknown items under ``unknown_such_as`` where there are any.
    """
    index_of_code = vocabulary.index_of(events.item_ids.to_pylist()).astype(np.int32)  # (item ids of the log,)
    is_unknown = (index_of_code < 0) & (events.item_counts > 0)
    known = events.select(take(~is_unknown, events.item)) if is_unknown.any() else events
    is_long = known.lengths >= min_length
    counts: dict[str, int | str] = {
        "unknown_events": len(events) - len(known),
        "unknown_items": int(is_unknown.sum()),
        "short_sessions": events.n_sessions - int(is_long.sum()),
        "short_events": int(known.lengths[~is_long].sum()),
    }
    if is_unknown.any():
        counts["unknown_such_as"] = ", ".join(events.item_ids.filter(pa.array(is_unknown))[:5].to_pylist())
    kept = known if is_long.all() else known.take_sessions(np.flatnonzero(is_long))
    session_ids = take_texts(kept.session_ids, kept.numbers)
    numbers = _event_numbers(events, is_unknown, is_long) if is_unknown.any() else None
    return Sessions(take(index_of_code, kept.item), kept.offsets, kept.time, session_ids, numbers), counts


def _event_numbers(events: Events, is_unknown: np.ndarray, is_long: np.ndarray) -> np.ndarray:
    """Number in its session of each event that `map_events` keeps, from 1, int32."""
    number = place_in_run(events.offsets)
    number += 1
    numbered = replace(events, item=number).select(take(~is_unknown, events.item))
    return numbered.take_sessions(np.flatnonzero(is_long)).item
