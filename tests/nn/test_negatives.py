"""Negative samples follow count^alpha exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sessrec.nn.negatives import NegativeSampler


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_distribution(alpha: float) -> None:
    counts = np.array([10, 0, 1, 40, 0, 4])
    sampler = NegativeSampler(torch.from_numpy(counts), alpha)
    n_drawn = 200_000
    drawn = sampler.sample((n_drawn,), torch.Generator().manual_seed(3)).numpy()
    weight = np.where(counts > 0, counts.astype(float) ** alpha, 0)
    expected = weight / weight.sum()
    share = np.bincount(drawn, minlength=6) / n_drawn
    assert share[1] == share[4] == 0
    np.testing.assert_allclose(share, expected, atol=5 * np.sqrt(0.25 / n_drawn))


def probabilities(sampler: NegativeSampler) -> np.ndarray:
    """Probability of each item, from the column that it keeps and what the others lend to it."""
    kept, lent_to = sampler.kept_share.numpy(), sampler.lent_to.numpy()
    assert kept.dtype == np.float64
    assert kept.min() >= 0
    assert kept.max() <= 1
    return (kept + np.bincount(lent_to, weights=1 - kept, minlength=len(kept))) / len(kept)


def expected_probabilities(counts: np.ndarray, alpha: float) -> np.ndarray:
    weights = np.array([float(count) ** alpha if count else 0.0 for count in counts.tolist()])
    return weights / weights.sum()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.75, 1.0, 1.5])
@pytest.mark.parametrize(
    "counts",
    [[7], [0, 3], [3, 0], [1, 1, 1], [10, 0, 1, 40, 0, 4], [0, 0, 0, 10**9, 1], [5] * 7 + [0] * 5, [10**12, 1]],
)
def test_table_holds_the_distribution(counts: list[int], alpha: float) -> None:
    sampler = NegativeSampler(torch.tensor(counts), alpha)
    expected = expected_probabilities(np.array(counts), alpha)
    np.testing.assert_allclose(probabilities(sampler), expected, rtol=0, atol=1e-12)


def test_tables_of_random_counts() -> None:
    """Also which items can be drawn at all is right: a column of no width must not be left with one."""
    generator = np.random.default_rng(0)
    for _ in range(400):
        counts = generator.integers(1, 10 ** generator.integers(1, 9), size=generator.integers(1, 60))
        counts[generator.random(len(counts)) < generator.choice([0.0, 0.2, 0.8])] = 0
        counts[generator.integers(len(counts))] = generator.integers(1, 50)
        alpha = float(generator.choice([0.0, 0.3, 0.75, 1.0]))
        sampler = NegativeSampler(torch.from_numpy(counts), alpha)
        np.testing.assert_allclose(probabilities(sampler), expected_probabilities(counts, alpha), rtol=0, atol=1e-12)
        assert not sampler.kept_share[counts == 0].any()
        assert (counts[sampler.lent_to.numpy()[sampler.kept_share.numpy() < 1]] > 0).all()


def test_tail_of_a_large_catalogue_is_neither_starved_nor_doubled() -> None:
    counts = torch.ones(300_000, dtype=torch.int64)
    counts[0] = 10**9
    expected = expected_probabilities(counts.numpy(), 1.0)
    ours = probabilities(NegativeSampler(counts, alpha=1.0))
    np.testing.assert_allclose(ours[1:], expected[1:], rtol=1e-9)  # in float32 a step near 1e9 is 0 or 64
    assert ours[0] == pytest.approx(expected[0], abs=1e-10)  # after 300,000 loans


def test_given_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evenly spread numbers give every item its share, and those at the end an item that can be drawn."""
    sampler = NegativeSampler(torch.tensor([1, 0, 2, 0]), alpha=1.0)
    spread = (torch.arange(12_000, dtype=torch.float64) + 0.5) / 12_000
    ends = torch.tensor([0.0, np.nextafter(1, 0), 1.0], dtype=torch.float64)  # the last as if rounded up
    given = torch.cat([spread, ends])
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: given.clone())
    drawn = sampler.sample((12_003,), torch.Generator())
    assert drawn[:12_000].bincount(minlength=4).tolist() == [4000, 0, 8000, 0]
    assert set(drawn[12_000:].tolist()) <= {0, 2}
    kept, lent_to = sampler.kept_share.tolist(), sampler.lent_to.tolist()
    for number, item in zip(given.tolist(), drawn.tolist(), strict=True):
        column = min(int(number * 4), 3)
        assert item == (column if number * 4 - column < kept[column] else lent_to[column])


@pytest.mark.parametrize("n_items", [1, 2, 3, 5, 49, 1000, 1 << 20])
def test_the_greatest_number_is_within_the_table(monkeypatch: pytest.MonkeyPatch, n_items: int) -> None:
    sampler = NegativeSampler(torch.ones(n_items, dtype=torch.int64), alpha=1.0)
    for number in (np.nextafter(1, 0), 1.0):
        given = torch.tensor([number], dtype=torch.float64)
        monkeypatch.setattr(torch, "rand", lambda *args, given=given, **kwargs: given.clone())
        assert sampler.sample((1,), torch.Generator()).tolist() == [n_items - 1]


@pytest.mark.parametrize("shape", [(3,), (2, 3), (3, 0), (2, 1, 4)])
def test_samples_have_the_shape_asked_for(shape: tuple[int, ...]) -> None:
    drawn = NegativeSampler(torch.tensor([2, 1]), 1.0).sample(shape, torch.Generator())
    assert drawn.shape == shape
    assert drawn.dtype == torch.int64


def test_numbers_are_drawn_in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 a catalogue of a million would leave an item 16 different heights in its column."""
    drawn, rand = [], torch.rand
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: drawn.append(rand(*args, **kwargs)) or drawn[-1])
    NegativeSampler(torch.tensor([1, 2]), 1.0).sample((2, 3), torch.Generator())
    assert [numbers.dtype for numbers in drawn] == [torch.float64]


def test_the_table_is_in_no_checkpoint() -> None:
    assert not NegativeSampler(torch.tensor([1, 2]), 1.0).state_dict()


def test_same_generator_state_same_samples() -> None:
    sampler = NegativeSampler(torch.arange(1, 50), 0.75)
    first, second = (sampler.sample((4, 8), torch.Generator().manual_seed(9)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("alpha", [40.0, 200.0])
def test_a_great_power_leaves_the_most_frequent_item_alone(alpha: float) -> None:
    sampler = NegativeSampler(torch.tensor([7, 10**9, 0, 1]), alpha)
    assert sampler.sample((1000,), torch.Generator().manual_seed(0)).unique().tolist() == [1]
