"""The canvas that the explaining pictures are drawn on."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.patches import Rectangle

MARGIN, GAP, LINE, CELL = 0.25, 0.3, 0.175, 0.82
"""Around a picture, between boxes, from line to line, and the width of a cell that holds an item id."""

Box = tuple[str, Sequence[str], str]  # name, lines and colour
Cell = str | tuple[str, str]  # words, with a colour if they are an item


def short_id(item_id: str) -> str:
    """An item id in at most nine letters: an ellipsis stands for its middle, as ids often differ at their ends."""
    words = item_id if len(item_id) <= 9 else f"{item_id[:4]}…{item_id[-4:]}"
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)


class Drawing:
    """A canvas of a fixed width that grows downwards, below a title."""

    def __init__(self, width: float, title: str) -> None:
        self.width = width
        # no layout: what is placed here stays; "none" would become the style's engine when the figure is saved
        self.figure = Figure(figsize=(width, 1), layout=PlaceHolderLayoutEngine(True, True))
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width))
        self.axes.set_axis_off()
        lines = textwrap.wrap(title, int(9 * width))
        self.bottom = MARGIN + 0.22 * len(lines)
        self.text(width / 2, MARGIN, "\n".join(lines), 12, weight="bold", va="top")

    def text(self, x: float, y: float, words: str, size: float = 9, **look: Any) -> None:
        """Write text around a place."""
        look = {"ha": "center", "va": "center", "linespacing": 1.3, **look}
        self.axes.text(x, y, words, fontsize=size, parse_math=False, **look)  # an id may hold dollar signs

    def note(self, words: str) -> None:
        """Write a paragraph below all that was drawn."""
        lines = textwrap.wrap(words, int(14 * (self.width - 2 * MARGIN)))
        self.text(MARGIN, self.bottom + 0.12, "\n".join(lines), ha="left", va="top")
        self.bottom += 0.12 + LINE * len(lines)

    def cells(self, left: float, widths: Sequence[float], row: Sequence[Cell], height: float, **look: Any) -> None:
        """Draw a row of cells below all that was drawn."""
        for cell, width in zip(row, widths, strict=True):
            words, colour = (cell, "") if isinstance(cell, str) else cell
            if colour:
                place, fill = (left, self.bottom), to_rgba(colour, 0.4)
                self.axes.add_patch(Rectangle(place, width, height, facecolor=fill, edgecolor="white", linewidth=2))
            look["family"] = "monospace" if colour else None
            self.text(left + width / 2, self.bottom + height / 2, words, **look)
            left += width
        self.bottom += height

    def columns(self, n_columns: int, inset: float = 0.0) -> tuple[list[float], float]:
        """Middles of columns beside each other, and their width."""
        width = (self.width - 2 * MARGIN - 2 * inset - (n_columns - 1) * GAP) / n_columns
        return [MARGIN + inset + width / 2 + number * (width + GAP) for number in range(n_columns)], width

    def row(self, boxes: Sequence[Box | None], above: Sequence[float] = (), inset: float = 0.0) -> float:
        """Draw boxes beside each other below all that was drawn, with arrows from above; the height of their middle."""
        middles, width = self.columns(len(boxes), inset)
        for x in above:
            self.arrow((x, self.bottom), (x, self.bottom + GAP))
        texts = [
            [line for words in box[1] for line in textwrap.wrap(words, int(15 * width))] if box else [] for box in boxes
        ]
        top, height = self.bottom + GAP, 0.35 + LINE * max(map(len, texts))
        for x, box, lines in zip(middles, boxes, texts, strict=True):
            if box:
                place, colour = (x - width / 2, top), to_rgba(box[2], 0.25)
                self.axes.add_patch(Rectangle(place, width, height, facecolor=colour, edgecolor=box[2]))
                self.text(x, top + 0.17, box[0], 10, weight="bold")
                self.text(x, top + 0.28, "\n".join(lines), va="top")
        self.bottom = top + height
        return top + height / 2

    def arrow(self, start: tuple[float, float], end: tuple[float, float], **look: Any) -> None:
        """Draw an arrow."""
        self.axes.annotate(
            "", end, start, arrowprops={"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0, **look}
        )

    def finished(self) -> Figure:
        """The figure, as high as what was drawn."""
        self.figure.set_size_inches(self.width, self.bottom + MARGIN)
        self.axes.set_ylim(self.bottom + MARGIN, 0)
        return self.figure
