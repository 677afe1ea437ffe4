"""Read one file of a click log into a table of the columns that matter, whatever its kind."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from sessrec.delimited import check_columns, lines_of_rows, read_delimited
from sessrec.errors import SessRecError
from sessrec.files import PARQUET, file_identity, first_bytes
from sessrec.times import TimeUnit, UnreadableTimes, times_from_column


@dataclass(frozen=True)
class LogFormat:
    """How a click log is written; None means that the log has no such column, or that it is found out.

    Each field is the option of `sessrec.data.SessionDataModule` of the same name.
    """

    session_column: str | None = "SessionId"
    item_column: str = "ItemId"
    time_column: str | None = "Time"
    order_column: str | None = None
    visitor_column: str | None = None
    event_column: str | None = None
    column_names: tuple[str, ...] | None = None
    separator: str | None = None
    quoting: bool | None = None
    time_unit: TimeUnit = "auto"
    time_format: str | None = None

    def columns(self) -> dict[str, str]:
        """Name in the file of each wanted column, by its role.

        Raises:
            SessRecError: If one column is to play two roles, or there is neither a session nor a visitor.
        """
        if self.session_column is None and self.visitor_column is None:
            raise SessRecError("a log needs --data.session_column or --data.visitor_column")
        roles = {
            "session": self.session_column if self.visitor_column is None else None,
            "visitor": self.visitor_column,
            "item": self.item_column,
            "time": self.time_column,
            "order": self.order_column,
            "event": self.event_column,
        }
        columns = {role: name for role, name in roles.items() if name is not None}
        if len(set(columns.values())) < len(columns):
            named = ", ".join(f"--data.{role}_column {name}" for role, name in columns.items())
            raise SessRecError(f"one column is named for two things: {named}")
        return columns


@dataclass
class LogTable:
    """The rows of one file that have all they need."""

    session: pa.ChunkedArray
    """Session or visitor id: text or whole numbers."""
    item: pa.ChunkedArray
    """Item id: text or whole numbers."""
    time: np.ndarray | None
    """Unix seconds, int64 or float64."""
    order: np.ndarray | None
    """Numbers that order the events of equal time."""
    event: pa.ChunkedArray | None
    """Kind of event, text."""
    figures: dict[str, int]
    """Number of rows, and of the rows dropped for each reason."""
    place_of_row: Callable[[int], str]
    """File and line of one of the rows, for messages."""
    notes: list[str] = field(default_factory=list)
    """What the reader noticed."""


def read_log_table(file: Path, log_format: LogFormat) -> LogTable:
    """Read one file of a click log.

    Args:
        file: The file; its kind is told by its first bytes, not by its name.
        log_format: How it is written.

    Returns:
        Its complete rows; rows with an empty field are dropped, counted and named.

    Raises:
        SessRecError: If the file is damaged, lacks a column, has a row with too many or too few fields, or a time that
            cannot be read; or changes while it is being read.
    """
    columns = log_format.columns()
    before = file_identity(file)
    try:
        if first_bytes(file) == PARQUET:
            table, where = _read_parquet(file, columns), _row_names
        else:
            table, layout = read_delimited(
                file, columns, log_format.separator, log_format.quoting, log_format.column_names
            )

            def where(rows: list[int]) -> str:
                return "line " + ", ".join(map(str, lines_of_rows(file, layout, rows)))

    except (
        pa.ArrowException,
        EOFError,
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        LZMAError,
        UnicodeDecodeError,
    ) as error:
        cause = " ".join(str(error).split())[:300]
        raise SessRecError(
            f"cannot read {file}: {cause}; the file is damaged, cut short or of another format"
        ) from error
    if file_identity(file) != before:
        raise SessRecError(f"{file} changed while it was being read: wait until it is complete")
    return _complete_rows(file, table, columns, log_format, where)


def _row_names(rows: list[int]) -> str:
    return "row " + ", ".join(str(row + 1) for row in rows)


def _complete_rows(
    file: Path, table: pa.Table, columns: dict[str, str], log_format: LogFormat, where: Callable[[list[int]], str]
) -> LogTable:
    figures, notes = {"rows": table.num_rows}, []
    complete = np.ones(table.num_rows, dtype=bool)
    for role, name in columns.items():
        empty = _is_empty(table[role])
        if empty is None:
            continue
        rows = np.flatnonzero(empty)
        figures[f"rows_with_empty_{role}"] = len(rows)
        more = ", ..." if len(rows) > 5 else ""
        notes.append(f"{file}: {len(rows)} rows dropped: empty {name}, {where(rows[:5].tolist())}{more}")
        complete &= ~empty
    kept = None
    if not complete.all():
        kept = np.flatnonzero(complete)
        table = table.filter(pa.array(complete))
    time, order = None, None
    if table.num_rows and "time" in columns:
        time, note = _times(file, table["time"], columns["time"], log_format, kept, where, notes)
        notes.append(note)
    if table.num_rows and "order" in columns:
        order, _ = _times(file, table["order"], columns["order"], LogFormat(time_unit="s"), kept, where, notes)
    return LogTable(
        table["session" if "session" in columns else "visitor"],
        table["item"],
        time,
        order,
        table["event"] if "event" in columns else None,
        figures,
        lambda row: f"{file}, {where([row if kept is None else int(kept[row])])}",
        notes,
    )


def _times(
    file: Path,
    column: pa.ChunkedArray,
    name: str,
    log_format: LogFormat,
    kept: np.ndarray | None,
    where: Callable[[list[int]], str],
    notes: list[str],
) -> tuple[np.ndarray, str]:
    try:
        return times_from_column(column, log_format.time_unit, f"column {name!r} of {file}", log_format.time_format)
    except UnreadableTimes as error:
        rows = error.rows if kept is None else kept[error.rows]
        more = ", ..." if len(rows) > 5 else ""
        known = "".join(f" ({note.removeprefix(f'{file}: ')})" for note in notes if f"empty {name}," in note)
        raise SessRecError(
            f"{file}, {where(rows[:5].tolist())}{more}: {len(rows)} of column {name!r} cannot be read, first "
            f"{', '.join(map(repr, error.texts))}; {error.advice}{known}"
        ) from error


def _is_empty(column: pa.ChunkedArray) -> np.ndarray | None:
    """Where a field is empty; None where none is."""
    empty = pc.is_null(column, nan_is_null=True) if column.null_count or pa.types.is_floating(column.type) else None
    if pa.types.is_string(column.type):
        no_text = pa.chunked_array([_has_no_text(chunk) for chunk in column.chunks], type=pa.bool_())
        empty = no_text if empty is None else pc.or_kleene(empty, no_text)
    if empty is None:
        return None
    mask = empty.to_numpy()
    return mask if mask.any() else None


def _has_no_text(texts: pa.Array) -> pa.Array:
    return pc.equal(pc.binary_length(texts), 0)


def _read_parquet(file: Path, columns: dict[str, str]) -> pa.Table:
    check_columns(file, pa.parquet.read_schema(file).names, columns, "schema")
    table = pa.parquet.read_table(file, columns=list(columns.values())).select(list(columns.values()))
    table = table.rename_columns(list(columns))
    for number, (role, name) in enumerate(columns.items()):
        kind = table.schema.field(role).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        if is_text:
            table = table.set_column(number, role, table[role].cast(pa.string()))
        elif role in ("session", "visitor", "item", "event") and not pa.types.is_integer(kind):
            raise SessRecError(f"{file}: column {name} is of type {kind}; ids must be text or whole numbers")
    return table
