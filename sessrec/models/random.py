"""Random: the floor below every model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sessrec.errors import SessRecError
from sessrec.models.base import SessionRecommender


class Random(SessionRecommender):
    """Ranks items by numbers that follow from the seed, the session so far and the item, and from nothing else.

    So every position has a ranking of its own, and the same one whenever it is asked for.

    Args:
        random_seed: Seed of the scores.
        protocol: Options of `SessionRecommender`.
    """

    def __init__(self, random_seed: int = 0, **protocol: Any) -> None:
        super().__init__(**protocol)
        self.save_hyperparameters()
        if not 0 <= random_seed < 1 << 63:
            raise SessRecError(f"--model.random_seed must be at least 0 and below 2^63, got {random_seed}")
        self.random_seed = random_seed

    def encode(self, items: Tensor) -> Tensor:
        """A hash of the session up to each position, int64, shape (S, L, 1)."""
        state = torch.full((len(items),), self.random_seed, dtype=torch.int64, device=items.device)
        hashes = []
        for item in items.T:
            state = _mixed(state * 31 + item + 1)
            hashes.append(state)
        return torch.stack(hashes, dim=1)[:, :, None]

    def score(self, queries: Tensor, items: slice) -> Tensor:
        """Numbers from 0 up to 1, float64, shape (P, n)."""
        item = torch.arange(items.start, items.stop, device=queries.device)
        bits = _mixed(queries ^ _mixed(item + 1))
        return (bits & ((1 << 53) - 1)).double() / (1 << 53)


def _mixed(state: Tensor) -> Tensor:
    """Mix the bits of whole numbers: the finaliser of SplitMix64, on signed numbers that wrap around."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        state = (state ^ _shifted(state, shift)) * factor
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, n_bits: int) -> Tensor:
    """Shift to the right, filled with zeros as for unsigned numbers."""
    return (state >> n_bits) & ((1 << (64 - n_bits)) - 1)
