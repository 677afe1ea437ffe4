"""Blocks of causal self-attention over sessions of different lengths, without padding but in the attention itself."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BlockName = Literal["plain", "ligr"]


class Packing(NamedTuple):
    """Events of padded sessions, one after the other."""

    events: Tensor
    """Place of each event in the flattened sessions, ascending, int64, shape (E,)."""
    n_sessions: int
    length: int
    """Length of the padded sessions."""

    @classmethod
    def up_to(cls, wanted: Tensor) -> Packing:
        """The events up to the last wanted one of each session, bool, shape (S, L).

        Example:
            >>> Packing.up_to(torch.tensor([[False, True, False], [True, False, False]])).events
            tensor([0, 1, 3])
        """
        counts = wanted.flip(1).cumsum(1).flip(1)  # of those from here on
        return cls((counts > 0).flatten().nonzero()[:, 0], *wanted.shape)

    def spread(self, values: Tensor) -> Tensor:
        """Values of the events, shape (E, W), as padded sessions, shape (S, L, W)."""
        padded = values.new_zeros(self.n_sessions * self.length, values.shape[1])
        return padded.index_copy(0, self.events, values).view(self.n_sessions, self.length, -1)

    def pick(self, padded: Tensor) -> Tensor:
        """Values of the events, shape (E, W), of padded sessions, shape (S, L, W)."""
        return padded.flatten(0, 1).index_select(0, self.events)


class Block(nn.Module):
    """Self-attention and an inner layer, each with a norm before it and a residual around it.

    An event sees itself and those before it. What it sees counts by a learned bias of its distance, in place of an
    embedding of places. The plain block is SASRec's; in a LiGR block a gate, sigmoid(W norm(x)), multiplies what each
    half adds, and the inner layer is SwiGLU.

    Args:
        size: Width of the states.
        n_heads: Number of attention heads, a divisor of ``size``.
        inner_size: Width of the inner layer.
        max_length: Most events of a session.
        kind: ``plain`` or ``ligr``.

    References:
        Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018.
        Shazeer, "GLU Variants Improve Transformer", 2020.
    """

    def __init__(self, size: int, n_heads: int, inner_size: int, max_length: int, kind: BlockName = "plain") -> None:
        super().__init__()
        self.n_heads, self.is_gated = n_heads, kind == "ligr"
        self.norms = nn.ModuleList([nn.LayerNorm(size), nn.LayerNorm(size)])
        self.inputs, self.output = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.inner, self.outer = nn.Linear(size, (1 + self.is_gated) * inner_size), nn.Linear(inner_size, size)
        self.gates = nn.ModuleList([nn.Linear(size, size) for _ in range(2 * self.is_gated)])
        self.bias = nn.Parameter(torch.zeros(n_heads, max_length))

    def forward(self, states: Tensor, packing: Packing, dropout: float) -> Tensor:
        """States of the events after the block, shape (E, size)."""
        normed = self.norms[0](states)
        added = self.output(self._attend(normed, packing, dropout))
        states = states + F.dropout(self._gated(0, added, normed), dropout)
        normed = self.norms[1](states)
        added = self.outer(F.dropout(self._activate(self.inner(normed)), dropout))
        return states + F.dropout(self._gated(1, added, normed), dropout)

    def _attend(self, normed: Tensor, packing: Packing, dropout: float) -> Tensor:
        length = packing.length
        parts = packing.spread(self.inputs(normed)).chunk(3, dim=2)
        query, key, value = (part.unflatten(2, (self.n_heads, -1)).transpose(1, 2) for part in parts)
        place = torch.arange(length, device=normed.device)
        distance = place[:, None] - place
        bias = self.bias[:, distance.clamp(min=0)].masked_fill(distance < 0, -torch.inf)  # (heads, L, L)
        # (S, heads, L, size / heads)
        seen = F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype)[None], dropout_p=dropout)
        return packing.pick(seen.transpose(1, 2).flatten(2))

    def _activate(self, inner: Tensor) -> Tensor:
        if not self.is_gated:
            return F.relu(inner)
        gate, value = inner.chunk(2, dim=1)
        return F.silu(gate) * value

    def _gated(self, half: int, added: Tensor, normed: Tensor) -> Tensor:
        return self.gates[half](normed).sigmoid() * added if self.is_gated else added
