"""Read the wanted columns of a delimited text file as text, refusing what does not fit, by its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from sessrec.click_log.dialect import find_layout
from sessrec.click_log.files import open_text
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.quote_check import checked_rows
from sessrec.errors import SessRecError

_BLOCK = 1 << 23  # bytes that are parsed at a time


class DelimitedFile:
    """A click log as delimited text, plain or compressed.

    Raises:
        SessRecError: If a column is missing or ambiguous.
    """

    def __init__(self, file: Path, log_format: LogFormat) -> None:
        self.file = file
        self.columns = log_format.columns()
        self.layout = find_layout(file, log_format)

    def blocks(self, newlines_in_values: bool = False) -> Iterator[bytes]:
        """Whole rows of the file, some megabytes at a time.

        Raises:
            QuotedNewlineError: If a field in quotes spans lines, unless ``newlines_in_values``.
            SessRecError: If a quote is stray.
        """
        rest = b""
        for block in checked_rows(self.file, self.layout, newlines_in_values, _BLOCK):
            block = rest + block
            end = _end_of_rows(block, newlines_in_values)
            if end:
                yield block[:end]
            rest = block[end:]
        if rest:
            yield rest

    def parse(self, block: bytes, newlines_in_values: bool = False) -> pa.RecordBatch:
        """The wanted columns of a block, as text under the names of their roles.

        Raises:
            ArrowInvalid: If a row has too many or too few fields, or a text is not UTF-8; `explain` finds the line.
        """
        layout, names = self.layout, list(self.columns.values())
        is_long = layout.separator != layout.delimiter
        if is_long:
            if layout.delimiter.encode() in block:
                raise SessRecError(f"{self.file} holds the character {layout.delimiter!r}: remove it")
            block = block.replace(layout.separator.encode(), layout.delimiter.encode())
        texts = {name: pa.string() for name in names}
        convert = pa.csv.ConvertOptions(include_columns=names, column_types=texts, strings_can_be_null=False)
        quote = '"' if layout.quoting else False
        parse = pa.csv.ParseOptions(delimiter=layout.delimiter, quote_char=quote, newlines_in_values=newlines_in_values)
        size = min(len(block) + 1, 2**31 - 1)
        options = pa.csv.ReadOptions(column_names=layout.names, use_threads=False, block_size=size)
        try:
            table = pa.csv.read_csv(pa.BufferReader(block), options, parse, convert)
        except pa.ArrowInvalid as error:
            if "Empty CSV file" not in str(error):  # else these are blank lines
                raise
            table = pa.schema(texts).empty_table()
        columns = [table[name].combine_chunks() for name in names]
        if is_long and layout.quoting:  # inside of quotes it was no separator
            columns = [pc.replace_substring(column, layout.delimiter, layout.separator) for column in columns]
        return pa.record_batch(columns, names=list(self.columns))

    def places(self, rows: Sequence[int]) -> str:
        """Lines of some rows, counted from 0 and ascending, for messages."""
        lines: list[str] = []
        for row, (line, _) in enumerate(self._rows()):
            if len(lines) == len(rows):
                break
            if row == rows[len(lines)]:
                lines.append(str(line))
        return "line " + ", ".join(lines)

    def explain(self, error: pa.ArrowInvalid) -> SessRecError:
        """Turn the error of a parser into one that names the line."""
        names, separator = self.layout.names, self.layout.separator
        try:
            for _ in checked_rows(self.file, self.layout, True, _BLOCK):
                pass
        except SessRecError as of_quotes:
            return of_quotes
        for line, row in self._rows():
            if len(row) != len(names):
                shown = separator.join(row)[:80].encode("utf-8", "replace").decode()
                fields = f"{len(row)} fields in place of {len(names)}"
                return SessRecError(f"{self.file}, line {line}: {fields}: {shown!r}; mend or remove it")
            for name, field in zip(names, row, strict=True):
                if any("\ud800" <= character <= "\udfff" for character in field):
                    shown = field.encode("utf-8", "replace").decode()
                    return SessRecError(
                        f"{self.file}, line {line}: {name} {shown!r} is not UTF-8; save the file as UTF-8, for example "
                        "by iconv -f latin1 -t utf-8"
                    )
        return SessRecError(f"cannot read {self.file}: {' '.join(str(error).split())[:300]}")

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Fields of each row that is not blank, with the line on which it ends."""
        layout, file = self.layout, open_text(self.file)
        with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            for _ in range(layout.n_skipped_lines):
                stream.readline()
            lines = (line.replace(layout.separator, layout.delimiter) for line in stream)
            reader = csv.reader(
                lines, delimiter=layout.delimiter, quoting=csv.QUOTE_MINIMAL if layout.quoting else csv.QUOTE_NONE
            )
            for row in reader:
                if row:
                    yield layout.n_skipped_lines + reader.line_num, row


def _end_of_rows(block: bytes, newlines_in_values: bool) -> int:
    """Where the last whole row of a block ends that begins with a row; 0 where none does."""
    end = block.rfind(b"\n") + 1
    while newlines_in_values and block.count(b'"', 0, end) % 2:  # this newline stands in a field
        end = block.rfind(b"\n", 0, end - 1) + 1
    return end
