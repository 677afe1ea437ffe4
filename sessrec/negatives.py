"""Negative samples drawn in proportion to a power of the items' popularity.

References:
    Hidasi and Karatzoglou, CIKM 2018, section 3.1 (additional negative samples, p(i) proportional to support^alpha).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NegativeSampler(nn.Module):
    """Draws items with replacement, item i with probability proportional to ``counts[i] ** alpha``.

    The distribution is held in float64: in float32 the tail items of a catalogue of a million starve or double. An item
    never counted is never drawn, also with ``alpha`` 0. The module follows the model to its device and adds nothing to
    its checkpoint.

    Args:
        counts: Events of each item in training, int64, shape (N,).
        alpha: Power put on the counts: 0 draws uniformly, 1 by popularity.

    Example:
        >>> sampler = NegativeSampler(torch.tensor([5, 0, 1]), alpha=0.0)
        >>> generator = torch.Generator().manual_seed(0)
        >>> sampler.sample((2, 4), generator).unique()
        tensor([0, 2])
    """

    cumulative: Tensor

    def __init__(self, counts: Tensor, alpha: float) -> None:
        super().__init__()
        weight = torch.where(counts > 0, counts.double() ** alpha, 0.0)
        self.register_buffer("cumulative", weight.cumsum(0), persistent=False)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw a block of items by inverse transform.

        Args:
            shape: Shape of the block; one large block is cheaper than many small ones.
            generator: Source of randomness, on the sampler's device.

        Returns:
            Item indices, int64, of the given shape.
        """
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=self.cumulative.device)
        # u * total may round up to the total itself; `right` skips items of zero probability
        drawn = torch.searchsorted(self.cumulative, uniform * self.cumulative[-1], right=True)
        return drawn.clamp_(max=self.last_item)

    @property
    def last_item(self) -> int:
        """The last item that has a positive probability."""
        return int(torch.searchsorted(self.cumulative, self.cumulative[-1]))
