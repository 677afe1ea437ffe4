"""The picture of an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sessrec.evaluation.audits import Audit, TrialScores
from sessrec.evaluation.bootstrap import Interval
from sessrec.evaluation.rank_table import metric_name
from sessrec.figures.style import PALETTE, STYLE, look


@rc_context(STYLE)
def audit_figure(audit: Audit) -> Figure:
    """Draw every model's way through the conditions, one panel a metric, with 95 % intervals; bars of one condition."""
    n_metrics, is_one = len(audit.values), len(audit.conditions) == 1
    by_first_metric = next(iter(audit.values.values()))
    names = sorted(by_first_metric, key=lambda name: -by_first_metric[name][0].value)
    size = (4.2 * n_metrics + 1.5, 1.4 + 0.36 * len(names)) if is_one else (4.3 * n_metrics + 2, 4.6)
    figure = Figure(figsize=(min(11.0, size[0]), size[1]))
    panels = figure.subplots(1, n_metrics, sharey=is_one, squeeze=False)[0]
    for (metric, by_model), axes in zip(audit.values.items(), panels, strict=True):
        draw = _draw_bars if is_one else _draw_lines
        draw(axes, {name: by_model[name] for name in names}, audit.conditions)
        axes.set_title(metric_name(metric))
        axes.margins(x=0.12)
    figure.suptitle(audit.title)
    if not is_one:
        figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside right upper")
    return figure


def _draw_lines(axes: Axes, intervals: dict[str, list[Interval]], conditions: list[str]) -> None:
    for number, (name, of_model) in enumerate(intervals.items()):
        value, low, high = np.array(of_model).T
        errors = np.maximum(0, [value - low, high - value])
        axes.errorbar(range(len(value)), value, errors, markersize=5, capsize=3, label=name, **look(number))
    axes.set_xticks(range(len(conditions)), [name.replace(" by ", "\nby ") for name in conditions], fontsize=10)
    axes.set_ylim(bottom=0)


def _draw_bars(axes: Axes, intervals: dict[str, list[Interval]], conditions: list[str]) -> None:
    names = [*intervals][::-1]  # the best one on top
    value, low, high = np.array([intervals[name][0] for name in names]).T
    errors = np.maximum(0, [value - low, high - value])
    axes.barh(names, value, xerr=errors, color=PALETTE[5], ecolor="black", capsize=3)


@rc_context(STYLE)
def trials_figure(trials: Mapping[str, Sequence[TrialScores]], metric: str) -> Figure:
    """Draw validation against test of trials, one kind of point a model, with a ring around each chosen one.

    Args:
        trials: By model, its trials, the chosen one first.
        metric: Metric of both.
    """
    figure = Figure(figsize=(7.5, 5))
    axes = figure.subplots()
    for number, (name, own) in enumerate(trials.items()):
        _, validation, test = np.array(own).T
        axes.scatter(validation, test, s=22, label=name, **{**look(number), "linestyle": "none"})
        axes.scatter(validation[:1], test[:1], s=110, facecolors="none", edgecolors="black", zorder=4)
    low, high = (end([*axes.get_xlim(), *axes.get_ylim()]) for end in (min, max))
    axes.plot([low, high], [low, high], color="#000000", linestyle="--", linewidth=1)
    axes.set_xlabel(f"{metric_name(metric)}, validation")
    axes.set_ylabel(f"{metric_name(metric)}, test")
    axes.set_title("Trials of each study; ringed: the chosen one")
    figure.legend(frameon=False, loc="outside right upper")
    return figure
