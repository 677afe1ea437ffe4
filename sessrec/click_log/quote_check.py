"""Check the quotes of a delimited text while it is being read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sessrec.click_log.files import open_text
from sessrec.errors import SessRecError

_QUOTE, _NEWLINE, _RETURN = 34, 10, 13


class QuotedNewlineError(Exception):
    """A field in quotes spans lines, which the reader must be told in advance."""


class QuoteChecker:
    """Reads a text and refuses quotes which stand elsewhere than at the edges of a field.

    A reader of CSV takes a stray quote for the beginning of a field, and silently swallows what follows up to the next
    one, rows included. A file without any quote costs next to nothing here.

    Args:
        file: The text file, whatever its compression.
        separator: Character between the fields.
        skip: Bytes at the beginning that are not checked: the header.
        newlines_in_values: Whether a field in quotes may span lines.
    """

    def __init__(self, file: Path, separator: str, skip: int, newlines_in_values: bool = False) -> None:
        self._file = file
        self._edges = np.array([ord(separator), _NEWLINE, _RETURN], dtype=np.uint8)
        self._skip = skip
        self._held = b""  # a quote at the end of a block waits for the byte behind it
        self._before = _NEWLINE  # the byte before the block
        self._inside = False  # whether the block begins inside quotes
        self._offset = 0  # of the block, in the decompressed text
        self._newlines_in_values = newlines_in_values

    def blocks(self, size: int) -> Iterator[bytes]:
        """The whole text, checked, at most ``size`` bytes at a time.

        Raises:
            SessRecError: At the first stray quote, with its line; or at the end, if a quote is never closed.
            QuotedNewlineError: At the first field that spans lines, where none may.
        """
        bar = tqdm(desc=f"reading {self._file.name}", unit="B", unit_scale=True, delay=2, leave=False, disable=None)
        with open_text(self._file) as stream, bar:
            while block := stream.read(size):
                self._check(block)
                bar.update(len(block))
                yield block
        self._check(b"", is_last=True)
        if self._inside:
            raise SessRecError(f"{self._file}: a quote is never closed; close it, {_ADVICE}")

    def _check(self, block: bytes, is_last: bool = False) -> None:
        if self._skip:
            n_skipped = min(self._skip, len(block))
            self._skip -= n_skipped
            self._offset += n_skipped
            block = block[n_skipped:]
        block = self._held + block
        self._held = b""
        if not is_last and block.endswith(b'"'):
            block, self._held = block[:-1], b'"'
        if self._inside or b'"' in block:
            self._check_quotes(np.frombuffer(block + (self._held or b"\n"), dtype=np.uint8), len(block))
        if block:
            self._before = block[-1]
        self._offset += len(block)

    def _check_quotes(self, text: np.ndarray, length: int) -> None:
        """Check the quotes among the first ``length`` bytes; one more byte shows what is behind them."""
        quotes = np.flatnonzero(text[:length] == _QUOTE)
        opens = (np.arange(len(quotes)) + self._inside) % 2 == 0
        neighbour = np.where(opens, np.where(quotes > 0, text[quotes - 1], self._before), text[quotes + 1])
        # a doubled quote inside a field closes and opens again
        bad = quotes[~np.isin(neighbour, self._edges) & (neighbour != _QUOTE)]
        if len(bad):
            line = _line_of_offset(self._file, self._offset + int(bad[0]))
            raise SessRecError(
                f"{self._file}, line {line}: a quote stands inside a field; close or double it, {_ADVICE}"
            )
        newlines = np.flatnonzero(text[:length] == _NEWLINE)
        is_quoted = (np.searchsorted(quotes, newlines) + self._inside) % 2 == 1
        if is_quoted.any() and not self._newlines_in_values:
            raise QuotedNewlineError
        self._inside = bool((len(quotes) + self._inside) % 2)


_ADVICE = "or give --data.quoting false if quotes are ordinary characters in this log"


def _line_of_offset(file: Path, offset: int) -> int:
    """Number, from 1, of the line that holds a byte of a text file."""
    lines = 1
    with open_text(file) as stream:
        while offset > 0 and (block := stream.read(min(offset, 1 << 24))):
            lines += block.count(b"\n")
            offset -= len(block)
    return lines
