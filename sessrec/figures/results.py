"""Pictures of tested runs: comparison with intervals, curves over the cutoff, slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sessrec.evaluation.bootstrap import interval
from sessrec.evaluation.comparison import Comparison, pooled_means
from sessrec.evaluation.rank_table import gains, metric_name
from sessrec.evaluation.slices import Slices
from sessrec.evaluation.tested_runs import Run
from sessrec.figures.style import PALETTE, STYLE, look

_N_RESAMPLES = 400  # for the bands of curves and slices


def comparison_figure(comparison: Comparison) -> Figure:
    """Metrics of all models with their intervals, one panel a metric, the best model on top.

    Args:
        comparison: The comparison.
    """
    metrics = list(comparison.models[0].metrics)
    names = [model.name for model in comparison.models]
    with rc_context(STYLE):
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


def cutoff_curves(models: Mapping[str, Sequence[Run]], metric: str, most: int = 50) -> Figure:
    """A metric against the length of the list, with bands of 95 %.

    Args:
        models: Runs of each model.
        metric: ``recall``, ``mrr`` or ``ndcg``.
        most: Longest list.
    """
    cutoffs = [k for k in (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200) if k <= most]
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 4.8))
        axes = figure.subplots()
        found = _bands(models, [f"{metric}@{k}" for k in cutoffs])
        order = sorted(models, key=lambda name: -found[name][0][-1])
        for number, name in enumerate(order):
            value, low, high = found[name]
            axes.plot(cutoffs, value, markersize=4, label=name, **look(number))
            axes.fill_between(cutoffs, low, high, color=PALETTE[number % len(PALETTE)], alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        axes.set_xticks(cutoffs, [str(k) for k in cutoffs])
        axes.minorticks_off()
        axes.set_xlabel("K, length of the list")
        axes.set_ylabel(f"{metric_name(metric)}@K")
        axes.set_ylim(bottom=0)
        axes.set_title(f"{metric_name(metric)}@K with 95 % bands")
        figure.legend(frameon=False, loc="outside right upper")
    return figure


def slices_figure(models: Mapping[str, Sequence[Run]], metric: str, slices: Slices) -> Figure:
    """A metric in every slice, one panel a kind of slice, with 95 % intervals.

    Args:
        models: Runs of each model.
        metric: A metric such as ``mrr@20``.
        slices: How positions are told apart.
    """
    first = next(iter(models.values()))[0].ranks
    slicings = slices.of(first)
    with rc_context(STYLE):
        n_rows = -(-(len(slicings) + 1) // 3)  # one panel for the legend
        figure = Figure(figsize=(11, 3.2 * n_rows + 0.4))
        panels = figure.subplots(n_rows, 3, squeeze=False).ravel()
        for slicing, axes in zip(slicings, panels, strict=False):
            counts = np.array([(slicing.codes == number).sum() for number in range(len(slicing.labels))])
            shown = np.flatnonzero(counts)
            found = _bands(models, [metric], [slicing.codes == code for code in shown])
            for number, name in enumerate(models):
                value, low, high = found[name]
                label = name if axes is panels[0] else None
                axes.plot(range(len(shown)), value, markersize=4, label=label, **look(number))
                axes.fill_between(
                    range(len(shown)), low, high, color=PALETTE[number % len(PALETTE)], alpha=0.12, linewidth=0
                )
            labels = [f"{slicing.labels[code]}\n({counts[code]:,})" for code in shown]
            axes.set_xticks(range(len(shown)), labels, fontsize=9)
            axes.set_title(f"by {slicing.name}")
            axes.set_ylim(bottom=0)
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
