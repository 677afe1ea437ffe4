"""Losses and their gradients against the papers' formulas on every copy, values by hand, and behaviour at the edges."""

from __future__ import annotations

from typing import NamedTuple

import mpmath
import numpy as np
import pytest
import torch
from helpers import paper_loss
from torch import Tensor

from sessrec.nn import losses
from sessrec.nn.losses import Candidates

BY_HAND = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 3.0]])
NAMES = ["cross_entropy", "bpr_max", "bpr", "top1", "top1_max"]
VARIANTS = [
    *((name, 0.0, 0.0) for name in NAMES if name != "bpr_max"),
    *(("bpr_max", bpreg, elu_param) for bpreg in (0.0, 1.95) for elu_param in (0.0, 0.5, 1.0)),
]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numpy_loss(name: str, logits: np.ndarray, bpreg: float, elu_param: float, excluded: np.ndarray) -> list[float]:
    """Every loss lane by lane and negative by negative, as the papers write them; lane i's target is draw i."""
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


def paper_gradient(name: str, logits: Tensor, bpreg: float, elu_param: float, case: Case) -> tuple[Tensor, Tensor]:
    """Loss of each lane over all draws in float64, and its gradient summed up over the draws of each column."""
    columns = logits.double().clone().requires_grad_()
    loss = paper_loss(name, columns[:, case.draws] + case.draw_weights.log(), bpreg, elu_param, case.excluded_draws)
    return loss.detach(), torch.autograd.grad(loss.sum(), columns)[0]


def our_loss(
    name: str, logits: Tensor, bpreg: float, elu_param: float, candidates: Candidates
) -> tuple[Tensor, Tensor]:
    """Loss and gradient from a copy of the logits, which may be overwritten."""
    if name == "bpr_max":
        return losses.bpr_max(logits.clone(), candidates, bpreg, elu_param)
    return getattr(losses, name)(logits.clone(), candidates)


class Case(NamedTuple):
    """The same candidates as distinct columns and as single draws, the first of which are the lanes' targets."""

    draws: Tensor
    """Column of each draw, shape (n,)."""
    draw_weights: Tensor
    """Weight of each draw, shape (n,)."""
    excluded_draws: Tensor
    """Draws that are no negatives of a lane, shape (B, n)."""
    candidates: Candidates


def case_of(draws: Tensor, draw_weights: Tensor, n_lanes: int, copies_count: bool = True) -> Case:
    """Sum up draws by plain loops; with ``copies_count`` the copies of its target are a lane's negatives."""
    n_columns = int(draws.max()) + 1
    weights = torch.zeros(n_columns, dtype=draw_weights.dtype)
    for column, weight in zip(draws.tolist(), draw_weights, strict=True):
        weights[column] += weight
    targets, own_weights = draws[:n_lanes], torch.zeros(n_lanes, dtype=draw_weights.dtype)
    excluded_draws = torch.zeros(n_lanes, len(draws), dtype=torch.bool)
    for lane in range(n_lanes):
        for draw, column in enumerate(draws.tolist()):
            if draw != lane and column == targets[lane]:
                own_weights[lane] += draw_weights[draw] * copies_count
                excluded_draws[lane, draw] = not copies_count
    flat = torch.arange(n_lanes) * n_columns + targets
    candidates = Candidates(flat, weights, draw_weights[:n_lanes], own_weights)
    return Case(draws, draw_weights, excluded_draws, candidates)


def random_case(seed: int, copies_count: bool, whole_weights: bool = True) -> tuple[Tensor, Case]:
    """Five lanes, of which the first two have the same target, and 12 columns that were drawn up to some times."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.tensor([3, 3, 0, 7, 11])
    draws = torch.cat([targets, torch.randperm(12, generator=generator), torch.randint(12, (9,), generator=generator)])
    draws = draws[torch.cat([torch.arange(5), 5 + (draws[5:] != 7).nonzero()[:, 0]])]  # lane 3's target has no copy
    weights = torch.rand(len(draws), generator=generator, dtype=torch.float64) * 3 + 1e-3
    logits = 2 * torch.randn(5, 12, generator=generator, dtype=torch.float64)
    return logits, case_of(draws, torch.ones_like(weights) if whole_weights else weights, 5, copies_count)


@pytest.mark.parametrize(("name", "bpreg", "elu_param"), VARIANTS)
@pytest.mark.parametrize("copies_count", [False, True])
def test_against_numpy(name: str, bpreg: float, elu_param: float, copies_count: bool) -> None:
    logits, case = random_case(1, copies_count)
    assert case.candidates.own_weights.any() == copies_count
    assert case.candidates.own_weights[3] == 0
    expected = numpy_loss(name, logits[:, case.draws].numpy(), bpreg, elu_param, case.excluded_draws.numpy())
    loss, gradient = our_loss(name, logits, bpreg, elu_param, case.candidates)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-9)
    assert loss.dtype == gradient.dtype == torch.float64
    assert not loss.requires_grad
    assert not gradient.requires_grad


@pytest.mark.parametrize(("name", "bpreg", "elu_param"), VARIANTS)
@pytest.mark.parametrize("copies_count", [False, True])
@pytest.mark.parametrize("seed", [2, 3])
def test_gradient(name: str, bpreg: float, elu_param: float, copies_count: bool, seed: int) -> None:
    logits, case = random_case(seed, copies_count)
    expected_loss, expected = paper_gradient(name, logits, bpreg, elu_param, case)
    loss, gradient = our_loss(name, logits, bpreg, elu_param, case.candidates)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("copies_count", [False, True])
def test_cross_entropy_with_fractions_of_copies(copies_count: bool) -> None:
    """As the popularity correction has it: log(weight) is added to the logit of each copy."""
    logits, case = random_case(4, copies_count, whole_weights=False)
    corrected = (logits[:, case.draws] + case.draw_weights.log()).numpy()
    loss, gradient = losses.cross_entropy(logits.clone(), case.candidates)
    np.testing.assert_allclose(
        loss.numpy(), numpy_loss("cross_entropy", corrected, 0.0, 0.0, case.excluded_draws.numpy()), rtol=1e-10
    )
    expected = paper_gradient("cross_entropy", logits, 0.0, 0.0, case)[1]
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "bpreg", "expected"),
    [
        ("cross_entropy", 0.0, 0.376299),
        ("bpr", 0.0, 0.207038),
        ("top1", 0.0, 0.759129),
        ("top1_max", 0.0, 0.811782),
        ("bpr_max", 0.0, 0.226050),
        ("bpr_max", 1.0, 0.713422),
    ],
)
def test_values_worked_out_by_hand(name: str, bpreg: float, expected: float) -> None:
    loss, _ = our_loss(name, BY_HAND, bpreg, 0.0, Candidates.each_once(3, torch.ones(3)))
    assert loss.mean().item() == pytest.approx(expected, abs=1e-6)


def test_each_once_takes_the_weights_as_they_are() -> None:
    candidates = Candidates.each_once(2, torch.tensor([0.5, 2.0, 3.0]))
    assert candidates.targets.tolist() == [0, 4]
    assert candidates.weights.tolist() == [0.5, 2.0, 3.0]
    assert candidates.target_weights.tolist() == [0.5, 2.0]
    assert candidates.own_weights.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("name", "bpreg", "elu_param"), VARIANTS)
@pytest.mark.parametrize("seed", [5, 6])
def test_gradient_by_differences(name: str, bpreg: float, elu_param: float, seed: int) -> None:
    """Nothing but the loss itself says what its gradient is."""
    logits, case = random_case(seed, copies_count=True)
    _, gradient = our_loss(name, logits, bpreg, elu_param, case.candidates)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ahead, behind = (
        our_loss(name, logits + sign * 1e-5 * direction, bpreg, elu_param, case.candidates)[0] for sign in (1, -1)
    )
    torch.testing.assert_close((gradient * direction).sum(dim=1), (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("name", "bpreg", "elu_param"), VARIANTS)
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_float32_is_close_to_float64(name: str, bpreg: float, elu_param: float, scale: float) -> None:
    logits, case = random_case(7, copies_count=True)
    logits = (scale * logits / 2).float()
    expected_loss, expected = paper_gradient(name, logits, bpreg, elu_param, case)
    single = Candidates(*(part.float() if part.is_floating_point() else part for part in case.candidates))
    loss, gradient = our_loss(name, logits, bpreg, elu_param, single)
    assert loss.dtype == gradient.dtype == torch.float32
    size = expected.abs().amax().clamp(min=1).item()
    torch.testing.assert_close(loss.double(), expected_loss, rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(gradient.double(), expected, rtol=2e-5, atol=2e-6 * size)


def test_bpr_max_learns_where_every_sigmoid_underflows() -> None:
    logits = torch.tensor([[-400.0, 300.0, 250.0]])
    loss, gradient = our_loss("bpr_max", logits, 0.0, 0.0, Candidates.each_once(1, torch.ones(3)))
    # each negative adds exp(-700), share times sigmoid: the guard constant would turn the loss into 55
    assert loss.item() == pytest.approx(700 - np.log(2))
    assert gradient[0, 0].item() == pytest.approx(-1.0, abs=1e-4)


def exact_bpr_max(own: float, negatives: list[tuple[float, int]]) -> tuple[float, list[float]]:
    """Loss in 60 digits, and its derivatives by differences: at the target, then at one copy of each negative."""

    def loss(values: list[mpmath.mpf]) -> mpmath.mpf:
        own, *others = values  # each negative's first copy, then the rest of its copies, which stay
        terms = [(other, 1) for other in others] + [(mpmath.mpf(value), n - 1) for value, n in negatives]
        total = sum(n * mpmath.exp(value) for value, n in terms)
        return -mpmath.log(sum(n * mpmath.exp(value) / (1 + mpmath.exp(value - own)) for value, n in terms) / total)

    with mpmath.workdps(60):
        values, h = [mpmath.mpf(own), *(mpmath.mpf(value) for value, _ in negatives)], mpmath.mpf(10) ** -25
        shifted = [
            [[value + sign * h * (number == place) for number, value in enumerate(values)] for sign in (1, -1)]
            for place in range(len(values))
        ]
        return float(loss(values)), [float((loss(ahead) - loss(behind)) / (2 * h)) for ahead, behind in shifted]


FAR_BELOW = [
    *([(lead, 1), (0.0, n)] for lead, n in ((39.9, 2048), (40.1, 2048), (84.0, 2048), (90.0, 2048), (85.0, 20_000))),
    *([(lead, 1), (-3.0, 20_000), (2.0, 5)] for lead in (-2.0, 10.0, 87.0, 150.0, 300.0)),
    [(-300.0, 2), (-301.0, 1)],
    [(300.0, 2), (299.0, 3), (-300.0, 1000)],
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("negatives", FAR_BELOW)
def test_bpr_max_where_one_negative_leads_and_many_are_near(
    negatives: list[tuple[float, int]], dtype: torch.dtype
) -> None:
    """As they are drawn, and as columns that weigh as often as they were drawn; beside a lane of the usual range."""
    negatives = [(torch.tensor(value, dtype=dtype).item(), n) for value, n in negatives]
    expected, gradient_of = exact_bpr_max(0.0, negatives)
    columns = torch.tensor([[0.0, *(value for value, _ in negatives)], [0.5] * (1 + len(negatives))], dtype=dtype)
    counts = torch.tensor([1, *(n for _, n in negatives)])
    drawn = columns.repeat_interleave(counts, dim=1)
    flat = torch.tensor([0, drawn.shape[1]])
    once, none = torch.ones(2, dtype=dtype), torch.zeros(2, dtype=dtype)
    losses_of, gradients = losses.bpr_max(
        drawn, Candidates(flat, torch.ones(drawn.shape[1], dtype=dtype), once, none), 0.0, 0.0
    )
    first = counts.cumsum(0) - counts
    weighed = Candidates(torch.tensor([0, len(counts)]), counts.to(dtype), once, none)
    in_columns, in_column_gradients = losses.bpr_max(columns.clone(), weighed, 0.0, 0.0)
    for loss, gradient in ((losses_of, gradients[:, first]), (in_columns, in_column_gradients / counts)):
        rtol = 2e-5 if dtype == torch.float32 else 1e-12
        assert loss[0].item() == pytest.approx(expected, rel=rtol, abs=rtol)
        np.testing.assert_allclose(gradient[0].numpy(), gradient_of, rtol=10 * rtol, atol=rtol)
        assert loss[1].item() == pytest.approx(np.log(2), rel=rtol)


@pytest.mark.parametrize("scale", [1.0, 85.0, 300.0])
def test_bpr_max_at_any_scale(scale: float) -> None:
    logits = (torch.randn(4, 30, generator=torch.Generator().manual_seed(8)) * scale).clamp(-300, 300)
    loss, gradient = losses.bpr_max(logits.clone(), Candidates.each_once(4, torch.ones(30)), 0.0, 0.0)
    for lane, row in enumerate(logits.tolist()):
        others = [column for column in range(30) if column != lane]
        expected, (of_target, *of_others) = exact_bpr_max(row[lane], [(row[column], 1) for column in others])
        assert loss[lane].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
        np.testing.assert_allclose(gradient[lane, [lane, *others]], [of_target, *of_others], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "bpr_max"])
@pytest.mark.parametrize("negatives", FAR_BELOW)
def test_other_losses_where_one_negative_leads_and_many_are_near(name: str, negatives: list[tuple[float, int]]) -> None:
    values = torch.tensor([0.0, *(value for value, _ in negatives)])
    drawn = values.repeat_interleave(torch.tensor([1, *(n for _, n in negatives)]))[None]
    case = case_of(torch.arange(drawn.shape[1]), torch.ones(drawn.shape[1]), 1)
    expected_loss, expected = paper_gradient(name, drawn, 0.0, 0.0, case)
    loss, gradient = our_loss(name, drawn, 0.0, 0.0, case.candidates)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_16_bits_are_taken_in_32(name: str, dtype: torch.dtype) -> None:
    logits, weights = BY_HAND.to(dtype), torch.tensor([1.0, 1.0, 3.0], dtype=dtype)
    ours = getattr(losses, name)(logits.clone(), Candidates.each_once(3, weights))
    exact = getattr(losses, name)(logits.float(), Candidates.each_once(3, weights.float()))
    for own, expected in zip(ours, exact, strict=True):
        assert own.dtype == torch.float32
        assert torch.equal(own, expected)


@pytest.mark.parametrize(("name", "bpreg", "elu_param"), VARIANTS)
@pytest.mark.parametrize(
    "row",
    [
        [-400.0, 300.0, 250.0],
        [-400.0, 400.0, 400.0],
        [-400.0, 0.0, 0.5],
        [-400.0, -400.0, -400.0],
        [400.0, 400.0, 400.0],
        [400.0, -400.0, -400.0],
        [30.0, 0.0, -1.0],
        [50.0, 0.0, -1.0],
        [90.0, 0.0, -1.0],
        [200.0, 0.0, -1.0],
        [400.0, 0.0, -1.0],
        [0.0, 400.0, 399.0],
        [0.0, -400.0, -399.0],
    ],
)
@pytest.mark.parametrize("n_copies", [0, 2])
def test_extreme_logits(name: str, bpreg: float, elu_param: float, row: list[float], n_copies: int) -> None:
    """Far from where float32 holds an exponential, loss and gradient are finite, and those of float64 in log space."""
    logits = torch.tensor([row])
    case = case_of(torch.tensor([0, 1, 2, *[0] * n_copies]), torch.ones(3 + n_copies), 1)
    expected_loss, expected = paper_gradient(name, logits, bpreg, elu_param, case)
    loss, gradient = our_loss(name, logits, bpreg, elu_param, case.candidates)
    size = expected.abs().amax().clamp(min=1).item()
    torch.testing.assert_close(loss.double(), expected_loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=2e-5 * size)


@pytest.mark.parametrize(("name", "bpreg", "elu_param"), VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_lane_without_negatives_costs_nothing(name: str, bpreg: float, elu_param: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[1.5]], dtype=dtype)
    loss, gradient = our_loss(name, logits, bpreg, elu_param, Candidates.each_once(1, torch.ones(1, dtype=dtype)))
    assert loss.item() == 0.0
    assert gradient.item() == 0.0
