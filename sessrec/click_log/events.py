"""`Events`: a click log in session order, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa

from sessrec.click_log.arrays import compress, count_in_runs, differences, take
from sessrec.click_log.ids import encode_ids, plain_numbers
from sessrec.click_log.ordering import count_codes, sort_into_sessions, take_runs


@dataclass(frozen=True)
class Events:
    """A click log in session order: sessions by their first event, events by time, equal times in file order."""

    item: np.ndarray
    """Position in ``item_ids`` of each event's item, int32, shape (events,)."""
    time: np.ndarray
    """Unix seconds, or the row's number where the log has no times, int64 or float64, shape (events,)."""
    offsets: np.ndarray
    """First event of each session, and the number of events, int64, shape (sessions + 1,)."""
    numbers: np.ndarray
    """Position in ``session_ids`` of each session, int32, shape (sessions,)."""
    session_ids: pa.Array
    """Session ids of the whole log, text, or int64 where all are plain numbers; selections of events keep them all."""
    item_ids: pa.Array
    """Distinct item ids of the whole log, text; selections of events keep them all."""
    has_times: bool = True
    """False where ``time`` is the row's number."""
    figures: dict[str, int] = field(default_factory=dict)
    """What was read and dropped on reading, for the report."""
    notes: list[str] = field(default_factory=list)
    """How the log was read, for the report."""
    warnings: list[str] = field(default_factory=list)
    """What looked wrong on reading."""

    def __len__(self) -> int:
        """Number of events."""
        return len(self.item)

    @property
    def n_sessions(self) -> int:
        """Number of sessions, each of one event at least."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Number of events of each session, int64, shape (sessions,)."""
        return differences(self.offsets)

    @property
    def session(self) -> np.ndarray:
        """Number of each event's session, int64, shape (events,)."""
        return np.repeat(np.arange(self.n_sessions), self.lengths)

    @cached_property
    def starts(self) -> np.ndarray:
        """Time of each session's first event, ascending, shape (sessions,)."""
        return take(self.time, self.offsets[:-1])

    def select(self, keep: np.ndarray) -> Events:
        """The events where ``keep`` (bool, shape (events,)) is True; sessions left without any are gone."""
        if not len(self):
            return self
        lengths = count_in_runs(keep, self.offsets)
        stays = lengths > 0
        offsets, numbers = np.concatenate([[0], np.cumsum(lengths[stays])]), self.numbers[stays]
        item, time = compress(self.item, keep), compress(self.time, keep)
        selected = replace(self, item=item, time=time, offsets=offsets, numbers=numbers)
        return selected.in_order_of_start()

    def take_sessions(self, sessions: np.ndarray) -> Events:
        """The sessions of the given numbers (int64), in the order given."""
        (item, time), offsets = take_runs([self.item, self.time], self.offsets, sessions)
        return replace(self, item=item, time=time, offsets=offsets, numbers=self.numbers[sessions])

    def sessions_between(self, first: int, stop: int) -> Events:
        """Sessions ``first`` to ``stop`` (exclusive), without a copy."""
        begin, end = self.offsets[first], self.offsets[stop]
        offsets, numbers = self.offsets[first : stop + 1] - begin, self.numbers[first:stop]
        return replace(self, item=self.item[begin:end], time=self.time[begin:end], offsets=offsets, numbers=numbers)

    def in_order_of_start(self) -> Events:
        """The same sessions ordered by their first events: one that lost its first may begin later than the next."""
        starts = self.starts
        if (starts[1:] >= starts[:-1]).all():
            return self
        return self.take_sessions(np.argsort(starts, kind="stable"))

    def counts(self) -> dict[str, int]:
        """Number of events, sessions and distinct items."""
        return {"events": len(self), "sessions": self.n_sessions, "items": int(np.count_nonzero(self.item_counts))}

    @cached_property
    def item_counts(self) -> np.ndarray:
        """Number of events of each of ``item_ids``, int64."""
        return count_codes(self.item, len(self.item_ids))


def events_from_frame(frame: pd.DataFrame) -> Events:
    """Take events from a table in memory.

    Args:
        frame: Columns SessionId, ItemId and Time (Unix seconds), one row an event; it is left as it is.
    """
    (session, session_ids), (item, item_ids) = (
        encode_ids([plain_numbers(pa.array(frame[name].astype(str), pa.string()))]) for name in ("SessionId", "ItemId")
    )
    time = frame["Time"].to_numpy()
    (item, time), offsets, codes = sort_into_sessions(session, time, [item, time])
    return Events(item, time, offsets, codes, session_ids, item_ids.cast(pa.string()), figures={"rows": len(frame)})
