"""The picture of an audit."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from sessrec.evaluation.audits import Audit
from sessrec.evaluation.rank_table import metric_name
from sessrec.figures.style import PALETTE, STYLE, look


def audit_figure(audit: Audit) -> Figure:
    """Draw every model's way through the conditions, one panel a metric, with 95 % intervals.

    Args:
        audit: The audit.
    """
    if len(audit.conditions) == 1:
        return _bars(audit)
    places = np.arange(len(audit.conditions))
    with rc_context(STYLE):
        figure = Figure(figsize=(min(11.0, 4.3 * len(audit.values) + 2), 4.6))
        panels = figure.subplots(1, len(audit.values), squeeze=False)[0]
        names = sorted(next(iter(audit.values.values())), key=lambda name: -audit_value(audit, name))
        for (metric, by_model), axes in zip(audit.values.items(), panels, strict=True):
            for number, name in enumerate(names):
                value, low, high = np.array(by_model[name]).T
                axes.errorbar(
                    places,
                    value,
                    yerr=[np.maximum(0, value - low), np.maximum(0, high - value)],
                    markersize=5,
                    capsize=3,
                    label=name if axes is panels[0] else None,
                    **look(number),
                )
            axes.set_xticks(places, [condition.replace(" by ", "\nby ") for condition in audit.conditions], fontsize=10)
            axes.set_title(metric_name(metric))
            axes.set_ylim(bottom=0)
            axes.margins(x=0.12)
        figure.suptitle(audit.title)
        figure.legend(frameon=False, loc="outside right upper")
    return figure


def audit_value(audit: Audit, name: str) -> float:
    """A model's value of the first metric in the first condition."""
    return next(iter(audit.values.values()))[name][0].value


def _bars(audit: Audit) -> Figure:
    with rc_context(STYLE):
        names = sorted(next(iter(audit.values.values())), key=lambda name: audit_value(audit, name))
        figure = Figure(figsize=(min(11.0, 4.2 * len(audit.values) + 1.5), 1.4 + 0.36 * len(names)))
        panels = figure.subplots(1, len(audit.values), sharey=True, squeeze=False)[0]
        for (metric, by_model), axes in zip(audit.values.items(), panels, strict=True):
            value, low, high = np.array([by_model[name][0] for name in names]).T
            axes.barh(
                names,
                value,
                xerr=[np.maximum(0, value - low), np.maximum(0, high - value)],
                color=PALETTE[5],
                ecolor="black",
                capsize=3,
            )
            axes.set_title(metric_name(metric))
            axes.margins(x=0.12)
        figure.suptitle(audit.title)
    return figure
