"""Figures of a roll: each model's metric over time, and against the model's age."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

import numpy as np
from matplotlib import rc_context
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sessrec.evaluation.bootstrap import Interval
from sessrec.figures.style import STYLE, look


@rc_context(STYLE)
def over_time_figure(cuts: Sequence[float], values: Mapping[str, np.ndarray], metric: str) -> Figure:
    """Draw each model's metric in each window.

    Args:
        cuts: Time of each cut, in Unix seconds.
        values: Metric in each window by model, the best first.
        metric: Name of the metric.
    """
    figure = Figure(figsize=(8, 4.6))
    axes = figure.subplots()
    times = [datetime.fromtimestamp(cut, tz=timezone.utc) for cut in cuts]
    for number, (name, own) in enumerate(values.items()):
        axes.plot(times, own, label=name, markersize=5, **look(number))  # type: ignore[arg-type]
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_xlabel("cut: training ends, the test begins")
    axes.set_ylabel(metric)
    axes.set_title("Over time")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


@rc_context(STYLE)
def against_age_figure(losses: Mapping[str, Sequence[Interval]], metric: str, step: str) -> Figure:
    """Draw what each model's metric loses with its age, with intervals.

    Args:
        losses: Share lost at each age from 0 by model, the best first.
        metric: Name of the metric.
        step: Length of a step, as the user gives it.
    """
    figure = Figure(figsize=(8, 4.6))
    axes = figure.subplots()
    for number, (name, own) in enumerate(losses.items()):
        ages = np.arange(len(own))
        style = look(number)
        axes.plot(ages, [-100 * one.value for one in own], label=name, markersize=5, **style)
        low, high = ([-100 * limit for limit in limits] for limits in zip(*(one[1:] for one in own), strict=True))
        axes.fill_between(ages, low, high, alpha=0.12, color=style["color"], linewidth=0)
    axes.axhline(0, color="#000000", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"age of the model, in steps of {step}")
    axes.set_ylabel(f"{metric} against a fresh model, %")
    axes.set_title("Against the model's age")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure
