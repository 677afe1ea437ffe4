"""GRU cells and their gradients against torch, numpy and autograd; dropout masks; products under autocast."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sessrec.nn.layers import GRUCell, ResetBeforeGRUCell, dropout_mask, linear, mm


def randomised(cell: nn.Module, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The cell with every weight drawn anew, biases too, which start at 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return cell.to(dtype)


def random_tensors(*shapes: tuple[int, int], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def reset_before(cell: ResetBeforeGRUCell, terms: Tensor, hidden: Tensor) -> Tensor:
    """The formula of the class, for torch to differentiate."""
    size = cell.hidden_size
    a_n, a_r, a_z = (terms[:, gate * size : (gate + 1) * size] for gate in range(3))
    b_n, b_r, b_z = (cell.bias[gate * size : (gate + 1) * size] for gate in range(3))
    r = torch.sigmoid(a_r + b_r + hidden @ cell.weight_rz[:, :size])
    z = torch.sigmoid(a_z + b_z + hidden @ cell.weight_rz[:, size:])
    n = torch.tanh(a_n + b_n + (r * hidden) @ cell.weight_n)
    return (1 - z) * hidden + z * n


@pytest.mark.parametrize("n_lanes", [1, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gru_cell_is_that_of_torch(n_lanes: int, dtype: torch.dtype) -> None:
    cell = randomised(GRUCell(4, 5), dtype=dtype)
    inputs, hidden = random_tensors((n_lanes, 4), (n_lanes, 5), dtype=dtype)
    before = inputs.clone(), hidden.clone()
    with torch.no_grad():
        torch.testing.assert_close(cell.step(inputs, hidden)[0], nn.GRUCell.forward(cell, inputs, hidden))
    assert torch.equal(inputs, before[0])
    assert torch.equal(hidden, before[1])


def test_reset_before_cell_against_numpy() -> None:
    cell = randomised(ResetBeforeGRUCell(5))
    terms, hidden = random_tensors((6, 15), (6, 5))
    weights = {name: weight.detach().numpy() for name, weight in cell.named_parameters()}
    bias_n, bias_r, bias_z = np.split(weights["bias"], 3)
    expected = np.empty((6, 5))
    for lane in range(6):
        a_n, a_r, a_z = np.split(terms[lane].numpy(), 3)
        h = hidden[lane].numpy()
        r = 1 / (1 + np.exp(-(a_r + bias_r + h @ weights["weight_rz"][:, :5])))
        z = 1 / (1 + np.exp(-(a_z + bias_z + h @ weights["weight_rz"][:, 5:])))
        n = np.tanh(a_n + bias_n + (r * h) @ weights["weight_n"])
        expected[lane] = (1 - z) * h + z * n
    before = terms.clone(), hidden.clone()
    with torch.no_grad():
        np.testing.assert_allclose(cell.step(terms, hidden)[0].numpy(), expected, rtol=1e-12)
    assert torch.equal(terms, before[0])
    assert torch.equal(hidden, before[1])


@pytest.mark.parametrize("kind", ["torch", "reset-before"])
@pytest.mark.parametrize("n_lanes", [1, 6])
def test_backward_is_that_of_autograd(kind: str, n_lanes: int) -> None:
    cell = randomised(GRUCell(4, 5) if kind == "torch" else ResetBeforeGRUCell(5))
    inputs, hidden, upstream = random_tensors((n_lanes, 4 if kind == "torch" else 15), (n_lanes, 5), (n_lanes, 5))
    inputs.requires_grad_()
    new = nn.GRUCell.forward(cell, inputs, hidden) if kind == "torch" else reset_before(cell, inputs, hidden)
    expected = torch.autograd.grad((new * upstream).sum(), [inputs, *cell.parameters()])
    before = upstream.clone()
    with torch.no_grad():
        _, saved = cell.step(inputs, hidden)
        d_inputs = cell.backward(saved, upstream)
    assert torch.equal(upstream, before)
    for ours, theirs in zip([d_inputs, *(weight.grad for weight in cell.parameters())], expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", ["torch", "reset-before"])
def test_cells_under_autocast_are_about_those_without(kind: str) -> None:
    cell = randomised(GRUCell(4, 5) if kind == "torch" else ResetBeforeGRUCell(5), dtype=torch.float32)
    tensors = random_tensors((6, 4 if kind == "torch" else 15), (6, 5), (6, 5), dtype=torch.float32)
    results = []
    for enabled in (False, True):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            new, saved = cell.step(*tensors[:2])
            d_inputs = cell.backward(saved, tensors[2])
        results.append([new, d_inputs, *(weight.grad for weight in cell.parameters())])
    for plain, cast in zip(*results, strict=True):
        assert cast.dtype == torch.float32
        torch.testing.assert_close(cast, plain, rtol=0.0, atol=0.03 * plain.abs().max().item())
    assert not torch.equal(results[0][0], results[1][0])


def test_product_into_given_memory() -> None:
    left, right = random_tensors((5, 40), (40, 7), dtype=torch.float32)
    plain = mm(left, right)
    torch.testing.assert_close(plain, (left.double() @ right.double()).float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, out = mm(left, right), torch.empty(5, 7)
        assert mm(left, right, out=out) is out
    assert cast.dtype == torch.float32
    assert torch.equal(out, cast)
    assert not torch.equal(cast, plain)  # it was in bfloat16 indeed
    assert mm(left, right, out=out) is out
    assert torch.equal(out, plain)


def test_affine() -> None:
    left, right, bias = random_tensors((5, 40), (40, 7), (1, 7), dtype=torch.float32)
    torch.testing.assert_close(linear(bias[0], left, right), mm(left, right) + bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = linear(bias[0], left, right)
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, mm(left, right) + bias, rtol=0.0, atol=0.3)


@pytest.mark.parametrize("probability", [0.05, 0.25, 0.5, 0.9])
def test_dropout_mask_drops_its_share(probability: float) -> None:
    """Over all elements, at each of the four places of a word, and of neighbours independently."""
    mask = dropout_mask((30_001, 7), probability, torch.Generator().manual_seed(0))
    assert mask.shape == (30_001, 7)
    assert mask.dtype == torch.float32
    assert mask.unique().tolist() == [0.0, pytest.approx(1 / (1 - probability), rel=1e-4)]
    dropped = (mask.view(-1) == 0).double()
    spread = 5 * (probability * (1 - probability)) ** 0.5
    for part in (dropped, *(dropped[place::4] for place in range(4))):
        assert part.mean().item() == pytest.approx(probability, abs=spread / len(part) ** 0.5)
    for distance in (1, 2, 3, 4):
        both = (dropped[distance:] * dropped[:-distance]).mean().item()
        assert both == pytest.approx(probability**2, abs=5 * probability / len(dropped) ** 0.5)


@pytest.mark.parametrize("shape", [(1,), (3,), (4,), (3, 5), (2, 3, 7), (0, 4)])
def test_dropout_mask_has_any_shape_and_follows_from_its_generator(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    first, second = (dropout_mask(shape, 0.5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.shape == shape
    assert torch.equal(first, second)
    assert torch.equal(dropout_mask(shape, 0.5, generator), first)
    later = torch.cat([dropout_mask((64,), 0.5, generator), dropout_mask((64,), 0.5, generator)])
    assert not torch.equal(later[:64], later[64:])


def test_dropout_masks_of_probabilities_at_the_ends() -> None:
    assert (dropout_mask((999,), 1e-9, torch.Generator().manual_seed(0)) == 1).all()
    nearly_all = dropout_mask((999,), 1 - 1e-9, torch.Generator().manual_seed(0))
    assert set(nearly_all.unique().tolist()) <= {0.0, 65536.0}
