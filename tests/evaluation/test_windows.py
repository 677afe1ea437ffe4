"""Means over windows, and what models lose with their age."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sessrec.data.drift import DriftingProcess
from sessrec.data.synthetic import FIRST_DAY
from sessrec.evaluation.windows import concordance, difference_over_windows, mean_over_windows, relative_loss

VALUES = np.array([0.31, 0.27, 0.33, 0.30, 0.29])
OTHERS = np.array([0.30, 0.27, 0.31, 0.28, 0.29])


def test_a_mean_is_that_of_scipy() -> None:
    found = mean_over_windows(VALUES, level=0.9)
    expected = stats.ttest_1samp(VALUES, 0).confidence_interval(0.9)
    assert found == pytest.approx((VALUES.mean(), *expected))
    assert np.isnan(mean_over_windows(VALUES[:1])[1:]).all()  # one window says nothing of others


def test_a_difference_is_paired() -> None:
    found, expected = difference_over_windows(VALUES, OTHERS), stats.ttest_rel(VALUES, OTHERS)
    assert (found.value, found.p) == pytest.approx((0.01, expected.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    same = difference_over_windows(VALUES, VALUES)
    assert (same.value, same.p) == (0.0, 1.0)
    assert difference_over_windows(VALUES, VALUES - 0.125).p < 1e-6


def test_a_loss_is_a_ratio_of_sums() -> None:
    values, fresh = np.array([90.0, 170.0, 55.0]), np.array([100.0, 200.0, 50.0])
    found = relative_loss(values, fresh)
    assert found.value == pytest.approx(1 - 315 / 350)
    # Cochran 6.13: the variance of a ratio by hand
    residuals = values - 0.9 * fresh
    error = np.sqrt((residuals**2).sum() / 2 / 3) / fresh.mean()
    assert found.high - found.value == pytest.approx(4.302653 * error, rel=1e-6)
    assert np.isnan(relative_loss(values, 0 * fresh).value)


def test_concordance_by_hand() -> None:
    same = np.array([[3.0, 5.0], [2.0, 4.0], [1.0, 0.5]])
    assert concordance(same) == pytest.approx(1.0)
    assert concordance(np.array([[1.0, 2.0], [2.0, 1.0]])) == 0.0
    # ranks 1 2 / 2.5 1 / 2.5 3: sums 3, 3.5, 5.5 about 4, squares 1 + 0.25 + 2.25 over 4 * 24 / 12
    assert concordance(np.array([[1.0, 5.0], [2.0, 4.0], [2.0, 6.0]])) == pytest.approx(3.5 / 8)


def gains_by_day(process: DriftingProcess, n_sessions: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each day, which sessions the most popular next item of the first day is right in, and their positions."""
    table = process.sample(n_sessions, seed=7)
    item, session = table["ItemId"].to_numpy(), table["SessionId"].to_numpy()
    best = np.argsort(-process.process_of(0).popularity)[:30]
    is_hit = np.isin(item, process.item_of_place[0][best] + 1)
    is_target = np.r_[False, session[1:] == session[:-1]]
    hits = np.bincount(session[is_target], is_hit[is_target], session[-1] + 1)[1:]
    positions = np.bincount(session[is_target], minlength=session[-1] + 1)[1:]
    day = ((table.groupby("SessionId")["Time"].min() - FIRST_DAY) // 86_400).to_numpy()
    return [(hits[day == today], positions[day == today]) for today in range(30)]


def test_intervals_over_windows_hold_the_true_mean() -> None:
    """Of 500 logs with 8 windows each: a window is a day of the drifting process and 240 of its sessions.

    The true mean over the days is known from all sessions of the process; days differ, for transitions drift.
    """
    pools = gains_by_day(DriftingProcess(200, seed=11, drift=0.3, item_exponent=0.5), 30_000)
    truth = np.array([hits.sum() / positions.sum() for hits, positions in pools])
    assert truth.std() > 0.012  # about as much as windows differ by their sessions
    generator, n_held, n_paired, n_ratio = np.random.default_rng(0), 0, 0, 0
    for _ in range(500):
        days = generator.choice(30, size=8)
        sums = []
        for day in days:
            hits, positions = pools[day]
            drawn = generator.choice(len(hits), size=240)
            sums.append((hits[drawn].sum(), positions[drawn].sum()))
        hit, n_positions = np.array(sums).T
        found = mean_over_windows(hit / n_positions)
        n_held += found.low <= truth.mean() <= found.high
        other = generator.binomial(hit.astype(int), 0.9)  # a model that is wrong at a tenth of these hits
        paired = difference_over_windows(other / n_positions, hit / n_positions)
        n_paired += paired.low <= -0.1 * truth.mean() <= paired.high
        loss = relative_loss(other, hit)
        n_ratio += loss.low <= 0.1 <= loss.high
    assert 0.93 * 500 <= n_held <= 0.97 * 500
    assert 0.93 * 500 <= n_paired <= 0.97 * 500
    assert 0.93 * 500 <= n_ratio <= 0.97 * 500
