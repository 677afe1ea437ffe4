"""Read the wanted columns of a source whose columns have types, such as a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from sessrec.click_log.dialect import check_columns
from sessrec.click_log.lists import field_of, is_list, is_text
from sessrec.click_log.log_format import LogFormat
from sessrec.errors import SessRecError


class TypedSource:
    """A click log whose columns have types; the classes below open it and give its rows."""

    file: Path
    columns: dict[str, str]

    def find_columns(self, schema: pa.Schema) -> None:
        """Find each wanted column, or the field inside of one.

        Raises:
            SessRecError: If one is missing, stands in lists of lists, or is of a type that holds no ids.
        """
        fields = [field for column in schema for field in _fields(column.name, column.type)]
        check_columns(self.file, [name for name, *_ in fields], self.columns, "schema")
        types = {name: (kind, depth) for name, kind, depth in fields}
        # where a name without a dot is a column, and one with a dot leads into it
        self._paths = {role: [name] if name in schema.names else name.split(".") for role, name in self.columns.items()}
        for role, name in self.columns.items():
            kind, depth = types[name]
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if depth > 1:
                raise SessRecError(f"{self.file}: {name} stands in lists of lists: write one list a row")
            is_id = is_text(kind) or pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0)
            if role not in ("time", "order") and not is_id:
                advice = " (Int64 in pandas, where some are missing)" if pa.types.is_floating(kind) else ""
                raise SessRecError(
                    f"{self.file}: column {name} is of type {kind}; ids must be text or whole numbers{advice}"
                )

    def parse(self, block: pa.RecordBatch, newlines_in_values: bool = False) -> pa.RecordBatch:
        """The wanted columns of a block, under the names of their roles."""
        arrays = [field_of(block.column(name), tuple(inner)) for name, *inner in self._paths.values()]
        return pa.record_batch(arrays, names=list(self.columns))

    def explain(self, error: pa.ArrowInvalid) -> SessRecError:
        """Turn the error of a parser into one that names the file."""
        return SessRecError(f"cannot read {self.file}: {' '.join(str(error).split())[:300]}; the file is damaged")

    def bad_lines(self) -> tuple[int, str]:
        """A typed table has none."""
        return 0, ""

    def places(self, rows: Sequence[int]) -> str:
        """Numbers of some rows, for messages."""
        return "row " + ", ".join(str(row + 1) for row in rows)


def _fields(name: str, kind: pa.DataType, depth: int = 0) -> Iterator[tuple[str, pa.DataType, int]]:
    """Name and type of a column, of what its lists hold, or of each field of its records; and in how many lists."""
    while is_list(kind):
        kind, depth = kind.value_type, depth + 1
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _fields(f"{name}.{field.name}", field.type, depth)
    else:
        yield name, kind, depth


class ParquetFile(TypedSource):
    """A click log in Parquet.

    Raises:
        SessRecError: If a column is missing, or of a type that holds no ids.
    """

    def __init__(self, file: Path, log_format: LogFormat) -> None:
        self.file = file
        self.columns = log_format.columns()
        self.find_columns(pa.parquet.read_schema(file))

    def blocks(self, newlines_in_values: bool = False) -> Iterator[pa.RecordBatch]:
        """Rows of the file, some hundred thousand at a time."""
        columns = list(dict.fromkeys(path[0] for path in self._paths.values()))
        yield from pa.parquet.ParquetFile(self.file).iter_batches(1 << 18, columns=columns)
