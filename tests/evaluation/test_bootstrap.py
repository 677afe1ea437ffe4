"""Intervals and paired tests: they cover the truth as often as they say, and find nothing as seldom as they should."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from sessrec.data.loaders import EvaluationLoader
from sessrec.data.sessions import Sessions
from sessrec.data.vocabulary import Vocabulary
from sessrec.errors import SessRecError
from sessrec.evaluation.bootstrap import Difference, PooledMean, difference, holm, interval, pool_seeds, resampled_means
from sessrec.evaluation.metrics import rank_from_counts
from sessrec.evaluation.rank_table import gains
from sessrec.models import Oracle

METRICS = ("recall@5", "mrr@20")
N_ITEMS, N_SESSIONS = 30, 150


# 1. Resamples


def some_sessions(seed: int = 0, n_sessions: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Sums of two gains, shape (S, 2), and positions of sessions that differ in both."""
    generator = np.random.default_rng(seed)
    positions = generator.integers(1, 9, size=n_sessions)
    ability = generator.beta(1, 2, size=n_sessions)
    hits = generator.binomial(positions, ability)
    return np.stack([hits, hits * generator.random(n_sessions)], axis=1), positions


def test_resampled_means_are_those_of_a_loop_over_the_same_draws() -> None:
    sums, positions = some_sessions()
    drawn = np.random.default_rng(7).integers(40, size=(50, 40))
    found = resampled_means(sums, positions, n_resamples=50, seed=7)
    assert found.shape == (50, 2)
    for row, sessions in zip(found, drawn.tolist(), strict=True):
        for place in range(2):
            total = math.fsum(sums[session, place] for session in sessions)
            assert row[place] == pytest.approx(total / sum(positions[session] for session in sessions))


def test_resamples_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sums, positions = some_sessions()
    whole = resampled_means(sums, positions, n_resamples=30, seed=1)
    for at_once in (1, 100, 400):
        monkeypatch.setattr("sessrec.evaluation.bootstrap._DRAWS_AT_ONCE", at_once)
        np.testing.assert_allclose(resampled_means(sums, positions, n_resamples=30, seed=1), whole, rtol=1e-14)


def test_columns_may_be_means_over_other_positions() -> None:
    """Each as if it stood alone; where a resample has no position there is no mean."""
    sums, positions = some_sessions()
    rare = np.zeros(40, dtype=np.int64)
    rare[:1] = positions[:1]
    found = resampled_means(np.stack([sums[:, 0], sums[:, 1]], axis=1), np.stack([positions, rare], axis=1), 200, 3)
    assert found[:, 0].tolist() == resampled_means(sums[:, :1], positions, 200, 3)[:, 0].tolist()
    is_there = [0 in draws for draws in np.random.default_rng(3).integers(40, size=(200, 40)).tolist()]
    assert 0 < sum(is_there) < 200
    assert np.isfinite(found[:, 1]).tolist() == is_there


def test_the_spread_is_that_of_a_ratio_of_sums_over_sessions() -> None:
    """Linearised, as textbooks on sampling have it; a spread over positions would be another one."""
    sums, positions = some_sessions(seed=1, n_sessions=2000)
    mean = sums.sum(axis=0) / positions.sum()
    found = resampled_means(sums, positions, n_resamples=4000, seed=0)
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=4 * found.std(axis=0).max() / math.sqrt(4000))
    residuals = sums - positions[:, None] * mean
    theory = np.sqrt((residuals**2).sum(axis=0)) / positions.sum()
    np.testing.assert_allclose(found.std(axis=0), theory, rtol=0.05)
    as_positions = math.sqrt(mean[0] * (1 - mean[0]) / positions.sum())
    assert theory[0] > 1.3 * as_positions  # the positions of a session hang together


def test_nothing_to_resample_is_refused() -> None:
    with pytest.raises(SessRecError, match="no sessions"):
        resampled_means(np.zeros((0, 1)), np.zeros(0, dtype=np.int64))


# 2. Intervals


def one_fit(resampled: np.ndarray, value: float, n_sessions: int) -> PooledMean:
    return pool_seeds(resampled[:, None], np.array([value]), n_sessions)


def own_means(sums: np.ndarray, positions: np.ndarray, n_resamples: int, seed: int = 0) -> list[PooledMean]:
    """Each column as a model that was fitted once."""
    means, own = resampled_means(sums, positions, n_resamples, seed), sums.sum(axis=0) / positions.sum()
    return [one_fit(means[:, place], own[place], len(positions)) for place in range(len(own))]


def test_an_interval_is_between_quantiles() -> None:
    values, many = np.arange(1001) / 1000, 10**9
    assert interval(one_fit(values, 0.4, many)) == (0.4, pytest.approx(0.025), pytest.approx(0.975))
    assert interval(one_fit(values, 0.4, many), level=0.5) == (0.4, pytest.approx(0.25), pytest.approx(0.75))
    with_gaps = np.concatenate([values, [np.nan] * 50])
    assert interval(one_fit(with_gaps, 0.4, many)) == interval(one_fit(values, 0.4, many))


@pytest.mark.parametrize(
    ("n_sessions", "level", "stretch"),
    [(11, 0.95, 2.228139 / 1.959964), (2, 0.95, 12.706205 / 1.959964), (6, 0.99, 4.032143 / 2.575829)],
)
def test_few_sessions_make_intervals_wider(n_sessions: int, level: float, stretch: float) -> None:
    """By as much as a table of Student's quantiles says, to either side for itself."""
    values = np.linspace(0, 1, 1001) ** 2
    low, high = (((1 + sign * level) / 2) ** 2 for sign in (-1, 1))
    found = interval(one_fit(values, 0.3, n_sessions), level)
    assert found == (0.3, pytest.approx(0.3 - stretch * (0.3 - low)), pytest.approx(0.3 + stretch * (high - 0.3)))


def test_a_value_is_never_outside_its_interval() -> None:
    """The mean of equal gains and its resamples may differ in the last bit."""
    for value in (1 / 3, 0.1, 1 / 7):
        for off in (-1e-16, 1e-16, 0.0):
            found = interval(one_fit(np.full(100, value + off), value, 50))
            assert found.low <= found.value <= found.high


def oracle() -> Oracle:
    model = Oracle(process_items=N_ITEMS, process_seed=3)
    model.set_vocabulary(Vocabulary([str(number + 1) for number in range(N_ITEMS)], np.ones(N_ITEMS, dtype=np.int64)))
    return model.eval()


def oracle_gains(n_sessions: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the Oracle's gains over fresh sessions, shape (S, metrics), and their positions."""
    model = oracle()
    frame = model.process.sample(n_sessions, seed=seed)
    lengths = np.bincount(frame["SessionId"].to_numpy())[1:]
    sessions = Sessions(frame["ItemId"].to_numpy().astype(np.int32) - 1, np.concatenate([[0], lengths.cumsum()]))
    sums = np.zeros((n_sessions, len(METRICS)))
    for batch in EvaluationLoader(sessions, 2048):
        with torch.inference_mode():
            rank = rank_from_counts(*model.count_positions(batch), "conservative").double().numpy()
        session = np.repeat(batch.sessions.numpy(), batch.lengths.numpy() - 1)
        for place, metric in enumerate(METRICS):
            sums[:, place] += np.bincount(session, gains(rank, metric), n_sessions)
    return sums, lengths - 1


@cache
def truth() -> np.ndarray:
    """The Oracle's metrics on 60,000 sessions: known to about 0.001."""
    sums, positions = oracle_gains(60_000, seed=1)
    return sums.sum(axis=0) / positions.sum()


def test_intervals_cover_the_truth() -> None:
    """The Oracle's metrics on 500 logs of 150 fresh sessions each."""
    sums, positions = oracle_gains(500 * N_SESSIONS, seed=2)
    covered = np.zeros(len(METRICS))
    widths = []
    for number in range(500):
        part = slice(number * N_SESSIONS, (number + 1) * N_SESSIONS)
        found = [interval(mean) for mean in own_means(sums[part], positions[part], 500, seed=number)]
        covered += [one.low <= true <= one.high for one, true in zip(found, truth(), strict=True)]
        widths.append(found[0].high - found[0].low)
    for metric, share in zip(METRICS, covered / 500, strict=True):
        assert 0.93 <= share <= 0.97, metric
    assert 0.02 < np.mean(widths) < 0.2  # an interval that says something, and more than how well the truth is known


# 3. Paired tests


def exchangeable(generator: np.random.Generator, n_sessions: int) -> tuple[np.ndarray, np.ndarray]:
    """Reciprocal ranks of two models of equal worth; both find some sessions easy, and each some of its own."""
    positions = 1 + generator.geometric(0.3, size=n_sessions)
    session = np.repeat(np.arange(n_sessions), positions)
    easy = generator.normal(size=n_sessions)
    sums = []
    for _ in range(2):
        level = (easy + 0.7 * generator.normal(size=n_sessions))[session]
        rank = np.exp(np.maximum(0, 1.5 - level + generator.normal(size=len(session)))).astype(np.int64)
        sums.append(np.bincount(session, np.where(rank <= 20, 1 / rank, 0.0), n_sessions))
    return np.stack(sums, axis=1), positions


def test_equal_models_are_told_apart_in_one_case_of_twenty() -> None:
    generator, p_values, n_sessions = np.random.default_rng(11), [], 100
    for number in range(3000):
        p_values.append(difference(*own_means(*exchangeable(generator, n_sessions), 300, seed=number)).p)
    found = np.array(p_values)
    assert 0.04 <= (found < 0.05).mean() <= 0.06
    assert 0.08 <= (found < 0.1).mean() <= 0.12
    assert 0.47 <= (found < 0.5).mean() <= 0.53


def test_a_difference_that_is_there_is_found() -> None:
    generator, n_sessions, found = np.random.default_rng(4), 200, []
    for number in range(100):
        sums, positions = exchangeable(generator, n_sessions)
        sums[:, 0] += 0.08 * positions  # of a standard error of about 0.023
        one = difference(*own_means(sums, positions, 300, seed=number))
        assert one.low < one.value < one.high
        found.append(one)
    assert np.mean([one.p < 0.05 for one in found]) > 0.8
    assert np.mean([one.low <= 0.08 <= one.high for one in found]) > 0.88
    assert np.mean([(one.p < 0.05) == (one.low > 0) for one in found]) > 0.9  # test and interval say the same


def test_identical_models_do_not_differ() -> None:
    mean = own_means(*some_sessions(), 100)[0]
    assert difference(mean, mean) == Difference(0.0, 0.0, 0.0, 1.0)


def test_the_same_difference_in_every_session_is_sure() -> None:
    sums, positions = some_sessions()
    found = difference(*own_means(np.stack([sums[:, 0] + 0.5 * positions, sums[:, 0]], axis=1), positions, 100))
    assert found == (pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5), 0.0)


def test_a_difference_has_two_directions() -> None:
    means = own_means(*some_sessions(), 500)
    one, other = difference(*means), difference(*means[::-1])
    assert (other.value, other.low, other.high) == pytest.approx((-one.value, -one.high, -one.low))
    assert one.p == pytest.approx(other.p)
    assert 0 < one.p < 1


def test_a_p_value_by_hand() -> None:
    """Student's with 10 degrees of freedom: 2.228 standard errors are its 97.5 % quantile."""
    changes = np.array([-1.0, 1.0] * 500)
    value = 2.228139 * changes.std(ddof=1)
    found = difference(one_fit(changes + value + 0.4, value + 0.4, 11), one_fit(np.full(1000, 0.4), 0.4, 11))
    assert found.p == pytest.approx(0.05, abs=1e-6)
    stretch = 2.228139 / 1.959964
    assert (found.low, found.high) == (pytest.approx(value - stretch), pytest.approx(value + stretch))
    assert found.value == pytest.approx(value)


def test_degrees_of_freedom_of_several_seeds() -> None:
    """Satterthwaite's, of the parts of the variance: here 0.6 of it from 30 sessions, and 0.4 from three seeds."""
    changes = np.random.default_rng(0).normal(0.02, 0.01, size=1000)
    by_seed = 0.4 * changes.var(ddof=1)
    several = PooledMean(changes, 0.02, [0.01, 0.02, 0.03], by_seed, n_sessions=30)
    still = PooledMean(np.zeros(1000), 0.0, [0.0], seed_variance=0.0, n_sessions=30)
    freedom = 1 / (0.6**2 / 29 + 0.4**2 / 2)
    assert difference(several, still).p == pytest.approx(2 * student.sf(0.02 / changes.std(ddof=1), freedom))


def test_the_model_with_fewer_sessions_counts() -> None:
    changes = np.random.default_rng(0).normal(size=1000)
    many, few = (one_fit(changes, 1.5, n_sessions) for n_sessions in (100, 4))
    none = one_fit(np.zeros(1000), 0.0, 100)
    assert difference(few, none) == difference(one_fit(changes, 1.5, 4), one_fit(np.zeros(1000), 0.0, 4))
    assert difference(few, none).p > difference(many, none).p


def test_one_session_proves_nothing() -> None:
    means = own_means(np.array([[1.0, 0.5]]), np.array([2]), 200)
    value, low, high, p = difference(*means)
    assert (value, p) == (0.25, 1.0)
    assert math.isnan(low)
    assert math.isnan(high)
    assert interval(means[0]).value == 0.5
    assert all(math.isnan(limit) for limit in interval(means[0])[1:])


# 4. Several seeds


def test_one_fit_is_left_as_it_is() -> None:
    means = np.random.default_rng(0).random((50, 1))
    pooled = pool_seeds(means, np.array([0.4]), 9, seed=3)
    assert pooled.resampled.tolist() == means[:, 0].tolist()
    assert pooled[1:] == (0.4, [0.4], 0.0, 9)


def test_seeds_are_drawn_by_the_seed() -> None:
    own = np.array([0.1, 0.2, 0.3, 0.6])
    means = own + 0.01 * np.random.default_rng(0).normal(size=(200, 1))
    one, again, other = (pool_seeds(means, own, 50, seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert one.resampled.tolist() == again.resampled.tolist()
    assert one.resampled.tolist() != other.resampled.tolist()
    assert one.value == pytest.approx(0.3)
    assert one.by_fit == own.tolist()


@pytest.mark.parametrize("n_fits", [2, 3, 5, 20])
def test_the_variance_is_that_of_sessions_and_of_seeds(n_fits: int) -> None:
    generator = np.random.default_rng(n_fits)
    of_sessions = 0.02 * generator.normal(size=(100_000, 1))
    of_seeds = 0.05 * generator.normal(size=n_fits)
    pooled = pool_seeds(0.3 + of_sessions + of_seeds, 0.3 + of_seeds, 1000)
    by_seeds = of_seeds.var(ddof=1) / n_fits
    assert pooled.resampled.var() == pytest.approx(of_sessions.var() + by_seeds, rel=0.02)
    assert pooled.resampled.mean() == pytest.approx(pooled.value, abs=0.001)
    assert pooled.value == pytest.approx(0.3 + of_seeds.mean())
    assert pooled.seed_variance == pytest.approx(by_seeds)


def equal_models(
    generator: np.random.Generator, n_sessions: int, n_fits: int, interaction: float, own: float, seeds: float
) -> np.ndarray:
    """Gains of two models' fits: of sessions easy for all, for a model, for a fit; and of lucky seeds."""
    easy = generator.normal(size=(n_sessions, 1))
    parts = []
    for _ in range(2):
        of_model = own * generator.normal(size=(n_sessions, 1))
        of_fit = interaction * generator.normal(size=(n_sessions, n_fits))
        parts.append(easy + of_model + of_fit + seeds * generator.normal(size=n_fits))
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize(
    ("n_fits", "interaction", "own", "seeds"),
    [(5, 1.0, 0.3, 0.0), (5, 0.0, 0.3, 0.08), (3, 0.0, 0.3, 0.3), (2, 0.0, 0.3, 0.3)],
)
def test_equal_models_of_several_seeds_are_seldom_told_apart(
    n_fits: int, interaction: float, own: float, seeds: float
) -> None:
    generator, n_sessions, n_found = np.random.default_rng(1), 80, 0
    for number in range(1000):
        sums = equal_models(generator, n_sessions, n_fits, interaction, own, seeds)
        means, of_fits = resampled_means(sums, np.ones(n_sessions, dtype=int), 200, number), sums.mean(axis=0)
        one, other = (
            pool_seeds(means[:, part], of_fits[part], n_sessions, (number, part.start))
            for part in (slice(0, n_fits), slice(n_fits, 2 * n_fits))
        )
        n_found += difference(one, other).p < 0.05
    assert 0.03 <= n_found / 1000 <= 0.075


@pytest.mark.parametrize(("seed_effect", "n_fits"), [(0.0, 5), (0.1 * math.sqrt(5), 5), (0.1 * math.sqrt(20), 20)])
def test_intervals_of_pooled_seeds_cover_the_truth(seed_effect: float, n_fits: int) -> None:
    """Without seeds that matter, and with a part as large as that of the sessions, whose standard error is 0.1."""
    generator, covered, n_sessions = np.random.default_rng(8), 0, 150
    for number in range(600):
        positions = 1 + generator.geometric(0.3, size=n_sessions)
        noise = generator.normal(size=(n_sessions, 1)) + seed_effect * generator.normal(size=n_fits)
        sums = positions[:, None] * noise  # the true mean is 0
        means = resampled_means(sums, positions, 300, seed=number)
        found = interval(pool_seeds(means, sums.sum(axis=0) / positions.sum(), n_sessions, (number, 0)))
        covered += found.low <= 0 <= found.high
    assert 0.92 <= covered / 600 <= 0.98  # 0.93 to 0.97, and what 600 logs leave open


# 5. Many tests


def test_holm_by_hand() -> None:
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.04, 0.001, 0.02, 0.3]) == pytest.approx([0.08, 0.004, 0.06, 0.3])
    assert holm([0.5, 0.6, 0.9]) == [1.0, 1.0, 1.0]
    assert holm([0.03, 0.03]) == [0.06, 0.06]
    assert holm([0.0, 1.0]) == [0.0, 1.0]


def naive_holm(p_values: list[float], level: float) -> set[int]:
    """What is rejected at a level: the least p value as long as it is below the level over how many are left."""
    rejected: set[int] = set()
    left = dict(enumerate(p_values))
    while left:
        number = min(left, key=lambda place: left[place])
        if left[number] * len(left) > level:
            break
        rejected.add(number)
        del left[number]
    return rejected


def test_corrected_p_values_reject_what_the_procedure_rejects() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        p_values = (generator.random(generator.integers(1, 9)) ** 3).tolist()
        corrected = holm(p_values)
        for level in (0.01, 0.05, 0.2):
            assert {place for place, p in enumerate(corrected) if p <= level} == naive_holm(p_values, level)
        assert all(own >= p for own, p in zip(corrected, p_values, strict=True))
        assert max(corrected) <= 1
        order = np.argsort(p_values, kind="stable")
        assert all(corrected[low] <= corrected[high] for low, high in itertools.pairwise(order))
