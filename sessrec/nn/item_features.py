"""What the features of items add to their vectors, with the gradients worked out by hand for GRU4Rec's step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sessrec.nn.layers import mm

_LARGE = 4096  # rows of all tables, from where on those of a step alone are multiplied


class ItemFeatures(nn.Module):
    r"""The part of each item's vector that follows from its features, linear in what is learnt for each column.

    .. math:: x_i = \frac{1}{|c_i|} \sum_{c \in c_i} C_c A + n_i W

    with a table :math:`C` of the categories and a map :math:`A` for each column of categories, of which an item has the
    mean of its values', and one map :math:`W` of all its numbers :math:`n_i`. The maps begin at 0: a fit begins as that
    of a model without features.

    Args:
        codes: Rows of the tables, one below the other, of each item; the row below the last stands for nothing; int64,
            shape (N, M).
        weights: Share of each code in the mean of its column, 0 for nothing, float, shape (N, M).
        numbers: Numbers of each item, float, shape (N, F).
        table_shapes: Rows and columns of each table.
        hidden_size: Length of an item's vector, H.
    """

    codes: Tensor
    weights: Tensor
    numbers: Tensor

    def __init__(
        self, codes: Tensor, weights: Tensor, numbers: Tensor, table_shapes: Sequence[tuple[int, int]], hidden_size: int
    ) -> None:
        super().__init__()
        for name, buffer in (("codes", codes), ("weights", weights), ("numbers", numbers)):
            self.register_buffer(name, buffer, persistent=False)
        self.tables = nn.ParameterList(torch.randn(shape) * shape[1] ** -0.5 for shape in table_shapes)
        self.sizes = [*(size for _, size in table_shapes), numbers.shape[1]]
        self.maps = nn.Parameter(torch.zeros(sum(self.sizes), hidden_size))  # in one: an update costs by the call
        self.weighs_one = (weights == 1).all(dim=0).tolist()
        self.firsts = [0, *itertools.accumulate(rows for rows, _ in table_shapes)]
        """Number of the first row of each table among the rows of all, and the number of these."""

    @property
    def number_map(self) -> Tensor:
        """The map of the numbers, shape (F, H)."""
        return self.maps[len(self.maps) - self.sizes[-1] :]

    def category_rows(self, rows: list[Tensor] | None = None) -> Tensor:
        """What some rows of each table, all where None, add, and a row of zeros for nothing, shape (rows + 1, H)."""
        maps = self.maps.split(self.sizes)[:-1]
        tables = self.tables if rows is None else map(torch.index_select, self.tables, itertools.repeat(0), rows)
        own = [table @ weight for table, weight in zip(tables, maps, strict=True)]
        return torch.cat([*own, self.maps.new_zeros(1, self.maps.shape[1])])

    def touched(self, codes: Tensor) -> tuple[list[Tensor] | None, Tensor]:
        """Rows of each table that codes name, and the codes as numbers of these rows.

        None and the codes themselves where the tables are so small that all rows are multiplied as fast.
        """
        if self.firsts[-1] <= _LARGE or codes.is_cuda:  # where the number of rows would have to be waited for
            return None, codes
        rows, codes = codes.unique(return_inverse=True)
        bounds = torch.searchsorted(rows, torch.tensor(self.firsts)).tolist()
        pairs = zip(self.firsts, itertools.pairwise(bounds), strict=False)
        return [rows[start:stop] - first for first, (start, stop) in pairs], codes

    def forward(self, items: Tensor | None = None) -> Tensor:
        """What the features of some items add, shape (U, H), for items (U,), int64; of all where None."""
        parts = (self.codes, self.weights, self.numbers)
        codes, weights, numbers = parts if items is None else (part.index_select(0, items) for part in parts)
        if codes.shape[1]:
            touched, codes = self.touched(codes)
            rows = self.categories(codes, None if all(self.weighs_one) else weights, touched)
        else:
            rows = self.maps.new_zeros(len(codes), self.maps.shape[1])
        return rows + numbers.to(rows.dtype) @ self.number_map if numbers.shape[1] else rows

    def categories(self, codes: Tensor, weights: Tensor | None, touched: list[Tensor] | None = None) -> Tensor:
        """What the categories of items add, shape (U, H), from codes and weights (U, M), all 1 where None."""
        rows = self.category_rows(touched)
        weights = None if weights is None else weights.to(rows.dtype)
        return F.embedding_bag(codes, rows, mode="sum", per_sample_weights=weights)

    @torch.no_grad()
    def look_up(self, items: Tensor, whole: bool = False) -> ItemParts:
        """The features of the U items of a step; with ``whole``, the gradients of tables are dense."""
        codes, numbers = self.codes.index_select(0, items), self.numbers.index_select(0, items)
        weights = None if all(self.weighs_one) else self.weights.index_select(0, items)
        touched, codes = (None, codes) if whole else self.touched(codes)
        return ItemParts(self, codes, weights, numbers.to(self.maps.dtype), touched)


class ItemParts(NamedTuple):
    """Features of the U items that a step looks up: categories are added to rows, numbers act on the logits.

    The logits are the products of states and item vectors, (h W^T) n^T for the numbers: multiplied by few lanes first,
    they cost a tenth of what their part of every row would.
    """

    features: ItemFeatures
    codes: Tensor
    weights: Tensor | None
    numbers: Tensor
    touched: list[Tensor] | None
    """Rows of each table that the codes number; all where None."""

    def add_categories(self, rows: Tensor) -> Tensor:
        """Add the part of the categories to rows, (U, H), in place."""
        if not self.codes.shape[1]:
            return rows
        return rows.add_(self.features.categories(self.codes, self.weights, self.touched))

    def add_to_inputs(self, inputs: Tensor, places: Tensor) -> Tensor:
        """Add the part of the numbers to input vectors, (V, H), of the items at some places, (V,); in place."""
        if self.numbers.shape[1]:
            inputs.add_(mm(self.numbers.index_select(0, places), self.features.number_map))
        return inputs

    def add_to_logits(self, logits: Tensor, states: Tensor) -> Tensor:
        """Add the part of the numbers to the logits of the first C items, (V, C), from states (V, H); in place."""
        if self.numbers.shape[1]:
            logits.addmm_(states @ self.features.number_map.T, self.numbers[: logits.shape[1]].T)
        return logits

    def backward_of_logits(self, d_logits: Tensor, states: Tensor, d_states: Tensor) -> Tensor:
        """Add the part of the numbers to the gradient of the states, (V, H).

        Returns:
            Gradient of the maps, the part of the logits only, shape (rows of all maps, H).
        """
        own = self.features
        d_maps = torch.zeros_like(own.maps)
        if self.numbers.shape[1]:
            d_projected = mm(d_logits, self.numbers[: d_logits.shape[1]])  # (V, F) from (V, C) (C, F)
            d_states.add_(mm(d_projected, own.number_map))
            mm(d_projected.T, states, out=d_maps[len(d_maps) - own.sizes[-1] :])
        return d_maps

    def backward_of_rows(self, d_rows: Tensor, d_maps: Tensor, d_inputs: Tensor, places: Tensor) -> None:
        """Leave the gradients of tables and maps.

        Args:
            d_rows: Gradient of each item's vector, as candidate and as input, shape (U, H).
            d_maps: What `backward_of_logits` gave.
            d_inputs: Gradient of the lanes' inputs alone, shape (V, H).
            places: Item of each lane's input, int64, shape (V,).
        """
        own = self.features
        own.maps.grad = d_maps
        if self.numbers.shape[1]:
            d_maps[len(d_maps) - own.sizes[-1] :].add_(mm(self.numbers.index_select(0, places).T, d_inputs))
        if not self.codes.shape[1]:
            return
        n_rows = [len(rows) for rows in (own.tables if self.touched is None else self.touched)]
        d_categories = d_rows.new_zeros(sum(n_rows) + 1, d_rows.shape[1])
        for column, weighs_one in enumerate(own.weighs_one):
            weighted = d_rows if weighs_one or self.weights is None else d_rows * self.weights[:, column, None]
            d_categories.index_add_(0, self.codes[:, column], weighted)
        maps, of_maps = (whole.split(own.sizes)[:-1] for whole in (own.maps, d_maps))
        of_tables = d_categories[:-1].split(n_rows)
        for number, (table, weight, of_table, of_map) in enumerate(
            zip(own.tables, maps, of_tables, of_maps, strict=True)
        ):
            gradient = mm(of_table, weight.T)
            if self.touched is None:
                table.grad, rows = gradient, table
            else:
                place, rows = self.touched[number], table.index_select(0, self.touched[number])
                table.grad = torch.sparse_coo_tensor(place[None], gradient, table.shape, is_coalesced=True)
            mm(rows.T, of_table, out=of_map)
