"""What the features of items add to their vectors, with the gradients worked out by hand for GRU4Rec's step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sessrec.nn.layers import mm

_LARGE = 4096  # rows of a table, from where on the gradient of those of a step alone is kept


class ItemFeatures(nn.Module):
    r"""The part of each item's vector that follows from its features.

    .. math:: x_i = [\,\bar C_{i1}, \bar C_{i2}, \ldots, n_i\,]\, W

    with the mean of the rows that the item's categories have in the table of each column, and its numbers :math:`n_i`,
    side by side. The map :math:`W` begins at 0: a fit begins as that of a model without features.

    Args:
        codes: Rows of the tables, one below the other, of each item; the row below the last stands for nothing; int64,
            shape (N, M).
        weights: Share of each code in the mean of its column, 0 for nothing, float, shape (N, M).
        numbers: Numbers of each item, float, shape (N, F).
        table_shapes: Rows and columns of each table.
        hidden_size: Length of an item's vector, H.
    """

    numbers: Tensor

    def __init__(
        self, codes: Tensor, weights: Tensor, numbers: Tensor, table_shapes: Sequence[tuple[int, int]], hidden_size: int
    ) -> None:
        super().__init__()
        self.register_buffer("numbers", numbers, persistent=False)
        self.tables = nn.ParameterList(torch.randn(shape) * shape[1] ** -0.5 for shape in table_shapes)
        self.sizes = [size for _, size in table_shapes]
        self.n_of_categories = sum(self.sizes)
        self.map = nn.Parameter(torch.zeros(self.n_of_categories + numbers.shape[1], hidden_size))
        self.weighs_one: list[bool] = []
        """Whether each item has just one category of a column."""
        first = 0
        for column, (n_rows, _) in enumerate(table_shapes):
            is_own = (codes >= first) & (codes < first + n_rows) & (weights > 0)  # (N, M)
            used = is_own.any(dim=0)
            own, share = (codes[:, used] - first).masked_fill(~is_own[:, used], 0), weights[:, used] * is_own[:, used]
            self.register_buffer(f"codes_{column}", own, persistent=False)  # (N, most of an item); 0 for nothing, ...
            self.register_buffer(f"shares_{column}", share, persistent=False)  # ... which has a share of 0
            self.weighs_one.append(own.shape[1] == 1 and bool((share == 1).all()))
            first += n_rows

    def of_categories(self, column: int, items: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Rows in the table of a column that some items name, all where None, (U, m), and shares; None for one of 1."""
        codes, shares = getattr(self, f"codes_{column}"), getattr(self, f"shares_{column}")
        if items is not None:
            codes = codes.index_select(0, items)
            shares = None if self.weighs_one[column] else shares.index_select(0, items)
        return codes, None if self.weighs_one[column] else shares.to(self.map.dtype)

    def values(self, categories: Sequence[tuple[Tensor, Tensor | None]], items: Tensor | None = None) -> Tensor:
        """What is mapped of some items, all where None: means of the rows of their categories, then numbers, (U, K)."""
        found = []
        for table, (codes, shares) in zip(self.tables, categories, strict=True):
            if shares is None:
                found.append(table.index_select(0, codes[:, 0]))
            elif codes.shape[1]:
                found.append(F.embedding_bag(codes, table, mode="sum", per_sample_weights=shares))
            else:  # no item has any
                found.append(table.new_zeros(len(codes), table.shape[1]))
        numbers = self.numbers if items is None else self.numbers.index_select(0, items)
        return torch.cat([*found, numbers.to(self.map.dtype)], dim=1)

    def forward(self, items: Tensor | None = None) -> Tensor:
        """What the features of some items add, shape (U, H), for items (U,), int64; of all where None."""
        categories = [self.of_categories(column, items) for column in range(len(self.tables))]
        return self.values(categories, items) @ self.map


class ItemParts:
    """The features of the U items of a training step, and the gradients of what is learnt of them.

    Their part of the logits is (h W^T) v^T, of states h and values v: multiplied by the few lanes first, it costs a
    fraction of what W would on every row.

    Args:
        features: The features.
        items: Items of the step, the first C of them candidates, int64, shape (U,).
        whole: Whether gradients of tables are dense whatever the size of the tables.
    """

    def __init__(self, features: ItemFeatures, items: Tensor, whole: bool = False) -> None:
        self.features, self.whole = features, whole
        self.categories = [features.of_categories(column, items) for column in range(len(features.tables))]
        self.values = features.values(self.categories, items)
        self.projected = self.d_map = self.values  # until the logits are there
        self.d_means: list[Tensor] = []

    def add_to_inputs(self, inputs: Tensor, places: Tensor) -> Tensor:
        """Add their part to input vectors, (V, H), of the items at some places, int64, (V,); in place."""
        return inputs.add_(mm(self.values.index_select(0, places), self.features.map))

    def add_to_logits(self, logits: Tensor, states: Tensor) -> Tensor:
        """Add their part to the logits of the candidates, (V, C), from states (V, H); in place."""
        self.projected = states @ self.features.map.T  # (V, K)
        return logits.addmm_(self.projected, self.values[: logits.shape[1]].T)

    def backward_of_logits(self, d_logits: Tensor, states: Tensor, d_states: Tensor) -> None:
        """Add their part to the gradient of the states, (V, H), in place, and begin the gradients of map and values."""
        own, n_candidates = self.features, d_logits.shape[1]
        d_projected = mm(d_logits, self.values[:n_candidates])  # (V, K) from (V, C) (C, K)
        d_states.add_(mm(d_projected, own.map))
        self.d_map = mm(d_projected.T, states)  # (K, H)
        for projected in self.projected[:, : own.n_of_categories].split(own.sizes, dim=1):
            d_means = self.values.new_zeros(len(self.values), projected.shape[1])  # (U, size)
            mm(d_logits.T, projected, out=d_means[:n_candidates])
            self.d_means.append(d_means)

    def backward_of_inputs(self, d_inputs: Tensor, places: Tensor) -> None:
        """Leave the gradients of the tables and the map, of the inputs' gradient, (V, H), at some places, (V,), too."""
        own = self.features
        own.map.grad = self.d_map.add_(mm(self.values.index_select(0, places).T, d_inputs))
        maps = own.map[: own.n_of_categories].split(own.sizes)
        for table, weight, d_means, (codes, shares) in zip(
            own.tables, maps, self.d_means, self.categories, strict=True
        ):
            d_means.index_add_(0, places, mm(d_inputs, weight.T))
            d_rows = d_means[:, None] if shares is None else d_means[:, None] * shares[:, :, None]  # (U, m, size)
            rows, d_rows = codes.reshape(-1), d_rows.reshape(-1, table.shape[1])
            if self.whole or len(table) <= _LARGE:
                table.grad = torch.zeros_like(table).index_add_(0, rows, d_rows)
            else:
                table.grad = torch.sparse_coo_tensor(rows[None], d_rows, table.shape, is_coalesced=False)


class Kept(NamedTuple):
    """Which of a step's items have their own vectors; those of the others count as 0, and so do their gradients."""

    shares: Tensor
    """1 or 0 for each of U items, float, shape (U,); on a GPU, which would have to be waited for, else (0,)."""
    gone: Tensor
    """Places of the items without, int64; on a GPU none."""
    gone_candidates: Tensor
    """Those among the candidates."""

    @classmethod
    def of(cls, kept: Tensor, items: Tensor, n_candidates: int) -> Kept:
        """Look the items of a step up, int64, (U,), the first of them candidates, among all items, float, (N,)."""
        shares = kept.index_select(0, items)
        if shares.is_cuda:
            return cls(shares, items[:0], items[:0])
        gone = (shares == 0).nonzero()[:, 0]
        return cls(shares[:0], gone, gone[: int(torch.searchsorted(gone, n_candidates))])

    def rows(self, values: Tensor) -> Tensor:
        """Rows of all items, (U, anything), in place."""
        return values.mul_(self.shares[:, None]) if len(self.shares) else values.index_fill_(0, self.gone, 0.0)

    def candidates(self, values: Tensor) -> Tensor:
        """Rows or numbers of the candidates, (C, ...), in place."""
        if not len(self.shares):
            return values.index_fill_(0, self.gone_candidates, 0.0)
        return values.mul_(self.shares[: len(values)].view(-1, *[1] * (values.dim() - 1)))
