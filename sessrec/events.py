"""Read a click log: one or several files of TSV, CSV or Parquet, plain or compressed.

Ids stay text, byte for byte. Times become Unix seconds, UTC. Rows that cannot be used are
counted, never lost in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.errors import SessRecError
from sessrec.files import log_files
from sessrec.ids import encode_ids, plain_numbers
from sessrec.ordering import count_codes, sort_into_sessions, take_runs
from sessrec.tables import LogFormat, LogTable, read_log_table

GapEvents = Literal["all", "kept"]
_ROUNDED = r"^[+-]?\d+(\.\d+)?[eE]\+\d+$"


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
    figures: dict[str, int | str] = field(default_factory=dict)
    """What was read and dropped on reading, for the report."""
    notes: list[str] = field(default_factory=list)
    """How the log was read, for the report."""
    warnings: list[str] = field(default_factory=list)
    """What looked wrong on reading."""

    def __len__(self) -> int:
        """Number of events."""
        return len(self.item)

    def __getitem__(self, session: int) -> np.ndarray:
        """Times of one session's events, ascending."""
        return self.time[self.offsets[session] : self.offsets[session + 1]]

    @property
    def n_sessions(self) -> int:
        """Number of sessions, each of one event at least."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Number of events of each session, int64, shape (sessions,)."""
        return np.diff(self.offsets)

    @property
    def session(self) -> np.ndarray:
        """Number of each event's session, int64, shape (events,)."""
        return np.repeat(np.arange(self.n_sessions), self.lengths)

    @cached_property
    def starts(self) -> np.ndarray:
        """Time of each session's first event, ascending, shape (sessions,)."""
        return self.time[self.offsets[:-1]]

    def select(self, keep: np.ndarray) -> Events:
        """The events where ``keep`` (bool, shape (events,)) is True; sessions left without any are gone."""
        if not len(self):
            return self
        lengths = np.add.reduceat(keep.view(np.int8), self.offsets[:-1], dtype=np.int64)
        stays = lengths > 0
        selected = replace(
            self,
            item=self.item[keep],
            time=self.time[keep],
            offsets=np.concatenate([[0], np.cumsum(lengths[stays])]),
            numbers=self.numbers[stays],
        )
        return selected.in_order_of_start()

    def keep_heads(self, sessions: np.ndarray, n_events: np.ndarray) -> Events:
        """The same, but that some sessions (ascending) keep their first events only; those that keep none are gone."""
        lengths = self.lengths
        lengths[sessions] = n_events
        stops = self.offsets[sessions] + n_events
        starts = np.concatenate([[0], self.offsets[sessions + 1]])
        pieces = list(zip(starts.tolist(), [*stops.tolist(), len(self)], strict=True))
        stays = lengths > 0
        return replace(
            self,
            item=np.concatenate([self.item[start:stop] for start, stop in pieces]),
            time=np.concatenate([self.time[start:stop] for start, stop in pieces]),
            offsets=np.concatenate([[0], np.cumsum(lengths[stays])]),
            numbers=self.numbers[stays],
        )

    def take_sessions(self, sessions: np.ndarray) -> Events:
        """The sessions of the given numbers (int64), in the order given."""
        (item, time), offsets = take_runs([self.item, self.time], self.offsets, sessions)
        return replace(self, item=item, time=time, offsets=offsets, numbers=self.numbers[sessions])

    def sessions_between(self, first: int, stop: int) -> Events:
        """Sessions ``first`` to ``stop`` (exclusive), without a copy."""
        begin, end = self.offsets[first], self.offsets[stop]
        return replace(
            self,
            item=self.item[begin:end],
            time=self.time[begin:end],
            offsets=self.offsets[first : stop + 1] - begin,
            numbers=self.numbers[first:stop],
        )

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


def read_events(
    paths: str | Path | Sequence[str | Path],
    log_format: LogFormat | None = None,
    session_gap: float | None = None,
    gap_events: GapEvents = "all",
    event_kinds: Sequence[str] | None = None,
) -> Events:
    """Read a click log, whatever the order of its rows.

    Args:
        paths: File, folder or pattern, or a list of these; rows with the same session id make one session, also across
            files.
        log_format: How the files are written; columns SessionId, ItemId and Time where None.
        session_gap: Seconds without an event after which a visitor's next event begins a new session; sessions that the
            log names are cut there, too. None cuts nowhere.
        gap_events: Whether a gap lies between events of any kind (``all``) or of the kinds that are kept (``kept``).
        event_kinds: Kinds of event that are kept; None keeps all.

    Returns:
        The events in session order.

    Raises:
        SessRecError: If a file is missing, damaged or empty, lacks a column, or holds a time that cannot be read.
    """
    log_format = log_format or LogFormat()
    files = log_files(paths)
    tables = [read_log_table(file, log_format) for file in files]
    figures: dict[str, int | str] = {"files": len(files)}
    for table in tables:
        for name, count in table.figures.items():
            figures[name] = int(figures.get(name, 0)) + count
    notes = [note for table in tables for note in table.notes]
    tables = [table for table in tables if table.n_rows]
    if not tables:
        why = "; ".join(notes) or "the files hold a header at most"
        raise SessRecError(f"no events in {_names(files)}: {why}")
    keep = None if event_kinds is None else _is_of_kind(tables, event_kinds, figures)
    sizes = [table.n_rows for table in tables]
    session, session_ids = encode_ids(_all_pieces([table.session for table in tables]))
    item, item_ids = encode_ids(_all_pieces([table.item for table in tables]))
    item_ids = item_ids.cast(pa.string())
    rows = _Rows(tables, sizes)
    _refuse_joined_files(rows, session, session_ids, item, item_ids, log_format)
    warnings = _warn_of_spreadsheets(rows, "session", session, session_ids) if session_ids.type != pa.int64() else []
    warnings += _warn_of_spreadsheets(rows, "item", item, item_ids)
    has_times = log_format.time_column is not None
    if has_times:
        times = [table.time for table in tables if table.time is not None]
        time = times[0] if len(times) == 1 else np.concatenate(times)
    else:
        time = np.arange(len(item))
        notes.append("no time column: the order of rows is the time")
    orders = [table.order for table in tables if table.order is not None]
    del tables
    columns = [item, time] if keep is None else [item, time, keep]
    tie_break = np.concatenate(orders) if orders else None
    (item, time, *rest), offsets, codes = sort_into_sessions(session, time, columns, tie_break)
    events = Events(item, time, offsets, codes, session_ids, item_ids, has_times, figures, notes, warnings)
    if rest and gap_events == "kept":
        events, rest = events.select(rest.pop()), []
    if session_gap is not None and len(events):
        events = _cut_at_gaps(events, session_gap)
    if rest:
        events = events.select(rest[0])
    return events.in_order_of_start()


def _all_pieces(columns: list[list[pa.Array]]) -> list[pa.Array]:
    """One column of several files; the files' own lists are emptied, so that the pieces can be forgotten."""
    pieces = [piece for column in columns for piece in column]
    for column in columns:
        column.clear()
    return pieces


@dataclass(frozen=True)
class _Rows:
    """The complete rows of all files, to name one of them."""

    tables: list[LogTable]
    sizes: list[int]

    def place_of(self, row: int) -> str:
        for table, size in zip(self.tables, self.sizes, strict=True):
            if row < size:
                return table.place_of_row(row)
            row -= size
        raise IndexError(row)


def _warn_of_spreadsheets(rows: _Rows, kind: str, codes: np.ndarray, ids: pa.Array) -> list[str]:
    """Name the first id in scientific notation: what a spreadsheet leaves of a long number."""
    may_be = pc.match_substring(ids, "E+", ignore_case=True)
    if not pc.any(may_be).as_py():
        return []
    suspects = np.flatnonzero(pc.and_(may_be, pc.match_substring_regex(ids, _ROUNDED)).to_numpy(zero_copy_only=False))
    if not len(suspects):
        return []
    row = int(np.flatnonzero(np.isin(codes, suspects))[0])
    return [
        f"{len(suspects)} {kind} ids such as {ids[int(codes[row])].as_py()!r} ({rows.place_of(row)}) look like numbers "
        f"rounded by a spreadsheet: different {kind}s may have become one before sessrec saw them"
    ]


def _refuse_joined_files(
    rows: _Rows,
    session: np.ndarray,
    session_ids: pa.Array,
    item: np.ndarray,
    item_ids: pa.Array,
    log_format: LogFormat,
) -> None:
    """Refuse the header or the byte-order mark of a second file that was appended to the first."""
    names = (log_format.visitor_column or log_format.session_column, log_format.item_column)
    if session_ids.type == pa.int64():  # neither a name nor a mark
        return
    for ids, codes in ((session_ids, session), (item_ids, item)):
        marked = pc.starts_with(ids, "\ufeff")
        if pc.any(marked).as_py():
            row = int(np.flatnonzero(np.isin(codes, np.flatnonzero(marked.to_numpy(zero_copy_only=False))))[0])
            raise SessRecError(
                f"{rows.place_of(row)}: an id begins with a byte-order mark: files were joined; remove it"
            )
    headers = [pc.index(ids, name).as_py() for ids, name in zip((session_ids, item_ids), names, strict=True)]
    if min(headers) >= 0:
        found = np.flatnonzero((session == headers[0]) & (item == headers[1]))
        if len(found):
            raise SessRecError(f"{rows.place_of(int(found[0]))}: a header stands among the rows; remove it")


def _is_of_kind(tables: list[LogTable], kinds: Sequence[str], figures: dict[str, int | str]) -> np.ndarray:
    """Whether each row is an event of a wanted kind."""
    pieces = [piece for table in tables for piece in table.event]
    found = sorted({kind for piece in pieces for kind in piece.dictionary.to_pylist()})
    if strange := [kind for kind in kinds if kind not in found]:
        kinds_found = ", ".join(map(str, found[:20]))
        raise SessRecError(f"no event is of the kind {', '.join(strange)} (--data.events); the log has {kinds_found}")
    wanted = pa.array(kinds, pa.string())
    keep = np.concatenate([pc.is_in(p.dictionary, wanted).to_numpy(False)[p.indices.to_numpy()] for p in pieces])
    figures["rows_of_other_events"] = int((~keep).sum())
    return keep


def _cut_at_gaps(events: Events, gap: float) -> Events:
    """Begin a new session where more than ``gap`` seconds pass; session ids get the number of the piece."""
    if not events.has_times:
        raise SessRecError("--data.session_gap needs times, and --data.time_column is null")
    begins = np.zeros(len(events), dtype=bool)
    begins[1:] = np.diff(events.time) > gap
    begins[events.offsets[:-1]] = True
    first_rows = np.flatnonzero(begins)
    whole = np.searchsorted(events.offsets, first_rows, side="right") - 1  # session that each piece is of
    piece = np.arange(len(whole)) - np.searchsorted(whole, whole) + 1
    session_ids = pc.binary_join_element_wise(
        events.session_ids.take(pa.array(events.numbers[whole])).cast(pa.string()),
        pa.array(piece).cast(pa.string()),
        "_",
    )
    figures = {
        **events.figures,
        "visitors_or_sessions": events.n_sessions,
        "cuts_at_gaps": len(piece) - events.n_sessions,
    }
    offsets = np.concatenate([first_rows, [len(events)]])
    numbers = np.arange(len(piece), dtype=np.int32)
    return replace(events, offsets=offsets, numbers=numbers, session_ids=session_ids, figures=figures)


def events_from_frame(frame: pd.DataFrame) -> Events:
    """Take events from a table in memory.

    Args:
        frame: Columns SessionId, ItemId and Time (Unix seconds), one row an event; it is left as it is.

    Returns:
        The events in session order.
    """
    session, session_ids = encode_ids([plain_numbers(pa.array(frame["SessionId"].astype(str), pa.string()))])
    item, item_ids = encode_ids([plain_numbers(pa.array(frame["ItemId"].astype(str), pa.string()))])
    item_ids = item_ids.cast(pa.string())
    time = frame["Time"].to_numpy()
    (item, time), offsets, codes = sort_into_sessions(session, time, [item, time])
    return Events(item, time, offsets, codes, session_ids, item_ids, figures={"rows": len(frame)})


def _names(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more files"
