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

from sessrec.click_log.arrays import concatenate, scratch_folder, spool
from sessrec.click_log.delimited_file import DelimitedFile
from sessrec.click_log.files import IN_MEMORY, PARQUET, file_identity, first_bytes
from sessrec.click_log.json_lines import JsonLinesFile, is_json_lines
from sessrec.click_log.lists import ListColumns, check_list_newlines
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.memory_table import MemoryTable, is_table
from sessrec.click_log.parquet_file import ParquetFile
from sessrec.click_log.pieces import Piece, piece_of_batch
from sessrec.click_log.quote_check import QuotedNewlineError
from sessrec.click_log.times import NUMBER, UnreadableTimes, times_from_column
from sessrec.errors import SessRecError
from sessrec.text import counted

Source: TypeAlias = ParquetFile | JsonLinesFile | DelimitedFile | MemoryTable

_AHEAD = 8  # pieces in work; more would only fill the memory


@dataclass
class LogTable:
    """The rows of one file that have all they need."""

    session: list[pa.Array]
    """Session or visitor ids in pieces, as `plain_numbers` gives them; none where each row is a session."""
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
    rows: np.ndarray | None
    """Row of the file that each row is of, where those hold lists or some were dropped."""

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
    if first_bytes(file) == PARQUET:
        return ParquetFile(file, log_format)
    return JsonLinesFile(file, log_format) if is_json_lines(file) else DelimitedFile(file, log_format)


def has_columns(file: Any, log_format: LogFormat) -> bool:
    """Whether a file or table is a click log with the columns of a format."""
    try:
        open_source(file, log_format)
    except Exception:  # whatever is wrong, reading it says so
        return False
    return True


def read_table_of(file: Any, log_format: LogFormat, n_files: int) -> LogTable:
    """`read_log_table` of one of some files, of which those without the columns may be no part of the log."""
    try:
        return read_log_table(file, log_format)
    except SessRecError as error:
        if n_files == 1 or has_columns(file, log_format):
            raise
        raise SessRecError(
            f"{error}; where it is no part of the log, leave it out, as by a pattern like *.csv"
        ) from error


def read_log_table(file: Any, log_format: LogFormat) -> LogTable:
    """Read one file of a click log, or a table in memory.

    Returns:
        Its complete rows; rows with an empty field are dropped, counted and named.

    Raises:
        SessRecError: If the file is damaged, lacks a column, has a row with too many or too few fields, or a time that
            cannot be read; or changes while it is being read.
    """
    is_file = not is_table(file)
    before = file_identity(file) if is_file else None
    try:
        table = _read(open_source(file, log_format), log_format)
    except (
        pa.ArrowException, EOFError, OSError, zipfile.BadZipFile, zlib.error, LZMAError, UnicodeDecodeError
    ) as error:  # fmt: skip
        cause = " ".join(str(error).split())[:300]
        if is_file and (not isinstance(error, OSError) or error.errno is None):
            cause += "; the file is damaged, cut short or of another format"
        raise SessRecError(f"cannot read {file if is_file else IN_MEMORY}: {cause}") from error
    if is_file and file_identity(file) != before:
        raise SessRecError(f"{file} changed while it was being read: wait until it is complete")
    return table


def _read(source: Source, log_format: LogFormat) -> LogTable:
    lists = ListColumns(source.file, log_format)
    try:
        newlines, pieces = False, _pieces(source, log_format, lists, False)
    except QuotedNewlineError:  # rare, and slower: blocks cannot be cut at any newline
        newlines, pieces = True, _pieces(source, log_format, lists, True)
    figures, notes, kept = _count(source, pieces)

    def place_of_row(row: int) -> str:
        return place_in(source, kept, row)

    arrays: dict[str, list[pa.Array]] = {}
    for piece in pieces:
        for role, column in piece.columns.items():
            arrays.setdefault(role, []).extend([column] if len(column) else [])
    complete = None if kept is None else concatenate([piece.complete for piece in pieces])

    def column_of(role: str) -> pa.ChunkedArray:
        """One column, read again as text where its pieces do not agree, so that every complaint can show the text."""
        found = arrays.pop(role)
        kinds = {array.type for array in found}
        if kinds == {pa.int64(), pa.float64()}:
            return pa.chunked_array([array.cast(pa.float64(), safe=False) for array in found])
        if len(kinds) == 1:
            return pa.chunked_array(found)
        batches = (lists.expand(source.parse(block, newlines))[0] for block in source.blocks(newlines))
        texts = pa.chunked_array([batch.column(role).cast(pa.string()) for batch in batches])
        return texts if complete is None else texts.filter(pa.array(complete))

    time, order, time_note = None, None, ""
    if arrays.get("time"):
        column = column_of("time")
        time, time_note = _times(source, column, log_format, kept, notes)
    if arrays.get("order"):
        order = _order(source, column_of("order"), kept)
    ids = arrays.get("session") or arrays.get("visitor", [])
    kinds = arrays.get("event", [])
    notes += lists.notes
    return LogTable(ids, arrays.get("item", []), time, order, kinds, figures, notes, time_note, place_of_row, kept)


def place_in(source: Source, rows: np.ndarray | None, row: int) -> str:
    """File and line of a row, of the complete ones; see `LogTable.rows`."""
    return f"{source.file}, {source.places([row if rows is None else int(rows[row])])}"


def _pieces(source: Source, log_format: LogFormat, lists: ListColumns, newlines_in_values: bool) -> list[Piece]:
    def converted(block: Any) -> Piece:
        batch = source.parse(block, newlines_in_values)
        if newlines_in_values:
            _check_newlines(source, batch, lists.splits_texts)
        expanded, parents = lists.expand(batch)
        piece = piece_of_batch(expanded, log_format)
        piece.n_rows, piece.parents = batch.num_rows, parents
        piece.columns = spool(piece.columns, folder)
        return piece

    folder = scratch_folder()  # which other threads do not see
    futures: list[Future[Piece]] = []
    try:
        with ThreadPoolExecutor() as pool:  # the work releases the interpreter's lock
            for block in source.blocks(newlines_in_values):
                if lists.splits_texts and lists.separator is None:
                    lists.find_separator(source.parse(block, newlines_in_values))
                futures.append(pool.submit(converted, block))
                if len(futures) >= _AHEAD:
                    futures[-_AHEAD].result()
            return [future.result() for future in futures]
    except pa.ArrowInvalid as error:
        raise source.explain(error) from error


def _check_newlines(source: Source, batch: pa.RecordBatch, has_lists: bool) -> None:
    """No id or time spans lines: a quote was not closed where it should be."""
    for role, name in source.columns.items():
        broken = batch[role].filter(pc.match_substring(batch[role], "\n"))
        if has_lists:
            broken = check_list_newlines(broken)
        if len(broken):
            raise SessRecError(
                f"{source.file}: {name} {broken[0].as_py()[:60]!r} spans lines: a quote is not closed; close it, or "
                "give --data.quoting false if quotes are ordinary characters in this log"
            )


def _count(source: Source, pieces: list[Piece]) -> tuple[dict[str, int], list[str], np.ndarray | None]:
    """Figures and notes on dropped rows, and the rows of the file that are kept, None where all are."""
    starts = np.cumsum([0, *(len(piece.complete) for piece in pieces)])
    n_bad, bad_lines = source.bad_lines()
    figures, notes = {"rows": int(starts[-1])} | ({"bad_lines": n_bad} if n_bad else {}), [bad_lines] * bool(n_bad)
    parents = None
    if any(piece.parents is not None for piece in pieces):
        first_rows = np.cumsum([0, *(piece.n_rows for piece in pieces)])
        parents = np.concatenate([piece.parents + row for piece, row in zip(pieces, first_rows, strict=False)])
        figures["lists"] = int(first_rows[-1])
        if n_empty := figures["lists"] - int(np.count_nonzero(np.diff(parents, prepend=-1))):
            figures["empty_lists"] = n_empty
    for role, name in source.columns.items():
        found = [piece.empty[role] + start for piece, start in zip(pieces, starts, strict=False) if role in piece.empty]
        if found:
            rows = np.concatenate(found)
            figures[f"rows_with_empty_{role}"] = len(rows)
            where = _places(source, rows, parents)
            notes.append(f"{source.file}: {counted(len(rows), 'row')} dropped: empty {name}, {where}")
    if all(piece.complete.all() for piece in pieces):
        return figures, notes, parents
    kept = np.flatnonzero(concatenate([piece.complete for piece in pieces]))
    figures["incomplete_rows"] = figures["rows"] - len(kept)
    return figures, notes, kept if parents is None else parents[kept]


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
    if pa.types.is_integer(column.type):
        return column.to_numpy()
    is_float = pa.types.is_floating(column.type)
    if column.type == pa.float16():
        column = column.cast(pa.float32())
    texts = column if is_float else pc.utf8_trim_whitespace(column.cast(pa.string()))
    is_number = pc.is_finite(column) if is_float else pc.match_substring_regex(texts, NUMBER)
    bad = np.flatnonzero(~is_number.to_numpy())
    if len(bad):
        raise SessRecError(
            f"{source.file}, {_places(source, bad, kept)}: {len(bad)} of column {source.columns['order']!r} are no "
            f"numbers, first {str(texts[int(bad[0])])!r} (--data.order_column)"
        )
    return (column if is_float else texts.cast(pa.float64())).to_numpy()


def _places(source: Source, rows: np.ndarray, kept: np.ndarray | None) -> str:
    """Where the first of some complete rows stand in the file."""
    rows = rows if kept is None else np.unique(kept[rows])  # a row may have several items
    return source.places(rows[:5].tolist()) + (", ..." if len(rows) > 5 else "")
