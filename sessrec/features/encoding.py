"""Encode one column of an item table: categories as codes, numbers and vectors as rows of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from sessrec.errors import SessRecError
from sessrec.features.item_table import Categories, Numbers, Vectors

N_KNOTS = 10
N_COMPONENTS = 32
_EPSILON = 1e-5  # of torch's LayerNorm


@dataclass(frozen=True)
class CategoryEncoder:
    """A column of categories, each with a row of a learnt table.

    Args:
        names: Text of each row.
        size: Length of a row.
    """

    names: list[str]
    size: int

    def encode(self, column: Categories) -> tuple[np.ndarray, np.ndarray, int]:
        """Row of every value that is known, its item, both int64, (values,); and the number of unknown values."""
        row = {name: number for number, name in enumerate(self.names)}
        of_name = np.array([row.get(name, -1) for name in column.names], dtype=np.int64)
        codes = of_name[column.codes] if len(column.codes) else column.codes
        items = np.repeat(np.arange(len(column.offsets) - 1), np.diff(column.offsets))
        return codes[codes >= 0], items[codes >= 0], int((codes < 0).sum())


@dataclass(frozen=True)
class NumberEncoder:
    """A soft one-hot: a number lies between two knots, and each gets the more weight the nearer it is.

    Args:
        knots: Ascending numbers, float64, shape (K,); what lies outside of them counts as the first or last.
    """

    knots: np.ndarray

    @property
    def n_numbers(self) -> int:
        """Numbers that an item gets."""
        return len(self.knots)

    @classmethod
    def of(cls, column: Numbers, n_knots: int) -> NumberEncoder:
        """Knots at quantiles of the known numbers; none where all are the same."""
        known = column.values[~column.is_missing]
        knots = np.unique(np.quantile(known, np.linspace(0, 1, n_knots))) if len(known) else np.empty(0)
        return cls(knots if len(knots) > 1 else np.empty(0))

    def encode(self, column: Numbers) -> np.ndarray:
        """Weight of each knot for each item, zeros where it has no number, float32, shape (n, K).

        Example:
            >>> NumberEncoder(np.array([0.0, 10.0])).encode(Numbers(np.array([2.5, 99.0, np.nan]), False)).tolist()
            [[0.75, 0.25], [0.0, 1.0], [0.0, 0.0]]
        """
        found = np.zeros((len(column.values), len(self.knots)), dtype=np.float32)
        if not len(self.knots):
            return found
        row = np.flatnonzero(~column.is_missing)
        values = np.clip(column.values[row], self.knots[0], self.knots[-1])
        left = np.clip(np.searchsorted(self.knots, values, side="right") - 1, 0, len(self.knots) - 2)
        share = (values - self.knots[left]) / (self.knots[left + 1] - self.knots[left])
        found[row, left], found[row, left + 1] = 1 - share, share
        return found


@dataclass(frozen=True)
class VectorEncoder:
    """Principal components of layer-normalised vectors.

    Args:
        mean: Mean of the normalised vectors, float32, shape (D,).
        basis: Directions of the greatest variance, scaled so that the components have a mean square of 1, float32,
            shape (D, K).
    """

    mean: np.ndarray
    basis: np.ndarray

    @property
    def n_numbers(self) -> int:
        """Numbers that an item gets."""
        return self.basis.shape[1]

    @classmethod
    def of(cls, column: Vectors, n_components: int) -> VectorEncoder:
        """The components of the vectors that are there; none where all are the same."""
        known = _normalised(column.values[column.has_value]).astype(np.float64)
        mean = known.mean(axis=0) if len(known) else np.zeros(column.values.shape[1])
        centred = known - mean
        variances, directions = np.linalg.eigh(centred.T @ centred / max(len(known), 1))
        order = np.argsort(-variances, kind="stable")[:n_components]
        order = order[variances[order] > 1e-9 * max(variances.max(initial=0.0), 1e-9)]
        scale = 1 / np.sqrt(variances[order].mean()) if len(order) else 1.0
        basis = directions[:, order] * scale
        signs = np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(len(order))]) if len(order) else 1.0
        return cls(mean.astype(np.float32), (basis * signs).astype(np.float32))

    def encode(self, column: Vectors) -> np.ndarray:
        """Components of each item's vector, zeros where it has none, float32, shape (n, K).

        Raises:
            SessRecError: If the vectors are of another length.
        """
        if column.values.shape[1] != len(self.mean):
            raise SessRecError(
                f"vectors of {column.values.shape[1]} numbers, where those of the fit have {len(self.mean)}"
            )
        found = (_normalised(column.values) - self.mean) @ self.basis
        return np.where(column.has_value[:, None], found, np.float32(0))


def _normalised(vectors: np.ndarray) -> np.ndarray:
    """LayerNorm of each vector: mean 0 and variance 1; float32."""
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + _EPSILON)


Encoder: TypeAlias = CategoryEncoder | NumberEncoder | VectorEncoder
