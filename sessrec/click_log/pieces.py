"""Make of a block of a file the columns that matter, without incomplete rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.click_log.ids import plain_numbers
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.times import parse_times


@dataclass
class Piece:
    """Some consecutive rows of a file, one an item where they hold lists."""

    columns: dict[str, pa.Array]
    """The complete rows, by the roles of the columns."""
    complete: np.ndarray
    """Which rows are complete, bool."""
    empty: dict[str, np.ndarray]
    """Rows that lack the field of a role."""
    n_rows: int = 0
    """Number of rows in the file."""
    parents: np.ndarray | None = None
    """Row of the file, of those of this piece, that each row is of; None where they are the same."""


def piece_of_batch(batch: pa.RecordBatch, log_format: LogFormat) -> Piece:
    """Drop incomplete rows, and make of texts what is smaller."""
    empty, complete = {}, np.ones(batch.num_rows, dtype=bool)
    for role in batch.schema.names:
        mask = _is_empty(batch.column(role), log_format.missing_values)
        if mask is not None:
            empty[role] = np.flatnonzero(mask)
            complete &= ~mask
    if empty:
        batch = batch.filter(pa.array(complete))
    else:
        complete = np.broadcast_to(np.True_, batch.num_rows)  # takes no memory
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    for role, column in columns.items():
        if role == "event":
            column = column.cast(pa.string()).dictionary_encode()
        elif role not in ("time", "order"):
            column = plain_numbers(column)
        elif pa.types.is_string(column.type) and not (role == "time" and log_format.time_format):
            column = parse_times(column)
        columns[role] = column
    return Piece(columns, complete, empty)


def _is_empty(column: pa.Array, missing_values: list[str] | None) -> np.ndarray | None:
    """Where a field is empty; None where none is."""
    if pa.types.is_string(column.type):
        empty = pc.fill_null(pc.equal(pc.binary_length(column), 0), True)
        if missing_values:
            empty = pc.or_(empty, pc.is_in(column, pa.array(missing_values, pa.string())))
    elif missing_values or column.null_count or pa.types.is_floating(column.type):
        empty = pc.is_null(column, nan_is_null=True)
        if missing_values:
            empty = pc.or_(empty, pc.is_in(column.cast(pa.string()), pa.array(missing_values, pa.string())))
    else:
        return None
    mask = empty.to_numpy(zero_copy_only=False)
    return mask if mask.any() else None
