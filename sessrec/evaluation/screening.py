"""Tells which items of a large catalogue can be among the best for a few queries, from products of 8-bit numbers.

Scores that are products of a query and an item's row take as long as the rows take to be read. Rows of 8 bits are read
in a quarter of the time; an item whose 8-bit product, and the bound of its error, stay below the best items so far
needs no other product.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sessrec.errors import SessRecError

_ITEMS = 16_384  # of a block
_LARGEST = 127
_SMALLEST = torch.iinfo(torch.int32).min
_ROUNDING = 1e-5  # of products in 32 bits, as a share of the product of the norms
_MOST_COLUMNS = 2  # for each of the rows, after the large ones are cut into parts
_SHARE = 4  # one in so many items of a block that stay: then the whole block is scored


class _Block(NamedTuple):
    rows: Tensor
    """Rows in units of ``unit``, int8, shape (n, D)."""
    unit: float
    norm: float
    """Greatest norm of a row."""
    error: float
    """Greatest norm of what a row lost."""


class Screen:
    """Rows of all items in 8 bits.

    Args:
        rows: Rows of consecutive items, float32, shape (n, D), such that a score is their product with a query.
        n_items: Number of items N.

    Raises:
        SessRecError: If a row has numbers that are not finite.
    """

    def __init__(self, rows: Callable[[slice], Tensor], n_items: int) -> None:
        starts = range(0, n_items, _ITEMS)
        self.items = [slice(start, min(start + _ITEMS, n_items)) for start in starts]
        """Items of each block."""
        largest = torch.stack([rows(items).abs().amax(dim=0) for items in self.items]).amax(dim=0)
        if not largest.isfinite().all():
            raise SessRecError("the model has weights that are no numbers")
        # a column much larger than the others, such as a bias, would leave them few of the 8 bits: it is cut into equal
        # parts
        usual = largest[largest > 0].median() if largest.any() else torch.ones(())
        parts = (largest / usual).round().clamp(1, _LARGEST).long()
        if parts.sum() > _MOST_COLUMNS * len(largest):  # a few that tower above the others, or nearly all are 0
            parts = torch.ones_like(parts)
        self._column = torch.repeat_interleave(torch.arange(len(largest)), parts)
        self._share = (1 / parts)[self._column]
        self._blocks = [self._rounded(rows(items)) for items in self.items]

    def _rounded(self, rows: Tensor) -> _Block:
        rows = rows[:, self._column] * self._share
        unit = max(rows.abs().max().item() / _LARGEST, torch.finfo(torch.float32).tiny)
        whole = (rows / unit).round().clamp(-_LARGEST, _LARGEST)
        error = (rows - whole * unit).norm(dim=1).max().item()
        return _Block(whole.to(torch.int8), unit, rows.norm(dim=1).max().item(), error)

    def of_queries(self, queries: Tensor) -> ScreenedQueries:
        """Some queries, float32, shape (P, D), in 8 bits."""
        return ScreenedQueries(self.items, self._blocks, queries[:, self._column])


class ScreenedQueries:
    """Queries to be compared with all items.

    Args:
        items: Items of each block.
        blocks: Rows of each block.
        queries: Queries, float32, shape (P, D), with the columns of the rows.
    """

    def __init__(self, items: list[slice], blocks: list[_Block], queries: Tensor) -> None:
        self.items, self._blocks = items, blocks
        unit = (queries.abs().amax(dim=1, keepdim=True) / _LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
        whole = (queries / unit).round().clamp(-_LARGEST, _LARGEST)
        self._whole = whole.to(torch.int8).T  # (D, P)
        norm, error = (whole * unit).norm(dim=1), (queries - whole * unit).norm(dim=1)
        units, norms, errors = torch.tensor([own[1:] for own in blocks], dtype=torch.float64).T[
            ..., None
        ]  # (blocks, 1)
        self._bound = error * norms + norm * errors + _ROUNDING * (norm + error) * norms  # (blocks, P)
        self._units = units * unit[:, 0].double()

    def part(self, part: slice) -> ScreenedQueries:
        """Some of the queries."""
        own = copy.copy(self)
        own._whole, own._bound, own._units = self._whole[:, part], self._bound[:, part], self._units[:, part]
        return own

    def columns(self, number: int, least: Tensor) -> Tensor | None:
        """The items of a block that can score as much as a query asks for.

        Args:
            number: Number of the block.
            least: Least score of each query, shape (P,).

        Returns:
            Items, counted from the block's first one, ascending, int64; None where they are a large share of it.
        """
        rows, limit = self._blocks[number].rows, (least.double() - self._bound[number]) / self._units[number]
        limit = limit.floor().clamp(_SMALLEST, -_SMALLEST - 1).to(torch.int32)
        found = (torch._int_mm(rows, self._whole) >= limit).nonzero()[:, 0].unique_consecutive()
        return None if len(found) * _SHARE > len(rows) else found


def screen_where_faster(rows: Callable[[slice], Tensor], n_items: int) -> Screen | None:
    """A `Screen`, or None where products of this torch on this processor are slower by it, or not exact in 8 bits.

    Args:
        rows: See `Screen`.
        n_items: Number of items N.
    """
    if not hasattr(torch, "_int_mm") or not _is_exact():
        return None
    sample = rows(slice(0, min(n_items, _ITEMS)))
    query = sample[:4]
    small = Screen(lambda _: sample, len(sample)).of_queries(query)
    least = (query @ sample.T).amax(dim=1)
    faster = _seconds(lambda: small.columns(0, least)) < _seconds(lambda: query @ sample.T)
    return Screen(rows, n_items) if faster else None


def _is_exact() -> bool:
    """Whether sums of products of 8 bits are exact: processors without instructions for them sum up pairs in 16."""
    largest = torch.full((256, 128), _LARGEST, dtype=torch.int8)
    largest[1::2] *= -1
    try:
        return all(
            torch.equal(torch._int_mm(largest, largest[:n].T), (largest.int() @ largest[:n].int().T))
            for n in (1, 4, 16)
        )
    except RuntimeError:  # no such product
        return False


def _seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
