"""The two GRU cells of GRU4Rec with their gradients worked out by hand, its initialisation and its dropout.

A training step goes back through one step in time only, so a cell's `backward` gives the gradient of its inputs and
leaves those of its weights in them; that of the state it started from is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


def initialise_gates(weight: Tensor, n_gates: int, dim: int) -> None:
    """Draw the matrix of each gate along ``dim`` from U(-s, s), s = sqrt(6 / (rows + columns)) of its own, in place."""
    with torch.no_grad():
        for gate in weight.chunk(n_gates, dim=dim):
            bound = (6 / sum(gate.shape)) ** 0.5
            gate.uniform_(-bound, bound)


def mm(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Matrix product in the precision that autocast chooses, given back in that of ``left``, or put into ``out``."""
    if out is None:
        return torch.mm(left, right).to(left.dtype)
    if torch.is_autocast_enabled(left.device.type):  # which does not see a product with ``out``
        return out.copy_(torch.mm(left, right))
    return torch.mm(left, right, out=out)


def linear(bias: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`mm` plus a bias."""
    return torch.addmm(bias, left, right).to(left.dtype)


class GRUCell(nn.GRUCell):
    """torch's GRU cell, whose gates r, z, n are initialised one by one and whose biases start at 0."""

    def reset_parameters(self) -> None:
        """Draw new weights."""
        for weight in (self.weight_ih, self.weight_hh):
            initialise_gates(weight, 3, dim=0)
        nn.init.zeros_(self.bias_ih)
        nn.init.zeros_(self.bias_hh)

    def step(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, _Saved]:
        """Next hidden state, shape (B, H), from inputs (B, I) and state (B, H); and what `backward` needs."""
        terms = linear(self.bias_ih, inputs, self.weight_ih.T)  # (B, 3 H)
        hidden_terms = linear(self.bias_hh, hidden, self.weight_hh.T)  # (B, 3 H)
        sizes = [2 * self.hidden_size, self.hidden_size]
        gates, candidate = torch.split_with_sizes(terms, sizes, dim=1)  # (B, 2 H), (B, H): views, changed in place
        hidden_gates, hidden_candidate = torch.split_with_sizes(hidden_terms, sizes, dim=1)  # (B, 2 H), (B, H)
        reset, update = gates.add_(hidden_gates).sigmoid_().chunk(2, dim=1)  # r and z, (B, H) each
        candidate = candidate.addcmul_(reset, hidden_candidate).tanh_()  # n, (B, H)
        return torch.lerp(candidate, hidden, update), _Saved(inputs, hidden, gates, candidate, hidden_candidate)

    def backward(self, saved: _Saved, upstream: Tensor) -> Tensor:
        """Gradient of the inputs, shape (B, I), from that of the new state, shape (B, H)."""
        inputs, hidden, gates, candidate, hidden_candidate = saved
        reset, update = gates.chunk(2, dim=1)  # (B, H) each
        d_terms = upstream.new_empty(len(inputs), 3 * self.hidden_size)  # (B, 3 H), filled through its parts
        d_gates, d_candidate = torch.split_with_sizes(d_terms, [2 * self.hidden_size, self.hidden_size], dim=1)
        _tanh_backward(upstream.addcmul(upstream, update, value=-1), candidate, grad_input=d_candidate)  # (B, H)
        d_gates_out = torch.cat([d_candidate * hidden_candidate, upstream * (hidden - candidate)], dim=1)  # (B, 2 H)
        _sigmoid_backward(d_gates_out, gates, grad_input=d_gates)  # (B, 2 H)
        d_inputs = mm(d_terms, self.weight_ih)  # (B, 3 H) (3 H, I)
        self.weight_ih.grad, self.bias_ih.grad = mm(d_terms.T, inputs), d_terms.sum(dim=0)
        d_candidate.mul_(reset)  # d_terms is now that of the terms from the hidden state
        self.weight_hh.grad, self.bias_hh.grad = mm(d_terms.T, hidden), d_terms.sum(dim=0)
        return d_inputs


class ResetBeforeGRUCell(nn.Module):
    """A GRU cell whose reset gate acts on the state before the matrix product, fed with ready-made input terms.

    With the input's terms (a_n, a_r, a_z) and bias: r = sigmoid(a_r + h U_r), z = sigmoid(a_z + h U_z),
    n = tanh(a_n + (r * h) U_n), h' = (1 - z) h + z n.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.weight_rz = nn.Parameter(torch.empty(hidden_size, 2 * hidden_size))
        self.weight_n = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.empty(3 * hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        initialise_gates(self.weight_rz, 2, dim=1)
        initialise_gates(self.weight_n, 1, dim=1)
        nn.init.zeros_(self.bias)

    def step(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, _Saved]:
        """Next hidden state, shape (B, H), from input terms (B, 3 H) in the order n, r, z and the state (B, H)."""
        candidate, gates = (inputs + self.bias).split([self.hidden_size, 2 * self.hidden_size], dim=1)
        gates = (gates + mm(hidden, self.weight_rz)).sigmoid_()  # (B, 2 H)
        reset, update = gates.chunk(2, dim=1)  # r and z, (B, H) each
        kept = reset * hidden  # (B, H)
        candidate = (candidate + mm(kept, self.weight_n)).tanh_()  # n, (B, H)
        return torch.lerp(hidden, candidate, update), _Saved(inputs, hidden, gates, candidate, kept)

    def backward(self, saved: _Saved, upstream: Tensor) -> Tensor:
        """Gradient of the input terms, shape (B, 3 H), from that of the new state, shape (B, H)."""
        inputs, hidden, gates, candidate, kept = saved
        d_terms = torch.empty_like(inputs)  # (B, 3 H), filled through its parts
        d_candidate, d_gates = d_terms.split([self.hidden_size, 2 * self.hidden_size], dim=1)  # (B, H), (B, 2 H)
        _tanh_backward(upstream * gates[:, self.hidden_size :], candidate, grad_input=d_candidate)
        d_kept = mm(d_candidate, self.weight_n.T)  # (B, H)
        d_gates_out = torch.cat([d_kept * hidden, upstream * (candidate - hidden)], dim=1)  # (B, 2 H)
        _sigmoid_backward(d_gates_out, gates, grad_input=d_gates)  # (B, 2 H)
        self.weight_n.grad, self.weight_rz.grad = mm(kept.T, d_candidate), mm(hidden.T, d_gates)
        self.bias.grad = d_terms.sum(dim=0)
        return d_terms


class GRUStack(nn.ModuleList):
    """Cells one above the other, with dropout on the inputs and on the output of each, which is also its new state."""

    def step(
        self, inputs: Tensor, hidden: Sequence[Tensor], masks: Sequence[Tensor | None]
    ) -> tuple[list[Tensor], list[_Saved]]:
        """New state of each cell, shapes (B, H), from inputs (B, I) and the states before; and what `backward` needs.

        The masks are dropout masks, or None: on the inputs, then on each cell's output.
        """
        new_hidden, saved_of_cells = [], []
        below = _masked(inputs, masks[0])
        cell: Any
        for cell, state, mask in zip(self, hidden, masks[1:], strict=True):
            below, saved = cell.step(below, state)
            below = _masked(below, mask)
            new_hidden.append(below)
            saved_of_cells.append(saved)
        return new_hidden, saved_of_cells

    def backward(self, saved_of_cells: Sequence[_Saved], upstream: Tensor, masks: Sequence[Tensor | None]) -> Tensor:
        """Gradient of the inputs, shape (B, I), from that of the last cell's state, shape (B, H)."""
        cell: Any
        for cell, saved, mask in zip([*self][::-1], reversed(saved_of_cells), reversed(masks[1:]), strict=True):
            upstream = cell.backward(saved, _masked(upstream, mask))
        return _masked(upstream, masks[0])


def _masked(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values * mask


class _Saved(NamedTuple):
    """What a cell saves for `backward`; B lanes, H units."""

    inputs: Tensor
    hidden: Tensor
    gates: Tensor
    """Reset and update gate, shape (B, 2 H)."""
    candidate: Tensor
    """Candidate state, shape (B, H)."""
    hidden_part: Tensor
    """What the state gave to the candidate state, shape (B, H): its terms before the reset gate, or the gated state."""


_tanh_backward: Any = torch.ops.aten.tanh_backward.grad_input
_sigmoid_backward: Any = torch.ops.aten.sigmoid_backward.grad_input


def dropout_mask(shape: tuple[int, ...], probability: float, generator: torch.Generator) -> Tensor:
    """Factors that drop elements, float32: 0 with the given probability, below 1, else what keeps the mean.

    The probability is taken to the nearest multiple of 1/65536: 16 random bits an element, which come four at a time,
    take a tenth of the time of a Bernoulli draw on a CPU. The mask is on the generator's device.
    """
    n_elements = torch.Size(shape).numel()
    n_dropped = min(round(probability * 65536), 65535)  # of the 65536 values of 16 bits
    words = torch.empty(-(-n_elements // 4), dtype=torch.int64, device=generator.device)
    bits = words.random_(-(2**63), None, generator=generator).view(torch.int16)[:n_elements]
    return (bits >= n_dropped - 32768).float().mul_(65536 / (65536 - n_dropped)).view(shape)
