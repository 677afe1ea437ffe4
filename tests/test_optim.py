"""Adagrad with momentum against plain numpy, dense and in rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sessrec.optim import AdagradMomentum


def numpy_step(weight, accumulator, velocity, gradient, lr, momentum, eps=1e-6):  # noqa: ANN001, ANN201
    """One element-wise update as the formula says."""
    accumulator += gradient**2
    step = gradient / np.sqrt(accumulator + eps)
    velocity[...] = momentum * velocity - lr * step
    weight += velocity


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_dense(momentum: float) -> None:
    generator = np.random.default_rng(0)
    parameter = nn.Parameter(torch.from_numpy(generator.normal(size=(4, 3))))
    expected = parameter.detach().numpy().copy()
    accumulator, velocity = np.zeros((4, 3)), np.zeros((4, 3))
    optimizer = AdagradMomentum([parameter], lr=0.1, momentum=momentum)
    for _ in range(5):
        gradient = generator.normal(size=(4, 3))
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        numpy_step(expected, accumulator, velocity, gradient, 0.1, momentum)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_rows_are_summed_before_they_are_squared_and_others_rest(momentum: float) -> None:
    generator = np.random.default_rng(1)
    parameter = nn.Parameter(torch.from_numpy(generator.normal(size=(6, 2))))
    expected = parameter.detach().numpy().copy()
    accumulator, velocity = np.zeros((6, 2)), np.zeros((6, 2))
    optimizer = AdagradMomentum([parameter], lr=0.1, momentum=momentum)
    for rows in ([0, 3, 0], [3, 3, 5], [1, 0, 5], [5, 5, 5]):
        values = generator.normal(size=(3, 2))
        parameter.grad = torch.sparse_coo_tensor(
            torch.tensor([rows]), torch.from_numpy(values), (6, 2), check_invariants=True
        )
        optimizer.step()
        for row in set(rows):
            summed = sum(values[place] for place in range(3) if rows[place] == row)
            numpy_step(expected[row], accumulator[row], velocity[row], summed, 0.1, momentum)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12)


def test_is_not_torch_adagrad() -> None:
    """Epsilon stands inside the root: with a tiny gradient the first step is far below the learning rate."""
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    parameter.grad = torch.tensor([1e-4], dtype=torch.float64)
    AdagradMomentum([parameter], lr=1.0).step()
    assert parameter.item() == pytest.approx(-1e-4 / np.sqrt(1e-8 + 1e-6))
