"""Read one file of a click log into a table of the columns that matter, whatever its kind."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from lzma import LZMAError
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from sessrec.click_log.delimited_file import DelimitedFile
from sessrec.click_log.files import PARQUET, file_identity, first_bytes
from sessrec.click_log.ids import plain_numbers
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.memory_table import MemoryTable, is_table
from sessrec.click_log.parquet_file import ParquetFile
from sessrec.click_log.quote_check import QuotedNewlineError
from sessrec.click_log.times import NUMBER, UnreadableTimes, parse_times, times_from_column
from sessrec.errors import SessRecError
from sessrec.text import counted

Source: TypeAlias = ParquetFile | DelimitedFile | MemoryTable

_AHEAD = 8  # pieces in work; more would only fill the memory


@dataclass
class LogTable:
    """The rows of one file that have all they need."""

    session: list[pa.Array]
    """Session or visitor ids in pieces, as `plain_numbers` gives them."""
    item: list[pa.Array]
    """Item ids, likewise."""
    time: np.ndarray | None
    """Unix seconds, int64 or float64."""
    order: np.ndarray | None
    """Numbers that order the events of equal time."""
    event: list[pa.Array]
    """Kind of event in pieces, dictionaries of text."""
    figures: dict[str, int]
    """Number of rows, and of the rows dropped for each reason."""
    notes: list[str]
    """What was dropped, and where."""
    time_note: str
    """How the times were read."""
    place_of_row: Callable[[int], str]
    """File and line of one of the rows, for messages."""

    @property
    def n_rows(self) -> int:
        """Number of complete rows."""
        return sum(map(len, self.item))


def open_source(file: Any, log_format: LogFormat) -> Source:
    """Open a file, whose kind is told by its first bytes, not by its name, or a table in memory.

    Raises:
        SessRecError: If it is no click log, or lacks a column.
    """
    if is_table(file):
        return MemoryTable(file, log_format)
    is_parquet = first_bytes(file) == PARQUET
    return ParquetFile(file, log_format) if is_parquet else DelimitedFile(file, log_format)


def has_columns(file: Any, log_format: LogFormat) -> bool:
    """Whether a file or table is a click log with the columns of a format."""
    try:
        open_source(file, log_format)
    except Exception:  # whatever is wrong, reading it says so
        return False
    return True


def read_log_table(file: Any, log_format: LogFormat) -> LogTable:
    """Read one file of a click log, or a table in memory.

    Returns:
        Its complete rows; rows with an empty field are dropped, counted and named.

    Raises:
        SessRecError: If the file is damaged, lacks a column, has a row with too many or too few fields, or a time that
            cannot be read; or changes while it is being read.
    """
    if is_table(file):
        return _read(open_source(file, log_format), log_format)
    before = file_identity(file)
    try:
        table = _read(open_source(file, log_format), log_format)
    except (
        pa.ArrowException, EOFError, OSError, zipfile.BadZipFile, zlib.error, LZMAError, UnicodeDecodeError
    ) as error:  # fmt: skip
        cause = " ".join(str(error).split())[:300]
        if not isinstance(error, OSError) or error.errno is None:
            cause += "; the file is damaged, cut short or of another format"
        raise SessRecError(f"cannot read {file}: {cause}") from error
    if file_identity(file) != before:
        raise SessRecError(f"{file} changed while it was being read: wait until it is complete")
    return table


@dataclass
class _Piece:
    """Some consecutive rows of a file."""

    columns: dict[str, pa.Array]
    """The complete rows, by the roles of the columns."""
    complete: np.ndarray
    """Which rows are complete, bool."""
    empty: dict[str, np.ndarray]
    """Rows that lack the field of a role."""


def _read(source: Source, log_format: LogFormat) -> LogTable:
    try:
        newlines, pieces = False, _pieces(source, log_format, False)
    except QuotedNewlineError:  # rare, and slower: blocks cannot be cut at any newline
        newlines, pieces = True, _pieces(source, log_format, True)
    figures, notes, kept = _count(source, pieces)
    n_bad, note = source.bad_lines()
    if n_bad:
        figures, notes = figures | {"bad_lines": n_bad}, [note, *notes]

    def place_of_row(row: int) -> str:
        return f"{source.file}, {source.places([row if kept is None else int(kept[row])])}"

    arrays = {role: [piece.columns[role] for piece in pieces if len(piece.columns[role])] for role in source.columns}
    time, order, time_note = None, None, ""
    if arrays.get("time"):
        column = _column_of(source, arrays.pop("time"), "time", kept, newlines)
        time, time_note = _times(source, column, log_format, kept, notes)
    if arrays.get("order"):
        order = _order(source, _column_of(source, arrays.pop("order"), "order", kept, newlines), kept)
    ids = arrays["session" if "session" in arrays else "visitor"]
    kinds = arrays.get("event", [])
    return LogTable(ids, arrays["item"], time, order, kinds, figures, notes, time_note, place_of_row)


def _pieces(source: Source, log_format: LogFormat, newlines_in_values: bool) -> list[_Piece]:
    def converted(block: Any) -> _Piece:
        batch = source.parse(block, newlines_in_values)
        if newlines_in_values:
            _check_newlines(source, batch)
        return _convert(batch, log_format)

    futures: list[Future[_Piece]] = []
    try:
        with ThreadPoolExecutor() as pool:  # the work releases the interpreter's lock
            for block in source.blocks(newlines_in_values):
                futures.append(pool.submit(converted, block))
                if len(futures) >= _AHEAD:
                    futures[-_AHEAD].result()
            return [future.result() for future in futures]
    except pa.ArrowInvalid as error:
        raise source.explain(error) from error


def _check_newlines(source: Source, batch: pa.RecordBatch) -> None:
    """No id or time spans lines: a quote was not closed where it should be."""
    for role, name in source.columns.items():
        broken = batch[role].filter(pc.match_substring(batch[role], "\n"))
        if len(broken):
            raise SessRecError(
                f"{source.file}: {name} {broken[0].as_py()[:60]!r} spans lines: a quote is not closed; close it, or "
                "give --data.quoting false if quotes are ordinary characters in this log"
            )


def _convert(batch: pa.RecordBatch, log_format: LogFormat) -> _Piece:
    """Drop incomplete rows, and make of texts what is smaller."""
    empty, complete = {}, np.ones(batch.num_rows, dtype=bool)
    for role in batch.schema.names:
        mask = _is_empty(batch.column(role))
        if mask is not None:
            empty[role] = np.flatnonzero(mask)
            complete &= ~mask
    if empty:
        batch = batch.filter(pa.array(complete))
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    for role, column in columns.items():
        if role == "event":
            column = column.cast(pa.string()).dictionary_encode()
        elif role not in ("time", "order"):
            column = plain_numbers(column)
        elif pa.types.is_string(column.type) and not (role == "time" and log_format.time_format):
            column = parse_times(column)
        columns[role] = column
    return _Piece(columns, complete, empty)


def _count(source: Source, pieces: list[_Piece]) -> tuple[dict[str, int], list[str], np.ndarray | None]:
    """Figures and notes on dropped rows, and the rows that are kept, None where all are."""
    starts = np.cumsum([0, *(len(piece.complete) for piece in pieces)])
    figures, notes = {"rows": int(starts[-1])}, []
    for role, name in source.columns.items():
        found = [piece.empty[role] + start for piece, start in zip(pieces, starts, strict=False) if role in piece.empty]
        if found:
            rows = np.concatenate(found)
            figures[f"rows_with_empty_{role}"] = len(rows)
            where = _places(source, rows, None)
            notes.append(f"{source.file}: {counted(len(rows), 'row')} dropped: empty {name}, {where}")
    if not notes:
        return figures, notes, None
    kept = np.flatnonzero(np.concatenate([piece.complete for piece in pieces]))
    return figures | {"incomplete_rows": figures["rows"] - len(kept)}, notes, kept


def _column_of(
    source: Source, arrays: list[pa.Array], role: str, kept: np.ndarray | None, newlines: bool
) -> pa.ChunkedArray:
    """One column, read once more as text where its pieces do not agree, so that every complaint can show the text."""
    kinds = {array.type for array in arrays}
    if kinds == {pa.int64(), pa.float64()}:
        return pa.chunked_array([array.cast(pa.float64()) for array in arrays])
    if len(kinds) == 1:
        return pa.chunked_array(arrays)
    texts = pa.chunked_array([source.parse(block, newlines).column(role) for block in source.blocks(newlines)])
    return texts if kept is None else texts.take(pa.array(kept))


def _times(
    source: Source, column: pa.ChunkedArray, log_format: LogFormat, kept: np.ndarray | None, notes: list[str]
) -> tuple[np.ndarray, str]:
    """Times of the time column; a complaint about one names its line."""
    name = source.columns["time"]
    where = f"column {name!r} of {source.file}"
    try:
        return times_from_column(column, log_format.time_unit, where, log_format.time_format)
    except UnreadableTimes as error:
        known = "".join(f" ({note.removeprefix(f'{source.file}: ')})" for note in notes if f"empty {name}," in note)
        where = _places(source, error.rows, kept)
        raise SessRecError(
            f"{source.file}, {where}: {len(error.rows)} of column {name!r} cannot be read, first "
            f"{', '.join(map(repr, error.texts))}; {error}{known}"
        ) from error


def _order(source: Source, column: pa.ChunkedArray, kept: np.ndarray | None) -> np.ndarray:
    """Numbers of the order column."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return column.to_numpy()
    texts = pc.utf8_trim_whitespace(column.cast(pa.string()))
    bad = np.flatnonzero(~pc.match_substring_regex(texts, NUMBER).to_numpy())
    if len(bad):
        raise SessRecError(
            f"{source.file}, {_places(source, bad, kept)}: {len(bad)} of column {source.columns['order']!r} are no "
            f"numbers, first {texts[int(bad[0])].as_py()!r} (--data.order_column)"
        )
    return texts.cast(pa.float64()).to_numpy()


def _places(source: Source, rows: np.ndarray, kept: np.ndarray | None) -> str:
    """Where the first of some complete rows stand in the file."""
    rows = rows if kept is None else kept[rows]
    return source.places(rows[:5].tolist()) + (", ..." if len(rows) > 5 else "")


def _is_empty(column: pa.Array) -> np.ndarray | None:
    """Where a field is empty; None where none is."""
    if pa.types.is_string(column.type):
        empty = pc.fill_null(pc.equal(pc.binary_length(column), 0), True)
    elif column.null_count or pa.types.is_floating(column.type):
        empty = pc.is_null(column, nan_is_null=True)
    else:
        return None
    mask = empty.to_numpy(zero_copy_only=False)
    return mask if mask.any() else None
