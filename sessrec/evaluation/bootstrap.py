"""Intervals and paired tests by resampling whole sessions.

The positions of a session are not independent: a model that knows a session's kind is right at many of them. So
sessions are drawn, with replacement, each with all of its positions, and every model and slice is worked out on the
same draws.

References:
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13 (resampling clusters, percentile
    intervals); Satterthwaite, "An Approximate Distribution of Estimates of Variance Components", Biometrics Bulletin,
    1946; Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics,
    1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from sessrec.errors import SessRecError

_DRAWS_AT_ONCE = 1 << 22  # weights of sessions in memory at once


class Interval(NamedTuple):
    """A figure and how far it is known."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low != self.low:  # nothing is known of its limits
            return f"{self.value:.4f}"
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


class Difference(NamedTuple):
    """A paired difference of two means."""

    value: float
    low: float
    high: float
    p: float
    """Probability of a difference as large where there is none, two-sided."""


class PooledMean(NamedTuple):
    """A mean over positions of a model, over all of its fits."""

    resampled: np.ndarray
    """Its value in resamples of the sessions and seeds, float64, shape (B,)."""
    value: float
    by_fit: list[float]
    """Each fit's own value."""
    seed_variance: float
    """Part of its variance that comes from the seeds; 0 for a single fit, of which that is not known."""
    n_sessions: int
    """Sessions that have positions."""


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
    both = np.concatenate([gains, positions.reshape(n_sessions, -1)], axis=1).astype(np.float64)
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


def pool_seeds(means: np.ndarray, own: np.ndarray, n_sessions: int, seed: int | Sequence[int] = 0) -> PooledMean:
    """Make one model of several fits with different seeds: its mean, uncertain for its sessions and for its seeds.

    The variance of the fits' own means has two parts: that of the seeds, and that of fits which err on other sessions,
    which the resampled sessions hold already. The second one is taken out before seeds are drawn, with deviations
    stretched such that they vary by the first one over the number of fits.

    Args:
        means: Resampled means of each fit, shape (B, R).
        own: The fits' own means, shape (R,).
        n_sessions: Number of sessions that have positions.
        seed: Seed of the draws; models need different ones, for their seeds have nothing to do with each other.
    """
    n_resamples, n_fits = means.shape
    centre, value = means.mean(axis=1), float(own.mean())
    if n_fits == 1:
        return PooledMean(centre, value, own.tolist(), 0.0, n_sessions)
    apart = (means - centre[:, None]) - (own - value)
    by_session = float(np.nanmean((apart**2).sum(axis=1)) / (n_fits - 1))
    total = float(own.var(ddof=1))
    by_seed = max(0.0, total - by_session)
    stretch = np.sqrt(by_seed / total * n_fits / (n_fits - 1)) if total > 0 else 0.0
    drawn = np.random.default_rng(seed).integers(n_fits, size=(n_resamples, n_fits))
    resampled = centre + stretch * (own[drawn].mean(axis=1) - value)
    return PooledMean(resampled, value, own.tolist(), by_seed / n_fits, n_sessions)


def interval(mean: PooledMean, level: float = 0.95) -> Interval:
    """Percentile interval, widened as Student's is where there are few sessions or seeds.

    ``level`` is the share of cases in which it holds the true mean.
    """
    return Interval(mean.value, *_limits(mean.resampled, mean.value, _freedom(mean.resampled, mean), level))


def difference(mean: PooledMean, other: PooledMean, level: float = 0.95) -> Difference:
    """Paired difference of two models' means from the same draws of sessions, with its interval as in `interval`.

    The p value is Student's, of the difference over its standard error among the resamples.
    """
    changes, value = mean.resampled - other.resampled, mean.value - other.value
    freedom = _freedom(changes, mean, other)
    limits = _limits(changes, value, freedom, level)
    error = float(np.nanstd(changes, ddof=1))
    if freedom == 0 or error < 1e-12:  # nothing to tell a difference by, or the same one in every session
        return Difference(value, *limits, 0.0 if freedom and abs(value) > 1e-12 else 1.0)
    return Difference(value, *limits, float(2 * student.sf(abs(value) / error, freedom)))


def relative_difference(mean: PooledMean, other: PooledMean, level: float = 0.95) -> Interval:
    """How much one model's mean is above another's, as a share of the latter, with its interval as in `interval`.

    It is NaN where the other mean is 0, and so are the limits where it is 0 in a resample.
    """
    nothing = float("nan")
    if other.value == 0:
        return Interval(nothing, nothing, nothing)
    value = mean.value / other.value - 1
    if not np.all(other.resampled > 0):
        return Interval(value, nothing, nothing)
    changes = mean.resampled / other.resampled - 1
    return Interval(value, *_limits(changes, value, _freedom(changes, mean, other), level))


def _freedom(resampled: np.ndarray, *means: PooledMean) -> float:
    """Degrees of freedom of a variance with a part from sessions and one from each model's seeds (Satterthwaite)."""
    n_sessions = min(mean.n_sessions for mean in means)
    if n_sessions < 2:
        return 0.0
    total = float(np.nanvar(resampled, ddof=1))
    by_sessions = max(total - sum(mean.seed_variance for mean in means), 1e-300)
    parts = [by_sessions**2 / (n_sessions - 1)]
    parts += [mean.seed_variance**2 / (len(mean.by_fit) - 1) for mean in means if mean.seed_variance > 0]
    whole = by_sessions + sum(mean.seed_variance for mean in means)
    return whole**2 / sum(parts) if sum(parts) > 0 else float(n_sessions - 1)


def _limits(resampled: np.ndarray, value: float, freedom: float, level: float) -> tuple[float, float]:
    """Quantiles of the resamples, as far from the value as Student's quantile is against the normal one."""
    if not freedom:  # one session says nothing about others
        return float("nan"), float("nan")
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2]).tolist()
    stretch = float(student.ppf((1 + level) / 2, freedom) / norm.ppf((1 + level) / 2))
    return min(value, value - stretch * (value - low)), max(value, value + stretch * (high - value))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number, so that in at most 5 % of such tables any below 0.05 is false.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected, least = [0.0] * len(p_values), 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = least
    return corrected
