"""Training curves of runs, read from their TensorBoard files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from sessrec.callbacks.event_files import read_curves
from sessrec.figures.style import STYLE, look

_TITLES = {
    "train/loss": "training loss (mean of a window's pairs)",
    "val/recall@20": "validation Recall@20",
    "val/mrr@20": "validation MRR@20",
}


def training_figure(runs: Mapping[str, Path], tags: Mapping[str, str] | None = None) -> Figure | None:
    """Draw the curves of several runs, a panel for each that any of them has.

    Args:
        runs: Folder of each run, by its name.
        tags: Title of each panel by the tag of its curve; those of loss and validation metrics where None.

    Returns:
        The figure; None where no run has such a curve of more than one point.
    """
    tags = _TITLES if tags is None else tags
    curves = {name: read_curves(folder) for name, folder in runs.items()}
    shown = [tag for tag in tags if any(len(own.get(tag, ([], []))[0]) > 1 for own in curves.values())]
    if not shown:
        return None
    with rc_context(STYLE):
        figure = Figure(figsize=(min(11.0, 3.6 * len(shown) + 1.4), 3.8))
        panels = figure.subplots(1, len(shown), squeeze=False)[0]
        for number, (name, own) in enumerate(curves.items()):
            for tag, axes in zip(shown, panels, strict=True):
                steps, values = own.get(tag, (np.empty(0), np.empty(0)))
                if len(steps) > 1:
                    marker = "o" if len(steps) < 30 else None
                    axes.plot(steps, values, markersize=3.5, label=name, **{**look(number), "marker": marker})
        for tag, axes in zip(shown, panels, strict=True):
            axes.set_title(tags[tag], fontsize=11)
            axes.set_xlabel("optimiser steps")
        drawn = {
            text: handle for axes in panels for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(drawn.values(), drawn.keys(), frameon=False, loc="outside lower center", ncols=min(5, len(drawn)))
    return figure
