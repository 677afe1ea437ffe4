"""Read the wanted columns of a delimited text file as text, refusing what does not fit, by its line."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from sessrec.errors import SessRecError
from sessrec.files import open_text
from sessrec.quotes import QuoteCheckedStream

_SEPARATORS = ("\t", ",", ";", "|", " ")
_BOM = codecs.BOM_UTF8
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_BLOCK = 1 << 23  # bytes that are parsed at a time
_HEAD = 1 << 20  # bytes in which the header must be found


@dataclass(frozen=True)
class TextLayout:
    """How a delimited file is written, as its first line and the options tell."""

    names: list[str]
    """Names of all columns, in order."""
    separator: str
    quoting: bool
    """Whether quotes enclose fields; else they are characters like others."""
    n_skipped_lines: int
    """Lines before the first row: blank ones and the header."""
    n_skipped_bytes: int

    @property
    def quote(self) -> str | bool:
        """The quote character, False where there is none."""
        return '"' if self.quoting else False


class DelimitedFile:
    """A click log as delimited text.

    Args:
        file: The file, plain or compressed.
        columns: Name in the file of each wanted column, by its role.
        separator: Character between the fields; None finds it in the first line.
        quoting: Whether quotes enclose fields; None: they do, but in tab-separated files whose first line has none.
        column_names: Names of the columns of a file without a header; None takes the first line as the header.

    Raises:
        SessRecError: If a column is missing or ambiguous.
    """

    def __init__(
        self,
        file: Path,
        columns: dict[str, str],
        separator: str | None,
        quoting: bool | None,
        column_names: Sequence[str] | None,
    ) -> None:
        self.file = file
        self.columns = columns
        self.layout = _layout(file, columns, separator, quoting, column_names)

    def blocks(self, newlines_in_values: bool = False) -> Iterator[bytes]:
        """Whole rows of the file, some megabytes at a time, or all at once where fields may span lines.

        Args:
            newlines_in_values: Whether quoted fields may span lines.

        Raises:
            QuotedNewlineError: If one does, and may not.
            SessRecError: If a quote is stray.
        """
        skip = self.layout.n_skipped_bytes
        size = -1 if newlines_in_values else _BLOCK
        stream = _checked_stream(self.file, self.layout, newlines_in_values)
        rest = b""
        try:
            while block := stream.read(size):
                if skip:
                    skip, block = max(0, skip - len(block)), block[skip:]
                end = block.rfind(b"\n") + 1 if size > 0 else len(block)
                if end == 0:
                    rest += block
                    continue
                yield rest + block[:end]
                rest = block[end:]
            stream.finish()
            if rest:
                yield rest
        finally:
            stream.close()

    def parse(self, block: bytes, newlines_in_values: bool = False) -> pa.RecordBatch:
        """The wanted columns of a block, as text under the names of their roles.

        Raises:
            ArrowInvalid: If a row has too many or too few fields, or a text is not UTF-8; `explain` finds the line.
        """
        layout = self.layout
        convert = pa.csv.ConvertOptions(
            include_columns=list(self.columns.values()),
            column_types={name: pa.string() for name in self.columns.values()},
            strings_can_be_null=False,
        )
        parse = pa.csv.ParseOptions(
            delimiter=layout.separator, quote_char=layout.quote, newlines_in_values=newlines_in_values
        )
        options = pa.csv.ReadOptions(
            column_names=layout.names, use_threads=False, block_size=min(len(block) + 1, 2**31 - 1)
        )
        try:
            table = pa.csv.read_csv(pa.BufferReader(block), options, parse, convert)
        except pa.ArrowInvalid as error:
            if "Empty CSV file" not in str(error):  # else these are blank lines
                raise
            table = pa.table({name: pa.array([], pa.string()) for name in self.columns.values()})
        arrays = [_as_one(table[name]) for name in self.columns.values()]
        return pa.record_batch(arrays, names=list(self.columns))

    def places(self, rows: Sequence[int]) -> str:
        """Lines of some rows, counted from 0 and ascending, for messages."""
        lines: list[str] = []
        for row, (line, _) in enumerate(_rows(self.file, self.layout)):
            if len(lines) == len(rows):
                break
            if row == rows[len(lines)]:
                lines.append(str(line))
        return "line " + ", ".join(lines)

    def explain(self, error: pa.ArrowInvalid) -> SessRecError:
        """Turn the error of a parser into one that names the line."""
        return _explained(error, self.file, self.layout)


def _layout(
    file: Path, columns: dict[str, str], separator: str | None, quoting: bool | None, column_names: Sequence[str] | None
) -> TextLayout:
    with open_text(file) as stream:
        head = stream.read(_HEAD)
    if b"\0" in head:
        raise SessRecError(f"{file} holds binary data, or text that is not UTF-8, where text was expected")
    text = head.decode("utf-8-sig", errors="surrogateescape")
    lines = list(io.StringIO(text, newline=""))  # str.splitlines would split at more than ends of lines
    n_blank = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    if n_blank == len(lines):
        raise SessRecError(f"{file} holds no text" + (f" in its first {len(head)} bytes" if head else ""))
    first = lines[n_blank].rstrip("\r\n").encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if separator is None:
        separator = _find_separator(first, columns, column_names)
    elif separator == "\\t":  # as typed in a shell
        separator = "\t"
    if len(separator) != 1 or not separator.isascii() or separator in '"\r\n':
        raise SessRecError(f"--data.separator must be one ASCII character that no text needs, got {separator!r}")
    if quoting is None:
        fields = [field.strip() for field in first.split(separator)]
        quoting = separator != "\t" or all(len(f) > 1 and f[0] == f[-1] == '"' for f in fields)
    found = _fields(first, separator, quoting)
    if column_names is None:
        names, n_skipped = [name.strip() for name in found], n_blank + 1
    else:
        names, n_skipped = list(column_names), n_blank
    _check_names(file, names, found, columns, separator, column_names is not None)
    used = set(columns.values())
    # columns that nobody wants may be called alike
    names = [name if name in used else f"{name} (column {number})" for number, name in enumerate(names, 1)]
    skipped = sum(len(line.encode("utf-8", "surrogateescape")) for line in lines[:n_skipped])
    skipped += len(_BOM) if head.startswith(_BOM) else 0
    return TextLayout(names, separator, quoting, n_skipped, skipped)


def _fields(line: str, separator: str, quoting: bool) -> list[str]:
    if not quoting:
        return line.split(separator)
    return [field.strip().strip('"') for field in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]


def _find_separator(first: str, columns: dict[str, str], column_names: Sequence[str] | None) -> str:
    def n_found(separator: str) -> tuple[bool, int, int]:
        names = [name.strip().strip('"') for name in first.split(separator)]
        fits = column_names is not None and len(names) == len(column_names) > 1
        return fits, len(set(names) & set(columns.values())), len(names)

    return max(_SEPARATORS, key=n_found)


def _check_names(
    file: Path, names: list[str], found: list[str], columns: dict[str, str], separator: str, is_headless: bool
) -> None:
    if is_headless:
        if len(found) != len(names):
            raise SessRecError(
                f"{file}: --data.column_names gives {len(names)} names, its first line has {len(found)} fields "
                f"(separated by {separator!r}): {', '.join(found)}"
            )
        if [field.strip() for field in found] == names:
            raise SessRecError(f"{file} has a header: leave out --data.column_names")
    check_columns(file, names, columns, "first line", f" (separated by {separator!r})")


def check_columns(file: Path, names: Sequence[str], columns: dict[str, str], place: str, how: str = "") -> None:
    """Refuse a file that lacks a wanted column or has it twice.

    Args:
        file: The file.
        names: Names of its columns.
        columns: Name of each wanted column, by its role.
        place: Where the names were found.
        how: How they were told apart.

    Raises:
        SessRecError: With the names wanted and found, and the options to set.
    """
    twice = [name for name in columns.values() if list(names).count(name) > 1]
    if twice:
        raise SessRecError(f"{file} has more than one column {', '.join(twice)}")
    missing = {role: name for role, name in columns.items() if name not in names}
    if not missing:
        return
    options = ", ".join(f"--data.{role}_column" for role in missing)
    shown = ", ".join(name if name.isprintable() and len(name) < 60 else f"{name[:40]!r}..." for name in names[:50])
    message = f"{file} has no column {', '.join(missing.values())}; its {place} gives {shown}{how}: "
    if how and any(_looks_like_data(name) for name in names):
        message += (
            "it looks like data: if the file has no header, name its columns in order, like --data.column_names [...,"
            f"{','.join(columns.values())}]"
        )
    else:
        message += f"set {options}"
        if "time" in missing:
            message += ", or --data.time_column null where the log has no times"
    raise SessRecError(message)


def _looks_like_data(text: str) -> bool:
    """Whether a text is a number or a time, as no name of a column is."""
    if _DATE.match(text):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def _rows(file: Path, layout: TextLayout) -> Iterator[tuple[int, list[str]]]:
    """Fields of each row that is not blank, with the line on which it ends."""
    with io.TextIOWrapper(open_text(file), encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        for _ in range(layout.n_skipped_lines):
            stream.readline()
        reader = csv.reader(
            stream, delimiter=layout.separator, quoting=csv.QUOTE_MINIMAL if layout.quoting else csv.QUOTE_NONE
        )
        for row in reader:
            if row:
                yield layout.n_skipped_lines + reader.line_num, row


def _checked_stream(file: Path, layout: TextLayout, newlines_in_values: bool) -> QuoteCheckedStream:
    skip = layout.n_skipped_bytes if layout.quoting else 1 << 62
    return QuoteCheckedStream(file, layout.separator, skip, newlines_in_values)


def _as_one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], pa.string())])


def _explained(error: pa.ArrowInvalid, file: Path, layout: TextLayout) -> SessRecError:
    """Find the line that the reader stumbled over."""
    stream = _checked_stream(file, layout, newlines_in_values=True)
    try:
        while stream.read(_BLOCK):
            pass
        stream.finish()
    except SessRecError as of_quotes:
        return of_quotes
    finally:
        stream.close()
    for line, row in _rows(file, layout):
        if len(row) != len(layout.names):
            shown = layout.separator.join(row)[:80].encode("utf-8", "replace").decode()
            return SessRecError(
                f"{file}, line {line}: {len(row)} fields in place of {len(layout.names)}: {shown!r}; mend or remove it"
            )
        for name, field in zip(layout.names, row, strict=True):
            if any("\ud800" <= character <= "\udfff" for character in field):
                shown = field.encode("utf-8", "replace").decode()
                return SessRecError(
                    f"{file}, line {line}: {name} {shown!r} is not UTF-8; save the file as UTF-8, for example by "
                    "iconv -f latin1 -t utf-8"
                )
    return SessRecError(f"cannot read {file}: {' '.join(str(error).split())[:300]}")
