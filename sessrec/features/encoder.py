"""Turn the columns that a model uses into what it computes item vectors from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sessrec.errors import SessRecError
from sessrec.features.encoding import N_COMPONENTS, N_KNOTS, CategoryEncoder, Encoder, NumberEncoder, VectorEncoder
from sessrec.features.item_table import Categories, Column, ItemTable, Numbers, Vectors
from sessrec.suggestions import did_you_mean
from sessrec.text import counted

_OPTION = "--model.features"
_LARGEST = 4096  # embedding of a category


@dataclass(frozen=True)
class EncodedItems:
    """Items as a model takes them.

    Example:
        >>> codes, weights = np.array([[0], [2]]), np.array([[1.0], [0.0]], dtype=np.float32)
        >>> EncodedItems(codes, weights, np.zeros((2, 0), dtype=np.float32)).has_any.tolist()
        [True, False]
    """

    codes: np.ndarray
    """Categories of each item, as rows of the tables of all columns, one below the other; where an item has fewer than
    others, the row below the last; int64, shape (N, M)."""
    weights: np.ndarray
    """Share of each code in the mean of its column, 0 where there is none, float32, shape (N, M)."""
    numbers: np.ndarray
    """Weights of knots and components of vectors, zeros where an item has none, float32, shape (N, F)."""

    @property
    def has_any(self) -> np.ndarray:
        """Which items have any feature, bool, shape (N,)."""
        return (self.weights > 0).any(axis=1) | (self.numbers != 0).any(axis=1)


class FeatureEncoder:
    """How the columns of a fit's item table are encoded; it encodes other items alike.

    Args:
        encoders: How each column is, by its name.
    """

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        self.encoders = dict(encoders)
        own = [encoder for encoder in self.encoders.values() if isinstance(encoder, CategoryEncoder)]
        self.table_shapes = [(len(encoder.names), encoder.size) for encoder in own]
        """Rows and columns of the table of each column of categories."""
        self.n_rows = sum(rows for rows, _ in self.table_shapes)
        """Rows of all tables; the number of the row that stands for nothing."""

    @classmethod
    def of(
        cls,
        features: Mapping[str, Any],
        table: ItemTable,
        item_ids: Iterable[str],
        before: FeatureEncoder | None = None,
    ) -> FeatureEncoder:
        """Learn knots, components and the names of categories.

        Args:
            features: What is made of each column: the size of an embedding of its categories, ``soft`` for numbers,
                ``vector`` or a number of components for vectors; 0 or None leaves it out.
            table: The item table.
            item_ids: Items that are trained on; what only others have is not learnt.
            before: Encoder of an earlier fit that this one goes on with: what it has stays, new categories are added.

        Raises:
            SessRecError: If there is no such column, or its type does not fit the option.
        """
        item_ids, encoders = list(item_ids), {}
        rows = table.rows_of(item_ids)
        if not (rows >= 0).any():
            raise SessRecError(
                f"{table.source} (--data.items) has no row for any item of the log: item ids there are such as "
                f"{', '.join(table.item_ids[:3])}, and in the log {', '.join(item_ids[:3])}"
            )
        for name, wanted in ((str(name), wanted) for name, wanted in features.items()):
            if wanted and name in table.faults:
                raise SessRecError(f"{table.source}: {table.faults[name]}")
            if name not in table.columns and name not in table.faults:
                known = list(table.columns)
                raise SessRecError(
                    f"{_OPTION} names {name}, which is no column of {table.source}: it has {', '.join(known)}"
                    f"{did_you_mean(name, known)}"
                )
            if wanted:
                encoders[name] = _encoder(name, wanted, table.columns[name].take(rows))
                if before is not None and name in before.encoders:
                    encoders[name] = _continued(before.encoders[name], encoders[name])
        return cls(encoders)

    def encode(self, columns: Mapping[str, Column], n_items: int) -> tuple[EncodedItems, dict[str, int]]:
        """Encode items.

        Args:
            columns: Their columns, one row an item.
            n_items: Number of items.

        Returns:
            The items, and the number of values of each column whose category is unknown to the fit.

        Raises:
            SessRecError: If a column holds something else than that of the fit.
        """
        codes, weights, numbers = [], [], [np.empty((n_items, 0), dtype=np.float32)]
        unknown: dict[str, int] = {}
        first = 0
        for name, encoder in self.encoders.items():
            column: Any = _as_fitted(name, encoder, columns[name])
            if isinstance(encoder, CategoryEncoder):
                own, items, n_unknown = encoder.encode(column)
                unknown |= {name: n_unknown} if n_unknown else {}
                padded = _padded(own + first, items, n_items, self.n_rows)
                codes.append(padded[0])
                weights.append(padded[1])
                first += len(encoder.names)
            else:
                numbers.append(encoder.encode(column))
        nothing = np.empty((n_items, 0))
        return EncodedItems(
            np.concatenate([*codes, nothing.astype(np.int64)], axis=1),
            np.concatenate([*weights, nothing.astype(np.float32)], axis=1),
            np.concatenate(numbers, axis=1),
        ), unknown

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Plain text, numbers and tensors, as a checkpoint may hold them."""
        import torch

        def plain(value: Any) -> Any:
            return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

        return {
            name: {
                "kind": _KINDS[type(encoder)],
                **{field.name: plain(getattr(encoder, field.name)) for field in fields(encoder)},
            }
            for name, encoder in self.encoders.items()
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Mapping[str, Any]]) -> FeatureEncoder:
        """The encoder that `state_dict` described."""
        classes: dict[str, Any] = {kind: own for own, kind in _KINDS.items()}
        encoders = {}
        for name, values in state.items():
            own = {key: value.cpu().numpy() if hasattr(value, "cpu") else value for key, value in values.items()}
            encoders[name] = classes[own.pop("kind")](**own)
        return cls(encoders)


_KINDS: dict[type, str] = {CategoryEncoder: "categories", NumberEncoder: "numbers", VectorEncoder: "vectors"}


def _encoder(name: str, wanted: Any, column: Column) -> Encoder:
    """What encodes a column of the items that are trained on."""
    is_size = isinstance(wanted, int) and not isinstance(wanted, bool) and 0 < wanted <= _LARGEST
    if isinstance(column, Vectors) and (is_size or wanted == "vector"):
        return VectorEncoder.of(column, int(wanted) if is_size else N_COMPONENTS)
    if isinstance(column, Numbers) and wanted == "soft":
        return NumberEncoder.of(column, N_KNOTS)
    if isinstance(column, Numbers) and column.are_whole:
        column = column.as_categories()
    if isinstance(column, Categories) and is_size:
        used = np.unique(column.codes)
        return CategoryEncoder([column.names[code] for code in used], int(wanted))
    kind, right = {
        Categories: ("categories", f"the size of their embedding, at most {_LARGEST}, such as 32"),
        Numbers: ("numbers", "soft"),
        Vectors: ("vectors", "vector, or a number of components"),
    }[type(column)]
    raise SessRecError(f"{_OPTION} {name} is {wanted!r}, and the column holds {kind}: give {right}")


def _as_fitted(name: str, encoder: Encoder, column: Column) -> Column:
    """A column as what it was in the fit; one without a value is missing whatever its kind."""
    n_items = len(column.is_missing)
    if isinstance(encoder, CategoryEncoder):
        if isinstance(column, Numbers) and column.are_whole:
            return column.as_categories()
        if column.is_missing.all():
            return Categories([], np.empty(0, dtype=np.int64), np.zeros(n_items + 1, dtype=np.int64))
    elif column.is_missing.all():
        if isinstance(encoder, NumberEncoder):
            return Numbers(np.full(n_items, np.nan), are_whole=True)
        return Vectors(np.zeros((n_items, len(encoder.mean)), dtype=np.float32), np.zeros(n_items, dtype=bool))
    kind, wanted = _COLUMN_OF[type(encoder)]
    if not isinstance(column, kind):
        raise SessRecError(f"column {name} holds {column}, and the fit had {wanted} there")
    return column


_COLUMN_OF: dict[type, tuple[Any, str]] = {
    CategoryEncoder: (Categories, "categories"),
    NumberEncoder: (Numbers, "numbers"),
    VectorEncoder: (Vectors, "vectors"),
}


def _continued(before: Encoder, now: Encoder) -> Encoder:
    """The encoder of an earlier fit, with the categories that only the new one has behind its own."""
    if isinstance(before, CategoryEncoder) and isinstance(now, CategoryEncoder):
        return CategoryEncoder(list(dict.fromkeys([*before.names, *now.names])), now.size)
    return before if type(before) is type(now) else now


def _padded(codes: np.ndarray, items: np.ndarray, n_items: int, nothing: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and weights of shape (n, most codes of an item), of codes in the order of their items."""
    counts = np.bincount(items, minlength=n_items)
    place = np.arange(len(items)) - np.repeat(np.cumsum(counts) - counts, counts)
    padded = np.full((n_items, counts.max(initial=0)), nothing, dtype=np.int64)
    weights = np.zeros(padded.shape, dtype=np.float32)
    padded[items, place] = codes
    weights[items, place] = 1 / counts[items]
    return padded, weights


def unknown_text(unknown: Mapping[str, int]) -> list[str]:
    """What a reader has to know of categories that the fit has not seen."""
    return [f"{name}: {counted(n, 'value')} unknown to the fit, without effect" for name, n in unknown.items()]
