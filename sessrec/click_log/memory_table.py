"""Read the wanted columns of a table in memory: of pandas, or of anything that offers the Arrow C stream interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from sessrec.click_log.dialect import check_columns
from sessrec.click_log.files import IN_MEMORY
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.parquet_file import TypedSource
from sessrec.errors import SessRecError


def is_table(path: object) -> bool:
    """Whether a path is a table in memory: of pandas, polars, pyarrow, DuckDB and others."""
    return isinstance(path, pd.DataFrame) or hasattr(path, "__arrow_c_stream__")


def as_arrow(table: Any) -> pa.Table:
    """A table that offers the Arrow C stream interface as one of pyarrow, without a copy where that is possible.

    Raises:
        SessRecError: If it is no table of columns.
    """
    try:
        return pa.table(table)
    except (TypeError, ValueError, pa.ArrowException) as error:
        cause = " ".join(str(error).split())[:200]
        raise SessRecError(
            f"{IN_MEMORY}: a {type(table).__name__} is no table of columns for Arrow: {cause}"
        ) from error


class MemoryTable(TypedSource):
    """A click log as a table in memory, which stays as it is; the index of pandas is no column.

    Args:
        table: The table.
        log_format: How it is written.

    Raises:
        SessRecError: If a column is missing, or of a type that holds no ids or times.
    """

    def __init__(self, table: Any, log_format: LogFormat) -> None:
        self.file = Path(IN_MEMORY)
        self.columns = log_format.columns()
        arrow = None if isinstance(table, pd.DataFrame) else as_arrow(table)
        found = list(map(str, table.columns)) if arrow is None else arrow.schema.names
        # a name with a dot leads into a column
        outer = {role: name if name in found else name.split(".")[0] for role, name in self.columns.items()}
        check_columns(self.file, found, outer, "header" if arrow is None else "schema")
        names = list(dict.fromkeys(outer.values()))
        if arrow is None:
            arrays = [self._array(table.iloc[:, found.index(name)], name) for name in names]
            self._table = pa.table(arrays, names=names)
        else:
            self._table = arrow.select(names)
        self.find_columns(self._table.schema)

    def _array(self, column: pd.Series, name: str) -> pa.Array | pa.ChunkedArray:
        """A column of pandas, in which a missing value is one whatever its type."""
        try:
            return pa.array(column, from_pandas=True)
        except (pa.ArrowException, OverflowError, UnicodeError, TypeError) as error:
            raise SessRecError(
                f"{self.file}: column {name} mixes values of several types, or has some of none that is known: make "
                f"all of them text, or all numbers ({' '.join(str(error).split())[:100]})"
            ) from error

    def blocks(self, newlines_in_values: bool = False) -> Any:
        """Rows of the table, some hundred thousand at a time."""
        return self._table.to_batches(max_chunksize=1 << 18)
