"""The picture of a sweep: metrics against the value that was swept, one line a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from sessrec.figures.style import MARKERS, PALETTE, STYLE

_CEILING_COLOUR = "#000000"
_LOGARITHMIC_FROM = 10  # greatest value over least
_CLOSEST_TICKS = 0.07  # of the axis' width

Metrics = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]


@rc_context(STYLE)
def sweep_figure(title: str, label: str, values: Sequence[float | str], metrics: Metrics, ceiling: str = "") -> Figure:
    """Draw metrics against the values of a sweep, a panel for each metric and a line for each model.

    Several results at one value are fits with several seeds: the line goes through their mean, and a band (bars on an
    axis of texts) reaches from the least to the greatest.

    Args:
        title: Title of the picture.
        label: What the values are, with their unit, below the axis.
        values: The values; texts stand side by side in the order given, numbers at their places.
        metrics: By the metric's name and the model's, the results at each value, none where there was no fit.
        ceiling: Name of the model that none can pass, drawn in black and dashed.
    """
    models = dict.fromkeys(model for by_model in metrics.values() for model in by_model if model != ceiling)
    palette = [colour for colour in PALETTE if colour != _CEILING_COLOUR]
    looks: dict[str, dict[str, Any]] = {
        model: {"color": palette[place % len(palette)], "marker": MARKERS[place % len(MARKERS)], "zorder": 3}
        for place, model in enumerate(models)
    }
    looks[ceiling] = {"color": _CEILING_COLOUR, "marker": ".", "linestyle": "--", "zorder": 2}
    figure = Figure(figsize=(9, 4.4))
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, (metric, by_model) in zip(panels, metrics.items(), strict=True):
        places = _lay_out(axes, values)
        for model, results in by_model.items():
            _draw_line(axes, places, results, isinstance(values[0], str), label=model, **looks[model])
        axes.set_ylim(0, 1.08 * axes.dataLim.y1 or 1)  # from 0: a small difference looks small
        axes.set_title(metric)
        axes.set_xlabel(label)
    figure.suptitle(title)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 5), frameon=False)
    return figure


def _lay_out(axes: Axes, values: Sequence[float | str]) -> np.ndarray:
    """Set the axis of the values up; gives the place of each value on it."""
    if isinstance(values[0], str):
        places = np.arange(len(values), dtype=float)
        names = [str(value).replace("+", "\n+ ") for value in values]
        is_crowded = max(len(name) for value in names for name in value.split("\n")) * len(values) > 50
        slanted: Any = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(places, names, **(slanted if is_crowded else {}))
        axes.margins(x=0.12)
        return places
    places = np.array([float(value) for value in values])
    if places.min() > 0 and places.max() / places.min() >= _LOGARITHMIC_FROM:
        axes.set_xscale("log")
    shown = _ticks(places, is_logarithmic=axes.get_xscale() == "log")
    axes.set_xticks(shown, [f"{place:,.15g}" for place in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    return places


def _ticks(places: np.ndarray, is_logarithmic: bool) -> list[float]:
    """The values at which there is room for a number, the greatest first of all."""
    scaled = np.log(places) if is_logarithmic else places
    width = max(float(np.ptp(scaled)), 1e-12)
    shown: list[int] = []
    for number in np.argsort(-scaled):
        if not shown or (scaled[shown[-1]] - scaled[number]) / width >= _CLOSEST_TICKS:
            shown.append(int(number))
    return [float(places[number]) for number in shown]


def _draw_line(
    axes: Axes, places: np.ndarray, results: Sequence[Sequence[float]], has_texts: bool, **look: Any
) -> None:
    """Draw a model's means, and the spread of its fits where there are several."""
    known = [number for number in np.argsort(places, kind="stable") if len(results[number])]
    at = places[known]
    mean, least, greatest = (np.array([f(results[number]) for number in known]) for f in (np.mean, np.min, np.max))
    axes.plot(at, mean, linewidth=1 if has_texts else 1.8, markersize=7, **look)
    if max((len(results[number]) for number in known), default=0) < 2:
        return
    if has_texts:
        spread = np.stack([mean - least, greatest - mean]).clip(min=0)
        axes.errorbar(at, mean, spread, fmt="none", ecolor=look["color"], capsize=4, zorder=3)
    else:
        axes.fill_between(at, least, greatest, color=look["color"], alpha=0.2, linewidth=0)
