"""Figures of a study: its history, the importance of its options, and each option against the metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from sessrec.figures.style import PALETTE, STYLE

_LEAST_TRIALS = 10
"""Trials below which an importance says nothing."""


@rc_context(STYLE)
def history_figure(values: Mapping[int, tuple[float, bool]], default: float | None, metric: str) -> Figure:
    """Draw the value of each trial, and the best so far.

    Args:
        values: By the trial's number, its value and whether it was complete.
        default: Value of the default options.
        metric: Name of the metric.
    """
    figure = Figure(figsize=(8, 4.4))
    axes = figure.subplots()
    for is_complete, name, colour, marker in (
        (True, "complete", PALETTE[0], "o"),
        (False, "stopped early", PALETTE[7], "x"),
    ):
        shown = {number: value for number, (value, whole) in values.items() if whole == is_complete}
        if shown:
            axes.scatter(list(shown), list(shown.values()), s=28, label=name, zorder=3, color=colour, marker=marker)
    complete = sorted((number, value) for number, (value, whole) in values.items() if whole)
    best = np.maximum.accumulate([value for _, value in complete])
    axes.step([number for number, _ in complete], best, where="post", color=PALETTE[1], label="best so far")
    if default is not None:
        axes.axhline(default, color="#000000", linestyle="--", linewidth=1, label="default options")
    axes.set_xlabel("trial")
    axes.set_ylabel(metric)
    axes.set_title("History of the study")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


@rc_context(STYLE)
def importance_figure(study: optuna.Study) -> Figure | None:
    """Draw how much of the metric each option accounts for (PED-ANOVA); None with too few trials to say.

    Options that are tried only with some values of others are left out, as no number holds for all trials.
    """
    trials = _complete(study)
    if len(trials) < _LEAST_TRIALS or len({trial.value for trial in trials}) < 2:
        return None
    common = [
        name
        for name in dict.fromkeys(name for trial in trials for name in trial.params)
        if all(name in trial.params for trial in trials) and len({trial.params[name] for trial in trials}) > 1
    ]
    if len(common) < 2:
        return None
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=common)
    ranked = sorted(found.items(), key=lambda item: item[1])
    figure = Figure(figsize=(7, 1.2 + 0.38 * len(ranked)))
    axes = figure.subplots()
    axes.barh([name.partition(".")[2] for name, _ in ranked], [share for _, share in ranked], color=PALETTE[0])
    axes.set_xlabel("share of the importance")
    axes.set_title(f"Importance of the options ({len(trials)} trials)")
    return figure


@rc_context(STYLE)
def slices_figure(study: optuna.Study, metric: str) -> Figure | None:
    """Draw the value of each complete trial against each of its options; None where there is no option."""
    trials = _complete(study)
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    if not names:
        return None
    n_columns = min(4, len(names))
    n_rows = math.ceil(len(names) / n_columns)
    figure = Figure(figsize=(2.9 * n_columns + 0.8, 2.7 * n_rows + 0.5))
    panels = list(figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).flat)
    for axes, name in zip(panels, names, strict=False):
        _draw_slice(axes, name, [trial for trial in trials if name in trial.params])
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.supylabel(metric)
    figure.suptitle("Complete trials by option; darker ones are later")
    return figure


def _draw_slice(axes: Axes, name: str, trials: Sequence[FrozenTrial]) -> None:
    known = trials[-1].distributions[name]
    values = [trial.params[name] for trial in trials]
    if isinstance(known, CategoricalDistribution):
        choices = [choice for choice in known.choices if choice in values]
        axes.set_xticks(range(len(choices)), [str(choice) for choice in choices], rotation=30, ha="right", fontsize=9)
        axes.margins(x=0.15)
        values = [choices.index(value) for value in values]
    elif isinstance(known, (FloatDistribution, IntDistribution)) and known.log:
        axes.set_xscale("log")
    order = [trial.number for trial in trials]
    axes.scatter(values, [trial.value or 0.0 for trial in trials], c=order, cmap="Blues", s=22, vmin=-max(order) / 2)
    axes.set_title(name.partition(".")[2], fontsize=10)


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
