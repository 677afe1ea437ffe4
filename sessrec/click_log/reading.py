"""Read a click log: one or several files of TSV, CSV or Parquet, plain or compressed.

Ids stay text, byte for byte. Times become Unix seconds, UTC. Rows that cannot be used are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.click_log.arrays import concatenate
from sessrec.click_log.events import Events
from sessrec.click_log.files import IN_MEMORY
from sessrec.click_log.gaps import cut_at_gaps
from sessrec.click_log.id_checks import check_ids
from sessrec.click_log.id_spellings import warn_of_spellings
from sessrec.click_log.list_check import warn_of_lists
from sessrec.click_log.log_engine import LogEngine
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.log_table import LogTable
from sessrec.click_log.memory_table import is_table
from sessrec.click_log.ordering import count_codes
from sessrec.click_log.row_index import Rows
from sessrec.click_log.time_checks import warn_of_times
from sessrec.click_log.times import unit_of_note
from sessrec.errors import SessRecError
from sessrec.suggestions import nearest
from sessrec.text import counted

GapEvents = Literal["all", "kept"]


def read_events(
    paths: Any,
    log_format: LogFormat | None = None,
    session_gap: float | None = None,
    gap_events: GapEvents = "all",
    event_kinds: Sequence[str] | None = None,
    option: str = "--data.path",
    engine: LogEngine | None = None,
) -> Events:
    """Read a click log, whatever the order of its rows.

    Args:
        paths: File, folder or pattern, or a list of these; rows with the same session id make one session, also across
            files. Or a table in memory: of pandas, or any with the Arrow C stream interface.
        log_format: How the files are written; columns SessionId, ItemId and Time where None.
        session_gap: Seconds without an event after which a visitor's next event begins a new session; sessions that the
            log names are cut there, too. None cuts nowhere.
        gap_events: Whether a gap lies between events of any kind (``all``) or of the kinds that are kept (``kept``).
        event_kinds: Kinds of event that are kept; None keeps all.
        option: The option that the files came from, for messages.
        engine: Finds, reads and sorts the rows; None for the memory of this process.

    Returns:
        The events in session order.

    Raises:
        SessRecError: If a file is missing, damaged or empty, lacks a column, or holds a time that cannot be read.
    """
    engine = engine or LogEngine()
    files = [paths] if is_table(paths) else engine.find_files(paths, option)
    events, keep = _read(files, log_format or LogFormat(), event_kinds, engine)
    if keep is not None and gap_events == "kept":
        events, keep = events.select(keep), None
    if session_gap is not None and len(events):
        events = cut_at_gaps(events, session_gap)
    if keep is not None:
        events = events.select(keep)
    return events.in_order_of_start()


def _read(
    files: list[Any], log_format: LogFormat, event_kinds: Sequence[str] | None, engine: LogEngine
) -> tuple[Events, np.ndarray | None]:
    """All events of some files, and which of them are of the kinds wanted, bool; None where all kinds are."""
    tables = engine.read_tables(files, log_format)
    figures = Counter(files=len(tables))
    for table in tables:
        figures.update(table.figures)
    notes = [note for table in tables for note in table.notes]
    if len(notes) > 20:  # so many would hide the report
        notes[20:] = [f"... and {len(notes) - 20} more notes of this kind"]
    notes += _order_note(files)
    tables = [table for table in tables if table.n_rows]
    if not tables:
        where = IN_MEMORY if is_table(files[0]) else str(files[0])
        where += f" and {len(files) - 1} more files" if len(files) > 1 else ""
        raise SessRecError(f"no events in {where}: {'; '.join(notes) or 'there is a header at most'}")
    ends = np.cumsum([table.n_rows for table in tables])

    def place_of(row: int) -> str:
        number = int(np.searchsorted(ends, row, side="right"))
        return tables[number].place_of_row(row - int(ends[number - 1] if number else 0))

    rows = _rows_of(tables, log_format)
    of_kinds: list[str] = []
    if event_kinds is not None:
        pieces = [piece for table in tables for piece in table.event]
        of_kinds = _warn_of_missing_kinds(pieces, event_kinds)
        rows.is_wanted, others = _is_of_kind(pieces, event_kinds)
        figures["rows_of_other_events"] = others.total()
    index = engine.index_rows(rows)
    session, item = index.session, index.item
    warnings = check_ids(session, item, index.first_row_of, place_of) + warn_of_lists(item, place_of)
    warnings += warn_of_spellings(session, place_of) + warn_of_spellings(item, place_of) + of_kinds
    notes += _time_notes(tables) or ["no time column: the order of rows is the time"]
    if event_kinds is not None and others:
        notes.append("rows of other events: " + ", ".join(f"{n:,} {kind}" for kind, n in others.most_common(20)))
    if rows.time is not None:
        units = {unit_of_note(table.time_note) for table in tables}
        warnings += warn_of_times(rows.time, index.n_sessions, units.pop() if len(units) == 1 else None)
    if log_format.item_lists == "longest":
        of_list = _row_numbers(tables)
        n_others = index.longest_lists(of_list)
        n_lists = int(np.count_nonzero(np.diff(of_list, prepend=-1))) + figures["empty_lists"]
        figures["earlier_lists"] = n_lists - index.n_sessions
        notes.append(f"{counted(figures['earlier_lists'], 'row')} held earlier states of a session's list")
        warnings += _warn_of_other_lists(n_others)
    ordered = index.sort()
    ids, has_times = (ordered.session_ids, item.ids.cast(pa.string())), log_format.time_column is not None
    columns = ordered.item, ordered.time, ordered.offsets, ordered.numbers
    return Events(*columns, *ids, has_times, dict(figures), notes, warnings), ordered.is_wanted


def _rows_of(tables: list[LogTable], log_format: LogFormat) -> Rows:
    """The rows of all files; the ids leave the tables."""
    kind = "session" if log_format.visitor_column is None else "visitor"
    names = log_format.visitor_column or log_format.session_column or "", log_format.item_column
    sessions, items = (_all_pieces([getattr(table, role) for table in tables]) for role in ("session", "item"))
    if log_format.rows_are_sessions:
        ends = np.cumsum([len(piece) for piece in items])
        sessions = [pa.array(numbers) for numbers in np.split(_row_numbers(tables) + 1, ends[:-1])]
    times, order = (_concatenated([getattr(table, role) for table in tables]) for role in ("time", "order"))
    return Rows(kind, names, sessions, items, times, order, None)


def _warn_of_other_lists(n_others: int) -> list[str]:
    """Lists that the longest one of their session does not continue are left out, too."""
    if not n_others:
        return []
    return [
        f"{counted(n_others, 'list')} with other items than the longest of the session begins with, not read: "
        "--data.item_lists all reads every list"
    ]


def _warn_of_missing_kinds(pieces: list[pa.Array], kinds: Sequence[str]) -> list[str]:
    """Say which kinds the log lacks, as a short log may; refuse them where one is misspelt, or all are missing."""
    found = sorted({kind for piece in pieces for kind in piece.dictionary.to_pylist()})
    missing, others = [kind for kind in kinds if kind not in found], [kind for kind in found if kind not in kinds]
    if not missing:
        return []
    message = f"no event is of the kind {', '.join(missing)} (--data.events); the log has {', '.join(found[:20])}"
    if len(missing) == len(kinds) or any(nearest(kind, others) for kind in missing):
        raise SessRecError(message)
    return [message]


def _is_of_kind(pieces: list[pa.Array], kinds: Sequence[str]) -> tuple[np.ndarray, Counter[str]]:
    """Whether each row is an event of a wanted kind, and the number of rows of each other kind."""
    wanted, others = pa.array(kinds, pa.string()), Counter[str]()
    for piece in pieces:
        counts = count_codes(piece.indices.to_numpy(), len(piece.dictionary)).tolist()
        others.update(
            {kind: n for kind, n in zip(piece.dictionary.to_pylist(), counts, strict=True) if kind not in kinds}
        )
    mask = concatenate([pc.is_in(piece.dictionary, wanted).to_numpy(False)[piece.indices] for piece in pieces])
    return mask, others


def _row_numbers(tables: list[LogTable]) -> np.ndarray:
    """Number, over all files, of the row that each event is of."""
    numbers, start = [], 0
    for table in tables:
        n_rows = table.figures.get("lists", table.figures["rows"])
        numbers.append(start + (np.arange(n_rows) if table.rows is None else table.rows))
        start += n_rows
    return concatenate(numbers)


def _concatenated(parts: list[np.ndarray | None]) -> np.ndarray | None:
    """The parts of all files as one, without a copy where there is one file; None where the log lacks them."""
    found = [part for part in parts if part is not None]
    return concatenate(found) if len(found) > 1 else next(iter(found), None)


def _order_note(files: list[Any]) -> list[str]:
    """The order in which several files were read: it decides that of events of equal time."""
    if len(files) == 1:
        return []
    names = [file.name for file in files]
    shown = names if len(names) <= 6 else [*names[:5], "...", names[-1]]
    return [f"files read in the order {', '.join(shown)}"]


def _time_notes(tables: list[LogTable]) -> list[str]:
    """How the times were read, said once for all files that agree."""
    return [
        f"times read {note}" + (f", in {count} of {len(tables)} files" if count < len(tables) else "")
        for note, count in Counter(table.time_note for table in tables if table.time_note).items()
    ]


def _all_pieces(columns: list[list[pa.Array]]) -> list[pa.Array]:
    """One column of several files; the files' own lists are emptied, so that the pieces can be forgotten."""
    pieces = [piece for column in columns for piece in column]
    for column in columns:
        column.clear()
    return pieces
