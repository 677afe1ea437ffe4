"""Pictures of tested runs: comparison with intervals, curves over the cutoff, slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sessrec.evaluation.bootstrap import interval
from sessrec.evaluation.comparison import Comparison, pooled_means
from sessrec.evaluation.rank_table import gains, metric_name
from sessrec.evaluation.slices import Slices
from sessrec.evaluation.tested_runs import Run
from sessrec.figures.style import PALETTE, STYLE, look

_N_RESAMPLES = 400  # for the bands of curves and slices


@rc_context(STYLE)
def comparison_figure(comparison: Comparison) -> Figure:
    """Metrics of all models with their intervals, one panel a metric, the best model on top."""
    metrics, names = list(comparison.models[0].metrics), [model.name for model in comparison.models]
    figure = Figure(figsize=(4.2 * len(metrics) + 1.2, 1.3 + 0.34 * len(names)))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    places = np.arange(len(names))[::-1]
    for metric, axes in zip(metrics, panels, strict=True):
        for place, model in zip(places, comparison.models, strict=True):
            found = model.metrics[metric]
            axes.plot([found.low, found.high], [place, place], color=PALETTE[0], linewidth=2)
            axes.plot(found.value, place, "o", color=PALETTE[0], markersize=5)
        axes.set_title(metric_name(metric))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.margins(y=0.06)
    panels[0].set_yticks(places, names)
    figure.supxlabel(f"mean and {comparison.level:.0%} interval", fontsize=10)
    return figure


@rc_context(STYLE)
def cutoff_curves(models: Mapping[str, Sequence[Run]], metric: str) -> Figure:
    """A metric against the length of the list, with bands of 95 %.

    Args:
        models: Runs of each model.
        metric: ``recall``, ``mrr`` or ``ndcg``.
    """
    cutoffs = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50)
    figure = Figure(figsize=(8, 4.8))
    axes = figure.subplots()
    bands = _bands(models, [f"{metric}@{k}" for k in cutoffs])
    _draw_bands(axes, cutoffs, dict(sorted(bands.items(), key=lambda item: -item[1][0][-1])))
    axes.set_xscale("log")
    axes.set_xticks(cutoffs, [str(k) for k in cutoffs])
    axes.minorticks_off()
    axes.set_xlabel("K, length of the list")
    axes.set_ylabel(f"{metric_name(metric)}@K")
    axes.set_title(f"{metric_name(metric)}@K with 95 % bands")
    figure.legend(frameon=False, loc="outside right upper")
    return figure


@rc_context(STYLE)
def slices_figure(models: Mapping[str, Sequence[Run]], metric: str, slices: Slices) -> Figure:
    """A metric in every slice, one panel a kind of slice, with 95 % intervals.

    Args:
        models: Runs of each model.
        metric: A metric such as ``mrr@20``.
        slices: How positions are told apart.
    """
    slicings = slices.of(next(iter(models.values()))[0].ranks)
    n_rows = -(-(len(slicings) + 1) // 3)  # one panel for the legend
    figure = Figure(figsize=(11, 3.2 * n_rows + 0.4))
    panels = figure.subplots(n_rows, 3, squeeze=False).ravel()
    for slicing, axes in zip(slicings, panels, strict=False):
        parts = {label: slicing.codes == number for number, label in enumerate(slicing.labels)}
        parts = {f"{label}\n({part.sum():,})": part for label, part in parts.items() if part.any()}
        _draw_bands(axes, range(len(parts)), _bands(models, [metric], list(parts.values())))
        axes.set_xticks(range(len(parts)), list(parts), fontsize=9)
        axes.set_title(f"by {slicing.name}")
        axes.margins(x=0.08)
    for axes in panels[len(slicings) :]:
        axes.set_axis_off()
    figure.suptitle(f"{metric_name(metric)} of kinds of positions (their number), with 95 % bands")
    handles, labels = panels[0].get_legend_handles_labels()
    panels[-1].legend(handles, labels, frameon=False, loc="center", ncols=-(-len(labels) // 9))
    return figure


def _bands(
    models: Mapping[str, Sequence[Run]], metrics: Sequence[str], inside: Sequence[np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Value, low and high of each model by metric, or of one metric by slice, shape (3, metrics or slices)."""

    def values_of(run: Run) -> list[np.ndarray]:
        values = [gains(run.ranks.rank, metric) for metric in metrics]
        return values if inside is None else values * len(inside)

    found = pooled_means(models, values_of, inside, _N_RESAMPLES)
    return {name: np.array([interval(mean) for mean in means]).T for name, means in found.items()}


def _draw_bands(axes: Axes, places: Sequence[int], bands: Mapping[str, np.ndarray]) -> None:
    """Draw a line and a band for each model."""
    for number, (name, (value, low, high)) in enumerate(bands.items()):
        line = look(number)
        axes.plot(places, value, markersize=4, label=name, **line)
        axes.fill_between(places, low, high, color=line["color"], alpha=0.12, linewidth=0)
    axes.set_ylim(bottom=0)
