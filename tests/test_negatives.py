"""Negative samples follow count^alpha exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sessrec.negatives import NegativeSampler


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


def test_inverse_transform_of_given_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = NegativeSampler(torch.tensor([1, 0, 2, 0]), alpha=1.0)
    numbers = torch.tensor([0.0, 0.33, 1 / 3, 0.5, 1.0], dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: numbers)
    # item 0 owns [0, 1/3), item 2 owns [1/3, 1); a number that rounds to 1 still gives an item that can be drawn
    assert sampler.sample((5,), torch.Generator()).tolist() == [0, 0, 2, 2, 2]


def test_tail_of_a_large_catalogue_is_neither_starved_nor_doubled() -> None:
    counts = torch.ones(3_000_000, dtype=torch.int64)
    counts[0] = 10**9
    sampler = NegativeSampler(counts, alpha=1.0)
    steps = sampler.cumulative.diff()
    assert (steps == 1.0).all()  # in float32 a step near 1e9 is 0 or 64


def test_same_generator_state_same_samples() -> None:
    sampler = NegativeSampler(torch.arange(1, 50), 0.75)
    first, second = (sampler.sample((4, 8), torch.Generator().manual_seed(9)) for _ in range(2))
    assert torch.equal(first, second)
