"""Slices of a test: kinds of positions whose metrics are told apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sessrec.errors import SessRecError
from sessrec.evaluation.rank_table import Ranks, gains

SLICE_METRICS = ("recall@20", "mrr@20")
_OPTIONS = ("lengths", "positions", "popularity", "ages", "clicks")


class Slicing(NamedTuple):
    """One way to tell positions apart."""

    name: str
    """What they are told apart by."""
    labels: list[str]
    """Name of each slice."""
    codes: np.ndarray
    """Number of each position's slice, -1 where it belongs to none, int64, shape (P,)."""


class Slices:
    """Tells positions apart by session length, place in the session, and the target's popularity, clicks and age.

    Args:
        lengths: Longest session of each slice but the last, in events.
        positions: Last position of each slice but the last, counted from 1.
        popularity: Where the middle and the tail of the catalogue begin, as shares of the training events that more
            popular items have.
        clicks: Most training events of the target in each slice but the last; those without any are a slice before.
        ages: Greatest age of the target in each slice but the last, in days since its first training event.
    """

    def __init__(
        self,
        lengths: Sequence[int] = (4, 8, 15),
        positions: Sequence[int] = (1, 2, 4, 8),
        popularity: Sequence[float] = (1 / 3, 2 / 3),
        ages: Sequence[float] = (1.0, 7.0, 30.0),
        clicks: Sequence[int] = (5, 20),
    ) -> None:
        self.lengths, self.positions, self.popularity, self.ages = lengths, positions, popularity, ages
        self.clicks = clicks
        for name, bounds in self.options().items():
            if not bounds or any(high <= low for low, high in itertools.pairwise([0, *bounds])):
                raise SessRecError(f"--slices.{name} {bounds} must ascend from above 0")
        if len(popularity) != 2 or popularity[-1] >= 1:
            raise SessRecError(f"--slices.popularity {list(popularity)} must be two shares below 1: head, middle, tail")
        if lengths[0] < 2:
            raise SessRecError(f"--slices.lengths {list(lengths)} must begin at 2 or more: no session is shorter")

    def options(self) -> dict[str, list[float]]:
        """The options, as plain values."""
        return {name: list(getattr(self, name)) for name in _OPTIONS}

    def of(self, ranks: Ranks) -> list[Slicing]:
        """Every way to tell the positions of a test apart, without ages where none is known."""
        days = ranks.column("age").astype(np.float64) / 86400
        ends = [f"{bound:g}" for bound in self.ages]
        ages = [f"up to {ends[0]}", *map(" to ".join, itertools.pairwise(ends)), f"over {ends[-1]}"]
        tails = np.searchsorted(self.popularity, ranks.column("popularity"), side="right")
        found = [
            _by_whole_numbers("session length", ranks.column("length"), self.lengths, first=2),
            _by_whole_numbers("position", ranks.column("position"), self.positions, first=1),
            Slicing("target's popularity", ["head", "middle", "tail"], tails),
            _by_clicks(ranks, self.clicks),
            Slicing("target in the session", ["new", "repeat"], ranks.column("repeat").astype(np.int64)),
            Slicing("target's age in days", ages, np.where(np.isnan(days), -1, np.searchsorted(self.ages, days))),
        ]
        return [slicing for slicing in found if (slicing.codes >= 0).any()]


def _by_clicks(ranks: Ranks, bounds: Sequence[int]) -> Slicing:
    """By how often the target was seen in training; files of earlier releases do not say it."""
    if "clicks" not in ranks.table.column_names:
        return Slicing("target's clicks", [], np.full(len(ranks), -1))
    return _by_whole_numbers("target's clicks", ranks.column("clicks"), [0, *bounds], first=0)


def _by_whole_numbers(name: str, values: np.ndarray, bounds: Sequence[int], first: int) -> Slicing:
    firsts = [first, *(bound + 1 for bound in bounds)]
    labels = [str(low) if low == high else f"{low}-{high}" for low, high in zip(firsts, bounds, strict=False)]
    return Slicing(name, [*labels, f"{firsts[-1]}+"], np.searchsorted(bounds, values))


def slice_metrics(
    ranks: Ranks, slices: Slices, metrics: Sequence[str] = SLICE_METRICS
) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics of every slice of a test: by what positions are told apart, then by slice."""
    values = {metric: gains(ranks.rank, metric) for metric in metrics}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for slicing in slices.of(ranks):
        for number, label in enumerate(slicing.labels):
            is_inside = slicing.codes == number
            if n_positions := int(is_inside.sum()):
                means = {metric: float(value[is_inside].mean()) for metric, value in values.items()}
                found.setdefault(slicing.name, {})[label] = {"positions": n_positions, **means}
    return found
