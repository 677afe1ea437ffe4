"""Training curves of runs, read from their TensorBoard files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from sessrec.callbacks.event_files import read_curves
from sessrec.figures.style import STYLE, look

_TITLES = {
    "train/loss": "training loss (mean of a window's pairs)",
    "val/recall@20": "validation Recall@20",
    "val/mrr@20": "validation MRR@20",
}


@rc_context(STYLE)
def training_figure(runs: Mapping[str, Path]) -> Figure | None:
    """Draw the loss and the validation metrics of several runs, a panel for each that any of them has.

    Args:
        runs: Folder of each run, by its name.

    Returns:
        The figure; None where no run has such a curve of more than one point.
    """
    curves = {
        name: {tag: curve for tag, curve in read_curves(folder).items() if len(curve[0]) > 1}
        for name, folder in runs.items()
    }
    shown = [tag for tag in _TITLES if any(tag in own for own in curves.values())]
    if not shown:
        return None
    figure = Figure(figsize=(min(11.0, 3.6 * len(shown) + 1.4), 3.8))
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    drawn = {}  # for the legend, a line of each run
    for tag, axes in zip(shown, panels, strict=True):
        for number, (name, own) in enumerate(curves.items()):
            if tag in own:
                steps, values = own[tag]
                options = {**look(number), "marker": "o" if len(steps) < 30 else None}
                (line,) = axes.plot(steps, values, markersize=3.5, label=name, **options)
                drawn[name] = line
        axes.set_title(_TITLES[tag], fontsize=11)
        axes.set_xlabel("optimiser steps")
    figure.legend(drawn.values(), drawn.keys(), frameon=False, loc="outside lower center", ncols=min(5, len(drawn)))
    return figure
