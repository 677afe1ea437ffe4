"""Read the wanted columns of a delimited text file as text, refusing what does not fit, by its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from sessrec.click_log.dialect import find_layout
from sessrec.click_log.files import open_text
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.quote_check import checked_rows
from sessrec.click_log.text_source import BLOCK, SHOWN, TextSource
from sessrec.errors import SessRecError


class DelimitedFile(TextSource):
    """A click log as delimited text, plain or compressed.

    Raises:
        SessRecError: If a column is missing or ambiguous.
    """

    def __init__(self, file: Path, log_format: LogFormat) -> None:
        super().__init__(file, log_format)
        self.layout = find_layout(file, log_format)
        self.a_row = f"not {len(self.layout.names)} fields"

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
        drop = self._drop if self.drops_bad_lines else None
        parse = pa.csv.ParseOptions(
            delimiter=layout.delimiter,
            quote_char=quote,
            newlines_in_values=newlines_in_values,
            invalid_row_handler=drop,
        )
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

    def _drop(self, row: pa.csv.InvalidRow) -> str:
        """Take note of a bad line, and have the parser leave it out."""
        self._dropped.append(row.text)
        return "skip"

    def _is_bad(self, row: list[str]) -> bool:
        return len(row) != len(self.layout.names)

    def explain(self, error: pa.ArrowInvalid) -> SessRecError:
        """Turn the error of a parser into one that names the line."""
        names = self.layout.names
        try:
            for _ in checked_rows(self.file, self.layout, True, BLOCK):
                pass
        except SessRecError as of_quotes:
            return of_quotes
        if not self.drops_bad_lines and (fault := self._bad_lines_error()) is not None:
            return fault
        for line, row in self._rows():
            if len(row) != len(names):
                continue
            for name, field in zip(names, row, strict=True):
                if any("\ud800" <= character <= "\udfff" for character in field):
                    shown = field.encode("utf-8", "replace").decode()
                    return SessRecError(
                        f"{self.file}, line {line}: {name} {shown!r} is not UTF-8; save the file as UTF-8, for example "
                        "by iconv -f latin1 -t utf-8"
                    )
        return SessRecError(f"cannot read {self.file}: {' '.join(str(error).split())[:300]}")

    def _bad_lines_error(self) -> SessRecError | None:
        """Name the first lines that have too many or too few fields, and how many there are; None where none is."""
        n_fields, n_bad, first, others = len(self.layout.names), 0, "", []
        for line, row in self._rows():
            if len(row) == n_fields:
                continue
            n_bad += 1
            if n_bad == 1:
                shown = self.layout.separator.join(row)[:80].encode("utf-8", "replace").decode()
                first = f"{self.file}, line {line}: {len(row)} fields in place of {n_fields}: {shown!r}; "
            elif n_bad <= SHOWN:
                others.append(str(line))
        if n_bad > 1:
            first += f"{n_bad:,} lines are so, also {', '.join(others)}{', ...' if n_bad > SHOWN else ''}; "
        them = "it" if n_bad == 1 else "them"
        return SessRecError(f"{first}mend or remove {them}, or give --data.bad_lines drop") if n_bad else None

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
