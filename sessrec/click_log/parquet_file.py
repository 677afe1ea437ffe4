"""Read the wanted columns of a source whose columns have types, such as a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from sessrec.click_log.dialect import check_columns
from sessrec.click_log.log_format import LogFormat
from sessrec.errors import SessRecError


class TypedSource:
    """A click log whose columns have types; the classes below open it and give its rows."""

    file: Path
    columns: dict[str, str]

    def check_types(self, schema: pa.Schema) -> None:
        """Refuse a column of a type that holds no ids.

        Raises:
            SessRecError: With the column and its type.
        """
        for role, name in self.columns.items():
            kind = schema.field(name).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if role not in ("time", "order") and not (_is_text(kind) or pa.types.is_integer(kind)):
                raise SessRecError(f"{self.file}: column {name} is of type {kind}; ids must be text or whole numbers")

    def parse(self, block: pa.RecordBatch, newlines_in_values: bool = False) -> pa.RecordBatch:
        """The wanted columns of a block, under the names of their roles."""
        arrays = [block.column(name) for name in self.columns.values()]
        arrays = [array.dictionary_decode() if pa.types.is_dictionary(array.type) else array for array in arrays]
        arrays = [array.cast(pa.string()) if _is_text(array.type) else array for array in arrays]
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


class ParquetFile(TypedSource):
    """A click log in Parquet.

    Raises:
        SessRecError: If a column is missing, or of a type that holds no ids.
    """

    def __init__(self, file: Path, log_format: LogFormat) -> None:
        self.file = file
        self.columns = log_format.columns()
        schema = pa.parquet.read_schema(file)
        check_columns(file, schema.names, self.columns, "schema")
        self.check_types(schema)

    def blocks(self, newlines_in_values: bool = False) -> Iterator[pa.RecordBatch]:
        """Rows of the file, some hundred thousand at a time."""
        yield from pa.parquet.ParquetFile(self.file).iter_batches(1 << 18, columns=list(self.columns.values()))


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
