"""Intervals and paired tests by resampling whole sessions.

The positions of a session are not independent: a model that knows a session's kind is right at many of them. So
sessions are drawn, with replacement, each with all of its positions, and every model and slice is worked out on the
same draws.

References:
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13 (resampling clusters, percentile
    intervals); Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics,
    1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from sessrec.errors import SessRecError

_DRAWS_AT_ONCE = 1 << 22  # weights of sessions in memory at once


class Interval(NamedTuple):
    """A figure and how far it is known."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A paired difference of two means."""

    value: float
    low: float
    high: float
    p: float
    """Probability of a difference as large where there is none, two-sided."""


def sums_by_session(values: np.ndarray, session: np.ndarray, n_sessions: int) -> np.ndarray:
    """Sum up values of positions over their sessions.

    Args:
        values: Float or bool, shape (P,).
        session: Number of each position's session, int64, shape (P,).
        n_sessions: Number of sessions S.

    Returns:
        Float64, shape (S,).
    """
    return np.bincount(session, weights=values, minlength=n_sessions)


def resampled_means(gains: np.ndarray, positions: np.ndarray, n_resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Means over positions in resamples of the sessions; the same sessions are drawn for all columns.

    Args:
        gains: Sum of what is averaged over each session's positions, shape (S, M).
        positions: Number of positions of each session, shape (S,), or (S, M) where columns are means over other
            positions.
        n_resamples: Number of resamples B.
        seed: Seed of the draws; the same seed draws the same sessions.

    Returns:
        Float64, shape (B, M); NaN where a resample has no position.

    Raises:
        SessRecError: If there are no sessions.

    Example:
        >>> means = resampled_means(np.array([[1.0], [1.0], [3.0]]), np.array([1, 1, 3]), n_resamples=4)
        >>> means[:, 0].tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    n_sessions, n_means = gains.shape
    if n_sessions == 0:
        raise SessRecError("there are no sessions to resample")
    counts = positions[:, None] if positions.ndim == 1 else positions
    both = np.concatenate([gains, counts], axis=1).astype(np.float64)
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // n_sessions)
    found = []
    for start in range(0, n_resamples, at_once):
        n_rows = min(at_once, n_resamples - start)
        drawn = rng.integers(n_sessions, size=(n_rows, n_sessions)) + np.arange(n_rows)[:, None] * n_sessions
        weights = np.bincount(drawn.ravel(), minlength=n_rows * n_sessions).reshape(n_rows, n_sessions)
        found.append(weights.astype(np.float64) @ both)
    sums = np.concatenate(found)
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[:, :n_means] / sums[:, n_means:]


def pool_seeds(means: np.ndarray, own: np.ndarray, seed: int | Sequence[int] = 0) -> tuple[np.ndarray, float]:
    """Make one model of several fits with different seeds: its mean, uncertain for its sessions and for its seeds.

    A resample draws seeds, too. So few deviations from a mean of their own are too small by sqrt((R - 1) / R), and are
    stretched by as much; with less than about five seeds their share of the interval is a rough one all the same.

    Args:
        means: Resampled means of each fit, shape (B, R).
        own: The fits' own means, shape (R,).
        seed: Seed of the draws; models need different ones, for their seeds have nothing to do with each other.

    Returns:
        Resampled means of the model, shape (B,), and its own mean.
    """
    n_resamples, n_fits = means.shape
    centre = means.mean(axis=1)
    if n_fits == 1:
        return centre, float(own[0])
    rng = np.random.default_rng(seed)
    drawn = rng.integers(n_fits, size=(n_resamples, n_fits))
    of_drawn = np.take_along_axis(means, drawn, axis=1).mean(axis=1)
    return centre + np.sqrt(n_fits / (n_fits - 1)) * (of_drawn - centre), float(own.mean())


def interval(resampled: np.ndarray, value: float, level: float = 0.95) -> Interval:
    """Percentile interval.

    Args:
        resampled: Resampled means, shape (B,).
        value: The mean itself.
        level: Share of cases in which the interval holds the true mean.
    """
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def difference(
    resampled: np.ndarray, other: np.ndarray, value: float, n_sessions: int, level: float = 0.95
) -> Difference:
    """Paired difference of two models, with its interval and the p value of there being none.

    The p value is Student's, of the difference over its standard error among the resamples, with one degree of freedom
    less than there are sessions.

    Args:
        resampled: Resampled means of a model, shape (B,).
        other: Those of another one, from the same draws.
        value: Difference of the means themselves.
        n_sessions: Number of sessions.
        level: As in `interval`.
    """
    changes = resampled - other
    low, high = np.nanquantile(changes, [(1 - level) / 2, (1 + level) / 2])
    error = float(np.nanstd(changes, ddof=1))
    if error < 1e-12:  # the two models do the same everywhere
        return Difference(value, float(low), float(high), 1.0 if abs(value) < 1e-12 else 0.0)
    return Difference(value, float(low), float(high), float(2 * student.sf(abs(value) / error, max(1, n_sessions - 1))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number: among all that are below 0.05, one is false in at most 5 % of such tables.

    Args:
        p_values: The p values.

    Returns:
        Corrected ones, in the same order.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected, least = [0.0] * len(p_values), 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = least
    return corrected
