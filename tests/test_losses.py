"""Losses against plain numpy, values worked out by hand, and their behaviour at the edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from sessrec import losses

BY_HAND = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 3.0]])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numpy_loss(name: str, logits: np.ndarray, bpreg: float, elu_param: float, excluded: np.ndarray) -> list[float]:
    """Every loss lane by lane and negative by negative, as the papers write them."""
    per_lane = []
    for i, row in enumerate(logits):
        negatives = [j for j in range(len(row)) if j != i and not excluded[i, j]]
        if name == "cross_entropy":
            total = np.exp(row[i]) + sum(np.exp(row[j]) for j in negatives)
            per_lane.append(-np.log(np.exp(row[i]) / total))
            continue
        score = row.copy()
        if name == "bpr_max" and elu_param:
            score = np.where(row > 0, row, elu_param * (np.exp(row) - 1))
        others = score[negatives]
        share = np.exp(others) / np.exp(others).sum()
        if name == "bpr_max":
            gain = np.sum(share * sigmoid(score[i] - others))
            per_lane.append(-np.log(gain + 1e-24) + bpreg * np.sum(share * others**2))
        elif name == "bpr":
            per_lane.append(np.mean(-np.log(sigmoid(score[i] - others))))
        else:
            terms = sigmoid(others - score[i]) + sigmoid(others**2)
            per_lane.append(terms.mean() if name == "top1" else np.sum(share * terms))
    return per_lane


def loss_of(
    name: str, logits: torch.Tensor, bpreg: float, elu_param: float, excluded: torch.Tensor | None
) -> torch.Tensor:
    if name == "bpr_max":
        return losses.bpr_max(logits, bpreg, elu_param, excluded)
    function: Callable[..., torch.Tensor] = getattr(losses, name)
    return function(logits, excluded)


@pytest.mark.parametrize("name", ["cross_entropy", "bpr_max", "bpr", "top1", "top1_max"])
@pytest.mark.parametrize("elu_param", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("mask", [False, True])
def test_against_numpy(name: str, elu_param: float, mask: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(5, 12, generator=generator, dtype=torch.float64)
    excluded = torch.rand(5, 12, generator=generator) < 0.3
    excluded.fill_diagonal_(False)
    expected = numpy_loss(name, logits.numpy(), 1.7, elu_param, excluded.numpy() & mask)
    ours = loss_of(name, logits, 1.7, elu_param, excluded if mask else None)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (losses.cross_entropy(BY_HAND), 0.376299),
        (losses.bpr(BY_HAND), 0.207038),
        (losses.top1(BY_HAND), 0.759129),
        (losses.top1_max(BY_HAND), 0.811782),
        (losses.bpr_max(BY_HAND, bpreg=0.0, elu_param=0.0), 0.226050),
        (losses.bpr_max(BY_HAND, bpreg=1.0, elu_param=0.0), 0.713422),
    ],
)
def test_values_worked_out_by_hand(loss: torch.Tensor, expected: float) -> None:
    assert loss.mean().item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "bpr_max", "bpr", "top1", "top1_max"])
def test_gradient(name: str) -> None:
    logits = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss_of(name, x, 1.3, 0.5, None), logits)


def test_bpr_max_learns_where_every_sigmoid_underflows() -> None:
    logits = torch.tensor([[-400.0, 300.0, 250.0]], requires_grad=True)
    loss = losses.bpr_max(logits, bpreg=0.0, elu_param=0.0)
    loss.sum().backward()
    # each negative adds exp(-700), share times sigmoid: the guard constant would turn the loss into 55
    assert loss.item() == pytest.approx(700 - np.log(2))
    assert logits.grad is not None
    assert logits.grad[0, 0].item() == pytest.approx(-1.0, abs=1e-4)


@pytest.mark.parametrize("name", ["cross_entropy", "bpr_max", "bpr", "top1", "top1_max"])
def test_a_lane_without_negatives_costs_nothing(name: str) -> None:
    logits = torch.tensor([[1.5]], requires_grad=True)
    loss = loss_of(name, logits, 1.0, 0.5, None)
    loss.sum().backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.item() == 0.0


def bpr_max_by_autograd(logits: torch.Tensor, bpreg: float, elu_param: float, negative: torch.Tensor) -> torch.Tensor:
    """The paper's formula, differentiated by torch."""
    scores = torch.nn.functional.elu(logits, elu_param) if elu_param else logits
    share = scores.masked_fill(~negative, -torch.inf).softmax(dim=1)
    gain = (share * torch.sigmoid(scores.diagonal()[:, None] - scores)).sum(dim=1)
    return -gain.log() + bpreg * (share * scores.square()).sum(dim=1)


@pytest.mark.parametrize("bpreg", [0.0, 1.95])
@pytest.mark.parametrize("elu_param", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("mask", [False, True])
def test_gradient_of_bpr_max(bpreg: float, elu_param: float, mask: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = 3 * torch.randn(7, 20, generator=generator, dtype=torch.float64)
    excluded = (torch.rand(7, 20, generator=generator) < 0.3) & mask
    negative = ~(excluded | torch.eye(7, 20, dtype=torch.bool))
    upstream = torch.rand(7, generator=generator, dtype=torch.float64)
    one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = bpr_max_by_autograd(one, bpreg, elu_param, negative)
    ours = losses.bpr_max(other, bpreg, elu_param, excluded if mask else None)
    (expected * upstream).sum().backward()
    (ours * upstream).sum().backward()
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(other.grad, one.grad, rtol=1e-10, atol=1e-12)
    assert torch.equal(logits, other.detach())  # the logits are left as they are
    assert torch.autograd.gradcheck(
        lambda x: losses.bpr_max(x, bpreg, elu_param, excluded if mask else None), (logits.requires_grad_(),)
    )
