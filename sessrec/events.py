"""Read a click log: one or several files of TSV, CSV or Parquet, plain, gzipped or zipped.

Ids stay text, byte for byte. Times become Unix seconds, UTC. Rows that cannot be used are
counted, never lost in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from sessrec.errors import SessRecError
from sessrec.files import read_table
from sessrec.times import TimeUnit, times_from_column


@dataclass(frozen=True)
class Events:
    """A click log in session order: sessions by their first event, events by time, equal times in file order."""

    session: np.ndarray
    """Position in ``session_ids`` of each event's session, non-decreasing, int64, shape (events,)."""
    item: np.ndarray
    """Position in ``item_ids`` of each event's item, int32, shape (events,)."""
    time: np.ndarray
    """Unix seconds, or the row's number where the log has no times, int64 or float64, shape (events,)."""
    session_ids: list[str]
    """Session id of each session that the events may belong to."""
    item_ids: list[str]
    """Distinct item ids of the whole log; selections of events keep the list."""
    has_times: bool
    """False where ``time`` is the row's number."""
    notes: list[str] = field(default_factory=list)
    """What the reader noticed, for the report."""

    def __len__(self) -> int:
        """Number of events."""
        return len(self.session)

    @property
    def n_sessions(self) -> int:
        """Number of entries in ``session_ids``; sessions whose events were all dropped count too."""
        return len(self.session_ids)

    def select(self, keep: np.ndarray) -> Events:
        """The events where ``keep`` (bool, shape (events,)) is True, in the same order."""
        return replace(self, session=self.session[keep], item=self.item[keep], time=self.time[keep])

    def counts(self) -> dict[str, int]:
        """Number of events, sessions and distinct items."""
        return {
            "events": len(self),
            "sessions": int(np.count_nonzero(np.diff(self.session, prepend=-1))),
            "items": len(np.unique(self.item)),
        }


def read_events(
    paths: str | Path | Sequence[str | Path],
    session_column: str = "SessionId",
    item_column: str = "ItemId",
    time_column: str | None = "Time",
    separator: str | None = None,
    time_unit: TimeUnit = "auto",
) -> Events:
    """Read a click log, whatever the order of its rows.

    Args:
        paths: File or files; rows with the same session id make one session, also across files.
        session_column: Column of the session id.
        item_column: Column of the item id.
        time_column: Column of the time; None where the log has none, so that the order of rows is the order of events.
        separator: Character between fields; None finds it from the header (tab, comma, semicolon or bar).
        time_unit: Unit of numeric times; ``auto`` tells it from their size.

    Returns:
        The events in session order.

    Raises:
        SessRecError: If a file is missing, damaged or empty, lacks a column, or holds a time that cannot be read.
    """
    files = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    if not files:
        raise SessRecError("--data.path names no file")
    columns = {"session": session_column, "item": item_column}
    if time_column is not None:
        columns["time"] = time_column
    tables = [read_table(file, columns, separator) for file in files]
    table = pa.concat_tables([table.select(["session", "item"]) for table, _ in tables]).unify_dictionaries()
    notes = [note for _, notes in tables for note in notes]
    if table.num_rows == 0:
        raise SessRecError(f"no events in {_names(files)}: the files hold a header at most, or no complete row")
    if time_column is None:
        events = _events(table, np.arange(table.num_rows), [*notes, "no time column: the order of rows is the time"])
        return replace(events, has_times=False)
    times = []
    for file, (part, _) in zip(files, tables, strict=True):
        if part.num_rows:
            time, note = times_from_column(part["time"], time_unit, f"column {time_column!r} of {file}")
            times.append(time)
            notes.append(note)
    return _events(table, np.concatenate(times), notes)


def events_from_frame(frame: pd.DataFrame) -> Events:
    """Take events from a table in memory.

    Args:
        frame: Columns SessionId, ItemId and Time (Unix seconds), one row an event; it is left as it is.

    Returns:
        The events in session order.
    """
    text = {name: pa.chunked_array([frame[name].astype(str).to_numpy()]) for name in ("SessionId", "ItemId")}
    table = pa.table({"session": text["SessionId"], "item": text["ItemId"]})
    table = table.set_column(0, "session", table["session"].dictionary_encode())
    table = table.set_column(1, "item", table["item"].dictionary_encode())
    return _events(table, frame["Time"].to_numpy(), [])


def clean_events(
    events: Events,
    drop_repeats: bool = False,
    min_session_length: int = 2,
    min_item_support: int = 1,
    max_session_length: int | None = None,
) -> tuple[Events, dict[str, int]]:
    """Drop what a protocol wants out of the log, and count it.

    Repeats go first and long sessions are cut next; then short sessions and rare items go in turn until
    nothing changes.

    Args:
        events: Events in session order.
        drop_repeats: Whether to drop an event whose item is that of the event before it in the session.
        min_session_length: Sessions with fewer events are dropped.
        min_item_support: Items with fewer events are dropped.
        max_session_length: Sessions keep their first events up to this number; None keeps them whole.

    Returns:
        The events that are left, and the number of events dropped by each rule.
    """
    dropped = {"repeats": 0, "beyond_max_session_length": 0, "in_short_sessions": 0, "of_rare_items": 0}

    def keep(rule: str, mask: np.ndarray) -> None:
        nonlocal events
        dropped[rule] += int((~mask).sum())
        if not mask.all():
            events = events.select(mask)

    if drop_repeats and len(events):
        same = (np.diff(events.session) == 0) & (np.diff(events.item) == 0)
        keep("repeats", np.concatenate([[True], ~same]))
    if max_session_length is not None:
        starts = np.flatnonzero(np.diff(events.session, prepend=-1))
        lengths = np.diff(starts, append=len(events))
        position = np.arange(len(events)) - np.repeat(starts, lengths)
        keep("beyond_max_session_length", position < max_session_length)
    while True:
        before = len(events)
        keep("in_short_sessions", np.bincount(events.session)[events.session] >= min_session_length)
        keep("of_rare_items", np.bincount(events.item)[events.item] >= min_item_support)
        if len(events) == before:
            return events, dropped


def _events(table: pa.Table, time: np.ndarray, notes: list[str]) -> Events:
    session, session_ids = _codes(table["session"])
    item, item_ids = _codes(table["item"])
    return _in_session_order(Events(session, item.astype(np.int32), time, session_ids, item_ids, True, notes))


def _in_session_order(events: Events) -> Events:
    """Sort by (first time of the session, session, time), stable, and renumber the sessions in that order."""
    by_time = np.argsort(events.time, kind="stable")
    session, first = np.unique(events.session[by_time], return_index=True)  # place of each session's first event
    rank = np.empty(len(session), dtype=np.int64)
    rank[session[np.argsort(first)]] = np.arange(len(session))
    order = by_time[np.argsort(rank[events.session[by_time]], kind="stable")]
    session_ids = [events.session_ids[code] for code in np.argsort(rank).tolist()]
    return replace(
        events,
        session=rank[events.session[order]],
        item=events.item[order],
        time=events.time[order],
        session_ids=session_ids,
    )


def _names(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more files"


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Codes of a dictionary column with one dictionary, int64, and the texts that occur, in order of the codes."""
    array = column.combine_chunks()
    codes, values = array.indices.to_numpy(zero_copy_only=False), array.dictionary
    used, codes = np.unique(codes, return_inverse=True)  # the dictionary may hold the texts of dropped rows
    return codes.astype(np.int64), values.take(pa.array(used)).to_pylist()
