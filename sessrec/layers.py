"""The two GRU cells of GRU4Rec, with its initialisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def initialise_gates(weight: Tensor, n_gates: int, dim: int) -> None:
    """Draw every gate's matrix from U(-s, s), s = sqrt(6 / (rows + columns)) of that gate's own matrix, in place.

    Args:
        weight: The gates' matrices, one after the other along ``dim``.
        n_gates: Number of gates; 1 for a plain table.
        dim: Dimension that the gates share.
    """
    with torch.no_grad():
        for gate in weight.chunk(n_gates, dim=dim):
            bound = (6 / sum(gate.shape)) ** 0.5
            gate.uniform_(-bound, bound)


class GRUCell(nn.GRUCell):
    """torch's GRU cell, whose gates r, z, n are initialised one by one and whose biases start at 0."""

    def reset_parameters(self) -> None:
        """Draw new weights."""
        for weight in (self.weight_ih, self.weight_hh):
            initialise_gates(weight, 3, dim=0)
        nn.init.zeros_(self.bias_ih)
        nn.init.zeros_(self.bias_hh)


class ResetBeforeGRUCell(nn.Module):
    """A GRU cell whose reset gate acts on the state before the matrix product, fed with ready-made input terms.

    With the input's terms (a_n, a_r, a_z) and bias: r = sigmoid(a_r + h U_r), z = sigmoid(a_z + h U_z),
    n = tanh(a_n + (r * h) U_n), h' = (1 - z) h + z n.

    Args:
        hidden_size: Units H.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight_rz = nn.Parameter(torch.empty(hidden_size, 2 * hidden_size))
        self.weight_n = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.empty(3 * hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        initialise_gates(self.weight_rz, 2, dim=1)
        initialise_gates(self.weight_n, 1, dim=1)
        nn.init.zeros_(self.bias)

    def forward(self, inputs: Tensor, hidden: Tensor) -> Tensor:
        """Next hidden state, shape (B, H), from input terms (B, 3 H) in the order n, r, z and the state (B, H)."""
        candidate, reset, update = (inputs + self.bias).chunk(3, dim=1)
        from_hidden = hidden @ self.weight_rz  # (B, 2 H)
        reset_from_hidden, update_from_hidden = from_hidden.chunk(2, dim=1)
        reset = torch.sigmoid(reset + reset_from_hidden)
        update = torch.sigmoid(update + update_from_hidden)
        candidate = torch.tanh(candidate + (reset * hidden) @ self.weight_n)
        return torch.lerp(hidden, candidate, update)
