"""Check the quotes of a delimited text while it is being read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sessrec.click_log.dialect import TextLayout
from sessrec.click_log.files import open_text
from sessrec.errors import SessRecError

_QUOTE, _NEWLINE, _RETURN = 34, 10, 13
_ADVICE = "or give --data.quoting false if quotes are ordinary characters in this log"


class QuotedNewlineError(Exception):
    """A field in quotes spans lines, which the reader must be told in advance."""


def checked_rows(file: Path, layout: TextLayout, newlines_in_values: bool, size: int) -> Iterator[bytes]:
    """The text behind the header, about ``size`` bytes at a time, where no quote stands but at the edges of a field.

    A reader of CSV takes a stray quote for the beginning of a field, and silently swallows what follows up to the next
    one, rows included. A file without any quote costs next to nothing here.

    Raises:
        SessRecError: At the first stray quote, with its line; or at the end, if a quote is never closed.
        QuotedNewlineError: At the first field that spans lines, unless ``newlines_in_values``.
    """
    offset, before, is_inside = 0, b"\n", False  # of the block: its place, the byte before it, whether in quotes
    bar = tqdm(desc=f"reading {file.name}", unit="B", unit_scale=True, delay=2, leave=False, disable=None)
    with open_text(file) as stream, bar:
        while block := stream.read(size):
            while layout.quoting and block.endswith(b'"') and (more := stream.read(1)):  # what is behind must be known
                block += more
            bar.update(len(block))
            rows = block[max(0, layout.n_skipped_bytes - offset) :]
            offset += len(block)
            if layout.quoting and (is_inside or b'"' in rows):
                text = np.frombuffer(before + rows + b"\n", dtype=np.uint8)
                stray, has_newline, is_inside = _check_quotes(text, layout.separator, is_inside)
                if len(stray):
                    line = _line_of_offset(file, offset - len(rows) + int(stray[0]) - 1)
                    raise SessRecError(
                        f"{file}, line {line}: a quote stands inside a field; close or double it, {_ADVICE}"
                    )
                if has_newline and not newlines_in_values:
                    raise QuotedNewlineError
            before = rows[-1:] or before
            yield rows
    if is_inside:
        raise SessRecError(f"{file}: a quote is never closed; close it, {_ADVICE}")


def _check_quotes(text: np.ndarray, separator: str, is_inside: bool) -> tuple[np.ndarray, bool, bool]:
    """Places of stray quotes, whether a newline stands in quotes, and whether the text ends in quotes.

    The first and the last byte are no part of the text, but show what is around it.
    """
    quotes = np.flatnonzero(text == _QUOTE)
    opens = (np.arange(len(quotes)) + is_inside) % 2 == 0
    neighbour = text[np.where(opens, quotes - 1, quotes + 1)]
    # a doubled quote inside a field closes and opens again
    stray = quotes[~np.isin(neighbour, (*separator.encode(), _NEWLINE, _RETURN, _QUOTE))]
    newlines = np.flatnonzero(text[1:-1] == _NEWLINE) + 1
    is_quoted = (np.searchsorted(quotes, newlines) + is_inside) % 2 == 1
    return stray, bool(is_quoted.any()), bool((len(quotes) + is_inside) % 2)


def _line_of_offset(file: Path, offset: int) -> int:
    """Number, from 1, of the line that holds a byte of a text file."""
    lines = 1
    with open_text(file) as stream:
        while offset > 0 and (block := stream.read(min(offset, 1 << 24))):
            lines += block.count(b"\n")
            offset -= len(block)
    return lines
