"""Adagrad with momentum against plain numpy, dense and in rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Adam, Optimizer

from sessrec.models.neural import set_rate
from sessrec.nn.optim import AdagradMomentum, JoinedOptimizers, first_occurrence, gather_rows


def numpy_step(weight, accumulator, velocity, gradient, lr, momentum):  # noqa: ANN001, ANN201
    """One element-wise update as the formula says."""
    accumulator += gradient**2
    velocity[...] = momentum * velocity - lr * gradient / np.sqrt(accumulator)
    weight += velocity


def numpy_start(weight: torch.Tensor, eps: float = 1e-6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight, accumulator and velocity before the first step."""
    return weight.detach().numpy().copy(), np.full(weight.shape, eps), np.zeros(weight.shape)


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_dense(momentum: float) -> None:
    generator = np.random.default_rng(0)
    parameter = nn.Parameter(torch.from_numpy(generator.normal(size=(4, 3))))
    expected, accumulator, velocity = numpy_start(parameter)
    optimizer = AdagradMomentum([parameter], lr=0.1, momentum=momentum)
    for _ in range(5):
        gradient = 1e-3 * generator.normal(size=(4, 3))  # so that eps counts
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        numpy_step(expected, accumulator, velocity, gradient, 0.1, momentum)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.4])
@pytest.mark.parametrize("n_columns", [1, 2, 5])
@pytest.mark.parametrize("coalesced", [False, True])
@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_rows_are_summed_before_they_are_squared_and_others_rest(
    momentum: float, n_columns: int, coalesced: bool, eps: float
) -> None:
    """A gradient that says it is coalesced has no row twice, but its rows are in any order."""
    generator = np.random.default_rng(1)
    parameter = nn.Parameter(torch.from_numpy(generator.normal(size=(6, n_columns))))
    expected, accumulator, velocity = numpy_start(parameter, eps)
    optimizer = AdagradMomentum([parameter], lr=0.1, momentum=momentum, eps=eps)
    once = ([3, 0, 5], [4], [5, 1, 0, 3], [], [0, 5, 3])
    for rows in once if coalesced else ([0, 3, 0], [3, 3, 5], [4], [1, 0, 5, 1, 0], [], [5, 5, 5], [2, 0, 3]):
        values = generator.normal(size=(len(rows), n_columns))
        parameter.grad = torch.sparse_coo_tensor(
            torch.tensor([rows], dtype=torch.int64),
            torch.from_numpy(values),
            (6, n_columns),
            is_coalesced=coalesced,
            check_invariants=False,
        )
        before = parameter.detach().clone()
        optimizer.step()
        for row in set(rows):
            summed = sum(values[place] for place in range(len(rows)) if rows[place] == row)
            numpy_step(expected[row], accumulator[row], velocity[row], summed, 0.1, momentum)
        others = [row for row in range(6) if row not in rows]
        assert torch.equal(parameter[others], before[others])
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_groups_have_options_of_their_own_and_parameters_without_gradients_rest(momentum: float) -> None:
    first, second, still = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(3))
    optimizer = AdagradMomentum(
        [{"params": [first, still]}, {"params": [second], "lr": 0.01, "momentum": momentum}], lr=1.0
    )
    expected = [(*numpy_start(first), 1.0, 0.0), (*numpy_start(second), 0.01, momentum)]
    for gradient in (np.array([0.5, -2.0]), np.array([1.0, 0.0])):
        first.grad, second.grad = torch.from_numpy(gradient.copy()), torch.from_numpy(gradient.copy())
        optimizer.step()
        for weight, accumulator, velocity, lr, own_momentum in expected:
            numpy_step(weight, accumulator, velocity, gradient, lr, own_momentum)
    for parameter, (weight, *_) in zip((first, second), expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-12)
    assert still.tolist() == [1.0, 1.0]


def test_momentum_may_begin_later() -> None:
    """As where a fit goes on with another option: until then the velocity is 0."""
    parameter = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = AdagradMomentum([parameter], lr=0.1)
    weight, accumulator, velocity = numpy_start(parameter)
    for number, momentum in enumerate((0.0, 0.5, 0.5)):
        optimizer.param_groups[0]["momentum"] = momentum
        parameter.grad = torch.tensor([1.0 + number], dtype=torch.float64)
        optimizer.step()
        numpy_step(weight, accumulator, velocity, 1.0 + number, 0.1, momentum)
        velocity *= momentum > 0
    np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-12)


def test_closure_has_gradients_and_its_loss_is_given_back() -> None:
    parameter = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))

    def closure() -> torch.Tensor:
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert AdagradMomentum([parameter], lr=0.5).step(closure).item() == 4.0
    assert parameter.item() == pytest.approx(2.0 - 0.5 * 4 / np.sqrt(16 + 1e-6))


def test_is_not_torch_adagrad() -> None:
    """Epsilon stands inside the root: with a tiny gradient the first step is far below the learning rate."""
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    parameter.grad = torch.tensor([1e-4], dtype=torch.float64)
    AdagradMomentum([parameter], lr=1.0).step()
    assert parameter.item() == pytest.approx(-1e-4 / np.sqrt(1e-8 + 1e-6))


@pytest.mark.parametrize(("length", "n_values"), [(0, 4), (1, 1), (7, 1), (30, 5), (200, 40), (50, 100_000)])
def test_first_of_equals_against_plain_python(length: int, n_values: int) -> None:
    """Whatever the memory it works in held before, and however long that is."""
    generator = torch.Generator().manual_seed(length)
    table = torch.randint(-9, 9, (n_values + 3,), generator=generator)
    for _ in range(5):
        values = torch.randint(n_values, (length,), generator=generator)
        expected = [values.tolist().index(value) for value in values.tolist()]
        assert first_occurrence(values, table).tolist() == expected
        assert first_occurrence(values, torch.zeros(n_values, dtype=torch.int64)).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_take_rows(dtype: torch.dtype) -> None:
    table = torch.randn(9, 3, dtype=dtype)
    for rows in (torch.tensor([4, 0, 4, 8]), torch.empty(0, dtype=torch.int64)):
        assert torch.equal(gather_rows(table, rows), table[rows])
        assert torch.equal(gather_rows(table[:, 1].contiguous(), rows), table[rows, 1])


def test_joined_optimizers_step_as_each_alone_and_keep_their_state() -> None:
    def parameters() -> list[nn.Parameter]:
        torch.manual_seed(0)
        return [nn.Parameter(torch.randn(3, 2)) for _ in range(2)]

    def step(joined: list[nn.Parameter], *optimizers: Optimizer) -> None:
        (joined[0] * joined[1].sin()).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    alone, together = parameters(), parameters()
    parts = [Adam(alone[:1], lr=0.02), AdagradMomentum(alone[1:], lr=0.5)]
    joined = JoinedOptimizers(Adam(together[:1], lr=0.01), AdagradMomentum(together[1:], lr=0.25))
    set_rate(joined, 0.02)  # twice the first one's, and so twice the other's
    for _ in range(3):
        step(alone, *parts)
        step(together, joined)
    resumed = JoinedOptimizers(Adam(together[:1], lr=0.3), AdagradMomentum(together[1:], lr=0.3))
    resumed.load_state_dict(joined.state_dict())
    for _ in range(3):
        step(alone, *parts)
        step(together, resumed)
    for own, other in zip(together, alone, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)
