"""Read a click log: one or several files of TSV, CSV or Parquet, plain or compressed.

Ids stay text, byte for byte. Times become Unix seconds, UTC. Rows that cannot be used are
counted, never lost in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.errors import SessRecError
from sessrec.events import Events
from sessrec.files import log_files
from sessrec.ids import encode_ids, warn_of_ids, warn_of_twins
from sessrec.log_format import LogFormat
from sessrec.ordering import count_codes, sort_into_sessions
from sessrec.tables import LogTable, read_log_table

GapEvents = Literal["all", "kept"]
_ROUNDED = r"^[+-]?\d+(\.\d+)?[eE]\+\d+$"


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
    notes = _first_of([note for table in tables for note in table.notes])
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
    kind = "session" if log_format.visitor_column is None else "visitor"
    if session_ids.type != pa.int64():
        warnings += warn_of_ids(kind, session_ids, count_codes(session, len(session_ids)))
    warnings += warn_of_ids("item", item_ids, count_codes(item, len(item_ids))) + warn_of_twins(item_ids)
    has_times = log_format.time_column is not None
    if has_times:
        notes += _time_notes([table.time_note for table in tables], len(files))
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


def _first_of(notes: list[str]) -> list[str]:
    """The notes of many files would hide the report."""
    return notes if len(notes) <= 20 else [*notes[:20], f"... and {len(notes) - 20} more notes of this kind"]


def _time_notes(notes: list[str], n_files: int) -> list[str]:
    """How the times were read, said once for all files that agree."""
    return [
        f"times read {note}" + (f", in {count} of {n_files} files" if count < n_files else "")
        for note, count in Counter(notes).items()
    ]


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
    for ids, codes in ((session_ids, session), (item_ids, item)):
        if ids.type == pa.int64():  # neither a name nor a mark
            continue
        marked = pc.starts_with(ids, "\ufeff")
        if pc.any(marked).as_py():
            row = int(np.flatnonzero(np.isin(codes, np.flatnonzero(marked.to_numpy(zero_copy_only=False))))[0])
            raise SessRecError(
                f"{rows.place_of(row)}: an id begins with a byte-order mark: files were joined; remove it"
            )
    if session_ids.type == pa.int64():
        return
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


def _names(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more files"
