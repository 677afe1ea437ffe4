"""Negative samples drawn in proportion to a power of the items' popularity.

References:
    Hidasi and Karatzoglou, CIKM 2018, section 3.1 (additional negative samples, p(i) proportional to support^alpha).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

LogQMode = Literal["published", "textbook"]


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
        self._last_item = int(
            torch.nonzero(weight)[-1]
        )  # found once: asking the device in every block would wait for it

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
        return drawn.clamp_(max=self._last_item)


class LogQ(nn.Module):
    """Log of how often each candidate of a step is met: the popularity correction of sampled cross-entropy.

    A target is met in proportion to its count, a sample in proportion to its count to the power alpha. ``published``
    takes these numbers as they are; ``textbook`` the expected number of draws of the item in the step.

    Args:
        counts: Events of each item in training, all above 0, int64, shape (N,).
        alpha: Power of the negative samples.
        mode: ``published`` or ``textbook``.
    """

    log_counts: Tensor

    def __init__(self, counts: Tensor, alpha: float, mode: LogQMode) -> None:
        super().__init__()
        self.alpha = alpha
        self.textbook = mode == "textbook"
        log_counts = counts.double().log()
        self._log_total = log_counts.logsumexp(0).item()
        self._log_sampled_total = (alpha * log_counts).logsumexp(0).item()
        self.register_buffer("log_counts", log_counts.float(), persistent=False)

    def forward(self, targets: Tensor, negatives: Tensor) -> Tensor:
        """Correction of each candidate, float32, shape (C,), from targets (V,) and samples (n,)."""
        of_targets, of_negatives = self.log_counts[targets], self.alpha * self.log_counts[negatives]
        if self.textbook:
            of_targets = of_targets + (math.log(len(targets)) - self._log_total)
            of_negatives = of_negatives + (math.log(max(1, len(negatives))) - self._log_sampled_total)
        return torch.cat([of_targets, of_negatives])
