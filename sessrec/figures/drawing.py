"""Pictures made of boxes, arrows and text, laid out in inches."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.textpath import text_to_path

SIZE = 9.5
"""Points of the text in a picture; names of boxes are a little larger and notes a little smaller."""
MARGIN = 0.25
"""Inches around a picture."""
_LONGEST = 80  # letters of an id that are looked at
DARK, GREY = "#222222", "#777777"
"""Colours of text."""
GAP = 0.28
"""Inches between boxes, with room for an arrow."""
LINE = 1.3 / 72
"""Inches that a line of text takes for each point of its size."""


def text_width(words: str, size: float = SIZE, bold: bool = False) -> float:
    """Width of a line of text in inches, with a little to spare for the rounding of letters to pixels."""
    return 1.06 * size / 72 * _width_per_point(words, bold)


@lru_cache(maxsize=1 << 14)
def _width_per_point(words: str, bold: bool) -> float:
    font = FontProperties(size=100, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(words, font, False)[0] / 100


def printable(words: str) -> str:
    """An id without what would break a line or be invisible, and not longer than any picture is wide."""
    if len(words) > _LONGEST:
        words = words[: _LONGEST // 2] + "…" + words[-_LONGEST // 2 :]
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)


def shortened(words: str, width: float, size: float = SIZE, bold: bool = False) -> str:
    """An id as it fits into a width: an ellipsis stands for its middle, as ids often differ at their ends.

    Args:
        words: The id; what cannot be printed is replaced.
        width: Inches.
        size: Points.
        bold: Whether it is set in bold.
    """
    words = printable(words)
    if text_width(words, size, bold) <= width:
        return words
    shown = [words[: kept // 2] + "…" + words[len(words) - kept + kept // 2 :] for kept in range(len(words))]
    return shown[max(0, bisect_right(shown, width, key=lambda line: text_width(line, size, bold)) - 1)]


def wrapped(words: str, width: float, size: float = SIZE, bold: bool = False) -> list[str]:
    """Lines of at most the given width in inches and of like widths, broken at spaces that may be broken at.

    A word that is wider than that is shortened.
    """
    pieces = [shortened(word, width, size, bold) for word in words.split(" ") if word]
    filled = _filled(pieces, width, size, bold)
    for share in (0.5, 0.6, 0.7, 0.8, 0.9):  # the narrowest paragraph of no more lines has none of a single word
        narrow = _filled(pieces, share * width, size, bold)
        if len(narrow) == len(filled) and all(text_width(line, size, bold) <= width for line in narrow):
            return narrow
    return filled


def _filled(words: Sequence[str], width: float, size: float, bold: bool) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and text_width(f"{lines[-1]} {word}", size, bold) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def tint(colour: str, strength: float = 0.25) -> tuple[float, float, float]:
    """A colour thinned with white, light enough for dark text on it."""
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(colour))
    return red, green, blue


@dataclass(frozen=True)
class Box:
    """A rectangle in a drawing, in inches from the upper left corner."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Lower edge, below the upper one and so the greater number."""
        return self.top + self.height

    @property
    def centre(self) -> float:
        """Middle from left to right."""
        return self.left + self.width / 2

    @property
    def middle(self) -> float:
        """Middle from top to bottom."""
        return self.top + self.height / 2


class Drawing:
    """A picture made of boxes, arrows and text, in inches from its upper left corner; it grows downwards.

    Args:
        width: Width of the figure, inches.
        title: What the picture says.
    """

    def __init__(self, width: float, title: str) -> None:
        self.width = width
        self.lowest = MARGIN
        # no layout: what is placed here stays; "none" would become the style's engine when the figure is saved
        self.figure = Figure(figsize=(width, 1), layout=PlaceHolderLayoutEngine(True, True))
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(1, 0))
        self.axes.set_axis_off()
        lines = wrapped(title, width - 2 * MARGIN, size=12, bold=True)
        self.lowest = self.text(width / 2, MARGIN, lines, size=12, bold=True, align="center")

    def text(
        self,
        x: float,
        y: float,
        lines: Sequence[str],
        size: float = SIZE,
        bold: bool = False,
        align: str = "left",
        colour: str = DARK,
        rotation: float = 0,
    ) -> float:
        """Write some lines, the first of them just below y; the place below the last.

        Args:
            x: Left end, middle or right end of the lines, by ``align``.
            y: Their upper edge; of text that stands on its head or feet, the lower edge.
            lines: The lines, as wide as they are.
            size: Points.
            bold: Whether to set them in bold.
            align: ``left``, ``center`` or ``right``.
            colour: Colour of the letters.
            rotation: Degrees, counterclockwise.
        """
        below = y
        for line in lines:
            height = size * LINE
            place = y if rotation else below + height / 2
            self.axes.text(
                x,
                place,
                line,
                fontsize=size,
                fontweight="bold" if bold else "normal",
                color=colour,
                ha=align,
                va="bottom" if rotation else "center_baseline",
                rotation=rotation,
                parse_math=False,  # an id may hold dollar signs
            )
            below += height
        self.lowest = max(self.lowest, y if rotation else below)
        return below

    def rectangle(self, box: Box, colour: str, strength: float = 0.25, dashed: bool = False) -> None:
        """Draw a box with nothing in it."""
        line = "--" if dashed else "-"
        style = f"round,pad=0,rounding_size={min(0.06, box.height / 4)}"
        patch = FancyBboxPatch(
            (box.left, box.top),
            box.width,
            box.height,
            boxstyle=style,
            facecolor=tint(colour, strength),
            edgecolor=colour,
            linestyle=line,
            linewidth=1,
        )
        self.axes.add_patch(patch)
        self.lowest = max(self.lowest, box.bottom)

    def chip(self, box: Box, words: str, colour: str, strength: float = 0.25, bold: bool = False) -> None:
        """Draw a small box with an id in it, shortened where it is too long; dashed without a tint."""
        self.rectangle(box, colour, strength, dashed=not strength)
        line = shortened(words, box.width - 0.08, 9, bold)
        self.text(box.centre, box.middle - 9 * LINE / 2, [line], 9, bold, "center")

    def row(self, boxes: Sequence[tuple[float, float, str, Sequence[str], str]]) -> list[Box]:
        """Draw boxes of the same height beside each other, below all that was drawn.

        Args:
            boxes: Left edge, width, name, paragraphs and colour of each.
        """
        top = self.lowest + GAP
        texts = []
        for _, width, name, paragraphs, _ in boxes:
            lines = [line for words in paragraphs for line in wrapped(words, width - 0.2)]
            texts.append((wrapped(name, width - 0.2, SIZE + 1, bold=True), lines))
        heights = [0.14 + LINE * ((SIZE + 1) * len(names) + SIZE * len(lines)) for names, lines in texts]
        drawn = []
        for (left, width, _, _, colour), (names, lines), height in zip(boxes, texts, heights, strict=True):
            box = Box(left, top, width, max(heights))
            self.rectangle(box, colour)
            below = self.text(box.centre, top + 0.07 + (max(heights) - height) / 2, names, SIZE + 1, True, "center")
            self.text(box.centre, below, lines, align="center")
            drawn.append(box)
        return drawn

    def arrow(self, *places: tuple[float, float], dashed: bool = False, colour: str = DARK) -> None:
        """Draw an arrow through some places."""
        patch = FancyArrowPatch(
            path=Path(places),
            arrowstyle="-|>",
            mutation_scale=9,
            color=colour,
            linewidth=1.2,
            linestyle="--" if dashed else "-",
        )
        self.axes.add_patch(patch)

    def down(self, upper: Box, lower: Box, x: float | None = None) -> None:
        """Draw an arrow straight down from a box to one below it."""
        x = lower.centre if x is None else x
        self.arrow((x, upper.bottom), (x, lower.top))

    def finished(self) -> Figure:
        """The figure, as high as what was drawn."""
        height = self.lowest + MARGIN
        self.figure.set_size_inches(self.width, height)
        self.axes.set_ylim(height, 0)
        return self.figure
