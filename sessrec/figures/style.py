"""The one style of all pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from sessrec.writing import atomic_write

COLOURS = {"train": "#0072B2", "val": "#E69F00", "test": "#D55E00"}
"""Colours of the parts of a log; people with any colour vision tell them apart (Okabe and Ito, 2008)."""
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Colours of models, in the order in which they are given out, of the same kind."""
MARKERS = "osD^vPX*"
LINES = ("-", "--", "-.", ":")
"""Markers and lines of models, so that colour is never all that tells them apart."""
STYLE: Any = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,  # inches at the edges and between panels
    "figure.constrained_layout.h_pad": 0.08,
    "savefig.dpi": 150,
    "svg.hashsalt": "sessrec",  # the same picture is the same file
}


def look(number: int) -> Any:
    """Colour, line and marker of the model with this number in a picture."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "linestyle": LINES[number // len(PALETTE) % len(LINES)],
        "marker": MARKERS[(number + number // len(PALETTE)) % len(MARKERS)],
    }


def save_figure(figure: Figure, file: Path) -> None:
    """Write a picture to a ``.png`` or ``.svg`` file, whole or not at all."""
    with atomic_write(file) as temporary:
        temporary.write_bytes(figure_bytes(figure, file.suffix[1:]))


def save_figures(figures: Mapping[str, Figure], folder: Path) -> list[str]:
    """Write pictures, by their names, as PNG and SVG; gives the names of the files."""
    files = {f"{name}.{kind}": figure for name, figure in figures.items() for kind in ("png", "svg")}
    for file, figure in files.items():
        save_figure(figure, folder / file)
    return list(files)


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """A picture as the bytes of a file of a kind, ``png`` or ``svg``."""
    stream = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(stream, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return stream.getvalue()
