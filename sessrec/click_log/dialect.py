"""Find out how a delimited text is written: its separator, its quotes and the names of its columns."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sessrec.click_log.files import open_text
from sessrec.click_log.log_format import LogFormat
from sessrec.errors import SessRecError

_SEPARATORS = ("\t", ",", ";", "|", " ", "::")
_UNIT = "\x1f"  # the character that ASCII has for what is between two fields; no text has it
_BOM = codecs.BOM_UTF8
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
csv.field_size_limit(2**31 - 1)  # a long text in a column that nobody wants is no fault
_HEAD = 1 << 20  # bytes in which the header must be found


@dataclass(frozen=True)
class TextLayout:
    """How a delimited file is written, as its first line and the options tell."""

    names: list[str]
    """Names of all columns, in order."""
    separator: str
    delimiter: str
    """One character that stands for the separator where that is longer."""
    quoting: bool
    """Whether quotes enclose fields; else they are characters like others."""
    n_skipped_lines: int
    """Lines before the first row: blank ones and the header."""
    n_skipped_bytes: int


def find_layout(file: Path, log_format: LogFormat) -> TextLayout:
    """Tell the layout of a file from its first line and the options.

    Raises:
        SessRecError: If a column is missing or ambiguous, or this is no text.
    """
    columns, column_names = log_format.columns(), log_format.column_names
    separator, quoting = log_format.separator, log_format.quoting
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
    if not separator or not separator.isascii() or set(separator) & set('"\r\n'):
        raise SessRecError(f"--data.separator must be ASCII characters, without quotes or newlines, got {separator!r}")
    delimiter = separator if len(separator) == 1 else _UNIT
    if quoting is None:
        fields = [field.strip() for field in first.split(separator)]
        quoting = (separator == delimiter != "\t") or all(len(f) > 1 and f[0] == f[-1] == '"' for f in fields)
    found = _fields(first, separator, quoting)
    how = f" (separated by {separator!r})"
    if column_names is None:
        names, n_skipped = [name.strip() for name in found], n_blank + 1
    else:
        names, n_skipped = list(column_names), n_blank
        _check_given_names(file, names, found, how)
    check_columns(file, names, columns, "first line", how)
    # columns that nobody wants may be called alike
    names = [name if name in columns.values() else f"{name} (column {number})" for number, name in enumerate(names, 1)]
    skipped = sum(len(line.encode("utf-8", "surrogateescape")) for line in lines[:n_skipped])
    skipped += len(_BOM) if head.startswith(_BOM) else 0
    return TextLayout(names, separator, delimiter, quoting, n_skipped, skipped)


def _fields(line: str, separator: str, quoting: bool) -> list[str]:
    if not quoting:
        return line.split(separator)
    delimiter = separator if len(separator) == 1 else _UNIT
    fields = next(csv.reader([line.replace(separator, delimiter)], delimiter=delimiter, skipinitialspace=True))
    return [field.strip().strip('"') for field in fields]


def _find_separator(first: str, columns: dict[str, str], column_names: Sequence[str] | None) -> str:
    def n_found(separator: str) -> tuple[bool, int, int]:
        names = [name.strip().strip('"') for name in first.split(separator)]
        fits = column_names is not None and len(names) == len(column_names) > 1
        return fits, len(set(names) & set(columns.values())), len(names)

    return max(_SEPARATORS, key=n_found)


def _check_given_names(file: Path, names: list[str], found: list[str], how: str) -> None:
    if len(found) != len(names):
        raise SessRecError(
            f"{file}: --data.column_names gives {len(names)} names, its first line has {len(found)} fields{how}: "
            f"{', '.join(found)}"
        )
    if [field.strip() for field in found] == names:
        raise SessRecError(f"{file} has a header: leave out --data.column_names")


def check_columns(file: Path, names: Sequence[str], columns: dict[str, str], place: str, how: str = "") -> None:
    """Refuse a file that lacks a wanted column or has it twice.

    ``columns`` names what is wanted, by its role; ``place`` and ``how`` tell where ``names`` were found, and how.

    Raises:
        SessRecError: With the names wanted and found, and the options to set.
    """
    if twice := [name for name in columns.values() if list(names).count(name) > 1]:
        raise SessRecError(f"{file} has more than one column {', '.join(twice)}")
    missing = {role: name for role, name in columns.items() if name not in names}
    if not missing:
        return
    shown = ", ".join(name if name.isprintable() and len(name) < 60 else f"{name[:40]!r}..." for name in names[:50])
    message = f"{file} has no column {', '.join(missing.values())}; its {place} gives {shown}{how}: "
    if how and any(_looks_like_data(name) for name in names):
        message += (
            "it looks like data: if the file has no header, name its columns in order, like --data.column_names [...,"
            f"{','.join(columns.values())}]"
        )
    else:
        message += "set " + ", ".join(f"--data.{role}_column" for role in missing)
        if "time" in missing:
            message += ", or --data.time_column null where the log has no times"
    raise SessRecError(message)


def _looks_like_data(text: str) -> bool:
    """Whether a text is a number or a time, as no name of a column is."""
    with suppress(ValueError):
        float(text)
        return True
    return _DATE.match(text) is not None
