"""Tables for people: in Markdown that can be read as it stands, and in HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple


def seconds_text(seconds: float | None) -> str:
    """A time as tables show it.

    Example:
        >>> seconds_text(1.2345), seconds_text(999.7), seconds_text(1234.5), seconds_text(None)
        ('1.23 s', '1,000 s', '1,234 s', '-')
    """
    return "-" if seconds is None else f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


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

    def html(self) -> str:
        """The table in HTML."""
        lines = [f"<tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in self.head)}</tr>"]
        lines += [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows]
        return f"<table>{''.join(lines)}</table>"
