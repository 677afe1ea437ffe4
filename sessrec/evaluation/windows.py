"""Means over windows of time, differences between models over windows, and what a model loses with its age.

A window is one draw from the time in which models are used: its mean differs from the true one because of the sessions
in it and because of its days. Both are in the variance between the windows' means, so that Student's interval of these
takes both into account, as that of clusters does. Windows must not share sessions.

References:
    Liang and Zeger, "Longitudinal Data Analysis Using Generalized Linear Models", Biometrika, 1986 (clusters);
    Cochran, "Sampling Techniques", 1977, chapter 6 (the variance of a ratio); Kendall and Babington Smith, "The Problem
    of m Rankings", Annals of Mathematical Statistics, 1939.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

from sessrec.evaluation.bootstrap import Difference, Interval


def mean_over_windows(values: np.ndarray, level: float = 0.95) -> Interval:
    """Mean over windows with Student's interval; NaN limits where there is one window.

    Args:
        values: A metric in each window, shape (W,).
        level: Share of cases in which the interval holds the true mean.

    Example:
        >>> str(mean_over_windows(np.array([0.2, 0.3, 0.4])))
        '0.3000 [0.0516, 0.5484]'
    """
    return Interval(float(values.mean()), *_limits(float(values.mean()), _error(values), len(values), level))


def difference_over_windows(values: np.ndarray, others: np.ndarray, level: float = 0.95) -> Difference:
    """Paired difference of two models' means over the same windows, with Student's interval and p value."""
    changes = values - others
    value, error = float(changes.mean()), _error(changes)
    if not error > 0:
        p = 0.0 if error == 0 and value else 1.0
    else:
        p = float(2 * student.sf(abs(value) / error, len(changes) - 1))
    return Difference(value, *_limits(value, error, len(changes), level), p)


def relative_loss(values: np.ndarray, fresh: np.ndarray, level: float = 0.95) -> Interval:
    """Share of the metric of fresh models that is lost with other ones, of sums over steps of time.

    Args:
        values: Sum of the metric of the other models in each step, shape (D,).
        fresh: The same of fresh models on the same sessions, shape (D,).
        level: Share of cases in which the interval holds the true loss.

    Returns:
        The loss, 0.02 for 2 %; NaN limits where there is one step.

    Example:
        >>> str(relative_loss(np.array([9.0, 18.0]), np.array([10.0, 20.0])))
        '0.1000 [0.1000, 0.1000]'
    """
    total = fresh.sum()
    if total == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    ratio = float(values.sum() / total)
    error = _error((values - ratio * fresh) / fresh.mean())
    return Interval(1 - ratio, *_limits(1 - ratio, error, len(fresh), level))


def concordance(values: np.ndarray) -> float:
    """Kendall's W of the order of models over windows: 1 where it is the same in all, about 1 / W where it is chance.

    Args:
        values: A metric of each model in each window, shape (M, W), of two models at least.

    Example:
        >>> concordance(np.array([[3.0, 3.0, 3.0], [2.0, 2.0, 1.0], [1.0, 1.0, 2.0]])).round(3)
        np.float64(0.778)
    """
    n_models, n_windows = values.shape
    sums = rankdata(values, axis=0).sum(axis=1)
    return 12 * ((sums - sums.mean()) ** 2).sum() / (n_windows**2 * (n_models**3 - n_models))


def _error(values: np.ndarray) -> float:
    """Standard error of a mean; NaN where it cannot be known."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def _limits(value: float, error: float, n_windows: int, level: float) -> tuple[float, float]:
    reach = error * float(student.ppf((1 + level) / 2, max(n_windows - 1, 1)))
    return value - reach, value + reach
