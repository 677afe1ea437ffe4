"""Negative samples drawn in proportion to a power of the items' popularity.

References:
    Hidasi and Karatzoglou, CIKM 2018, section 3.1 (additional negative samples, p(i) proportional to support^alpha).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class NegativeSampler(nn.Module):
    """Draws items with replacement, item i with probability proportional to ``counts[i] ** alpha``.

    Drawing takes two look-ups an item, whatever the catalogue: each item owns a column of the same width, and what is
    too much for an item of its column is lent to another one (Walker's alias method). The shares are held in float64:
    in float32 the tail items of a catalogue of a million starve or double. An item never counted is never drawn, also
    with ``alpha`` 0. The module follows the model to its device and adds nothing to its checkpoint.

    Args:
        counts: Events of each item in training, int64, shape (N,).
        alpha: Power put on the counts: 0 draws uniformly, 1 by popularity.

    References:
        Walker, "An Efficient Method for Generating Discrete Random Variables with General Distributions", ACM
        Transactions on Mathematical Software, 1977.

    Example:
        >>> sampler = NegativeSampler(torch.tensor([5, 0, 1]), alpha=0.0)
        >>> generator = torch.Generator().manual_seed(0)
        >>> sampler.sample((2, 4), generator).unique()
        tensor([0, 2])
    """

    kept_share: Tensor
    lent_to: Tensor

    def __init__(self, counts: Tensor, alpha: float) -> None:
        super().__init__()
        log_counts = counts.double().log().numpy()  # of which a great power does not overflow
        weights = np.where(counts > 0, np.exp(alpha * np.maximum(log_counts - log_counts.max(), -1e30)), 0.0)
        order = _ascending(counts.numpy() if alpha else (counts > 0).long().numpy())
        kept_share, lent_to = _alias_table(weights, order)
        self.register_buffer("kept_share", torch.from_numpy(kept_share), persistent=False)
        # in 32 bits, as the look-ups of a large catalogue wait for memory
        self.register_buffer("lent_to", torch.from_numpy(lent_to), persistent=False)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw item indices, int64, by a generator on the sampler's device; one large block is cheaper than many."""
        n_items = len(self.kept_share)
        place = torch.rand(shape, generator=generator, dtype=torch.float64, device=self.kept_share.device).view(-1)
        place.mul_(n_items)
        column = place.long().clamp_(max=n_items - 1)  # a number just under 1 may round up to the end
        kept = place.sub_(column) < self.kept_share.index_select(0, column)
        return torch.where(kept, column, self.lent_to.index_select(0, column)).view(shape)


def _ascending(counts: np.ndarray) -> np.ndarray:
    """Items by their counts, equal ones by falling index, int32, shape (N,)."""
    last = len(counts) - 1
    if int(counts.max()) >= 2**62 // len(counts):
        return np.argsort(-counts, kind="stable").astype(np.int32)[::-1]
    keys = counts * len(counts)  # numbers are sorted in a fraction of the time that their places take
    keys += np.arange(last, -1, -1)
    keys.sort()
    keys %= len(counts)
    return (last - keys).astype(np.int32)


def _alias_table(weights: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of its own column that each item keeps, and the item that has the rest; float64 and int32, shape (N,).

    The low items, the lowest first, borrow from the tall ones, the least tall first. A tall item lends until it is low
    itself, and then borrows from the next one. So sums of what is missing and of what is to spare tell who lends.

    Args:
        weights: What an item is drawn in proportion to, shape (N,).
        order: Items by their weights, ascending, shape (N,).
    """
    heights = weights * (len(weights) / weights.sum())
    n_low = int(np.count_nonzero(heights < 1))
    low, tall = order[:n_low], order[n_low:]
    kept_share, lent_to = np.ones(len(weights)), np.arange(len(weights), dtype=np.int32)
    spare = np.cumsum(heights[tall] - 1)
    missing = np.append(0.0, np.cumsum(1 - heights[low]))  # before each low item, and in all
    lender = np.searchsorted(spare, missing[:-1]).astype(np.int32)
    n_borrowers = int(np.searchsorted(lender, len(tall)))  # what is left over has a height of 1 but for rounding
    kept_share[low[:n_borrowers]] = heights[low[:n_borrowers]]
    lent_to[low[:n_borrowers]] = tall[lender[:n_borrowers]]
    left = 1 + spare - missing[np.searchsorted(missing[:-1], spare, side="right")]  # of each tall item's height
    emptied = np.flatnonzero(left[:-1] < 1)
    kept_share[tall[emptied]] = left[emptied]
    lent_to[tall[emptied]] = tall[emptied + 1]
    return kept_share, lent_to


class LogQ(nn.Module):
    """Log of how often each candidate of a step is met: the popularity correction of sampled cross-entropy.

    A target is met in proportion to its count, a sample in proportion to its count to the power alpha.

    Args:
        counts: Events of each item in training, all above 0, int64, shape (N,).
        alpha: Power of the negative samples.
    """

    log_counts: Tensor

    def __init__(self, counts: Tensor, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("log_counts", counts.double().log().float(), persistent=False)

    def forward(self, targets: Tensor, negatives: Tensor) -> Tensor:
        """Correction of each candidate, float32, shape (steps, C), from targets (steps, V) and samples (steps, n)."""
        of_targets, of_negatives = (
            self.log_counts.index_select(0, items.reshape(-1)).view(items.shape) for items in (targets, negatives)
        )
        return torch.cat([of_targets, self.alpha * of_negatives], dim=1)
