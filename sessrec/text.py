"""Numbers, times and tables as text for people."""

from __future__ import annotations

import io
import statistics
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import NamedTuple


def seconds_text(seconds: float | None) -> str:
    """A time as tables show it.

    Example:
        >>> seconds_text(1.2345), seconds_text(999.7), seconds_text(1234.5), seconds_text(None)
        ('1.23 s', '1,000 s', '1,234 s', '-')
    """
    return "-" if seconds is None else f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


def counted(number: int, noun: str) -> str:
    """A number and what it counts.

    Example:
        >>> counted(1, "row"), counted(2000, "row")
        ('1 row', '2,000 rows')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def date_text(t: float) -> str:
    """A time as a date; as the number that it is where it is no time of any click log.

    Example:
        >>> date_text(1396867869.0), date_text(486026.0)
        ('2014-04-07 10:51:09 UTC', '486026')
    """
    if not 1e8 < t < 1e11:
        return f"{t:.15g}"
    return f"{datetime.fromtimestamp(t, tz=timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def spread_text(values: Sequence[float], digits: int = 4) -> str:
    """Mean of some numbers, and their range where there are several.

    Example:
        >>> spread_text([0.25]), spread_text([1, 2], digits=1), spread_text([])
        ('0.2500', '1.5 (1.0 - 2.0)', '-')
    """
    if not values:
        return "-"
    spread = f" ({min(values):.{digits}f} - {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def time_text(t: float) -> str:
    """A time as the log has it, and as a date where it is one.

    Example:
        >>> time_text(1396867869.0), time_text(486026.0)
        ('1396867869 (2014-04-07 10:51:09 UTC)', '486026')
    """
    number, date = f"{t:.15g}", date_text(t)
    return number if date == number else f"{number} ({date})"


class Table(NamedTuple):
    """A table of text.

    Example:
        >>> table = Table(["model", "MRR@20"], [["markov", "0.2144"]])
        >>> print(table.markdown())
        | model  | MRR@20 |
        |:-------|-------:|
        | markov | 0.2144 |
    """

    head: Sequence[str]
    """Names of the columns; all but the first are set to the right."""
    rows: Sequence[Sequence[str]]
    """Cells."""

    def markdown(self) -> str:
        """The table in Markdown."""
        head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in (self.head, *self.rows)]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            " | ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in (head, *rows)
        ]
        rule = "|".join([":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])])
        return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])


def escape_on_console() -> None:
    """Have standard output and error escape what their encoding lacks; files are written in UTF-8 whatever it is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
