"""What the kinds of text that a click log may be written in share: blocks of whole rows, and the lines of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sessrec.click_log.dialect import TextLayout
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.quote_check import checked_rows
from sessrec.text import counted

BLOCK = 1 << 23  # bytes that are parsed at a time
SHOWN = 5  # bad lines that are named


class TextSource:
    """A click log as text, plain or compressed; the classes below tell its layout, and parse it.

    Args:
        file: The file.
        log_format: How it is written.
    """

    layout: TextLayout
    a_row = ""
    """What a line must hold, for messages."""

    def __init__(self, file: Path, log_format: LogFormat) -> None:
        self.file = file
        self.columns = log_format.columns()
        self.drops_bad_lines = log_format.bad_lines == "drop"
        self._dropped: list[bytes | str] = []  # bad lines of a pass over the file

    def blocks(self, newlines_in_values: bool = False) -> Iterator[bytes]:
        """Whole rows of the file, some megabytes at a time.

        Raises:
            QuotedNewlineError: If a field in quotes spans lines, unless ``newlines_in_values``.
            SessRecError: If a quote is stray.
        """
        self._dropped = []
        rest = b""
        for block in checked_rows(self.file, self.layout, newlines_in_values, BLOCK):
            block = rest + block
            end = _end_of_rows(block, newlines_in_values)
            if end:
                yield block[:end]
            rest = block[end:]
        if rest:
            yield rest

    def bad_lines(self) -> tuple[int, str]:
        """Number of lines that the last pass over the file has dropped, and a note that names the first ones."""
        if not (n_dropped := len(self._dropped)):
            return 0, ""
        bad = (str(line) for line, row in self._rows() if self._is_bad(row))
        where = ", ".join(islice(bad, SHOWN)) + (", ..." if n_dropped > SHOWN else "")
        return n_dropped, f"{self.file}: {counted(n_dropped, 'line')} dropped: {self.a_row}, line {where}"

    def places(self, rows: Sequence[int]) -> str:
        """Lines of some rows, counted from 0 and ascending, for messages."""
        good = (line for line, row in self._rows() if not (self.drops_bad_lines and self._is_bad(row)))
        wanted = set(rows)
        return "line " + ", ".join(str(line) for row, line in enumerate(islice(good, rows[-1] + 1)) if row in wanted)

    def _rows(self) -> Iterator[tuple[int, Any]]:
        """Each row that is not blank, with the line on which it ends."""
        raise NotImplementedError

    def _is_bad(self, row: Any) -> bool:
        """Whether a row is one that the option to drop bad lines drops."""
        raise NotImplementedError


def _end_of_rows(block: bytes, newlines_in_values: bool) -> int:
    """Where the last whole row of a block ends that begins with a row; 0 where none does."""
    end = block.rfind(b"\n") + 1
    while newlines_in_values and block.count(b'"', 0, end) % 2:  # this newline stands in a field
        end = block.rfind(b"\n", 0, end - 1) + 1
    return end
