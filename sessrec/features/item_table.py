"""Columns of an item table, by what they hold, and the table itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from sessrec.click_log.arrays import place_in_run


@dataclass(frozen=True)
class Categories:
    """A column of texts, of which an item may have several or none."""

    names: list[str]
    """The distinct texts."""
    codes: np.ndarray
    """Place in ``names`` of every value, item by item, int64, shape (values,)."""
    offsets: np.ndarray
    """First value of each item, and the number of values, int64, shape (n + 1,)."""

    def take(self, rows: np.ndarray) -> Categories:
        """The values of some items; -1 stands for one that has none."""
        counts = np.where(rows >= 0, np.diff(self.offsets, append=0)[rows], 0)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        starts = np.where(rows >= 0, self.offsets[:-1][rows], 0)
        return Categories(self.names, self.codes[np.repeat(starts, counts) + place_in_run(offsets)], offsets)

    @property
    def is_missing(self) -> np.ndarray:
        """Which items have no value, bool, shape (n,)."""
        return np.diff(self.offsets) == 0

    def __str__(self) -> str:
        several = int(np.diff(self.offsets).max(initial=0))
        n_names = f"{len(self.names):,} categor{'y' if len(self.names) == 1 else 'ies'}"
        return n_names + (f", up to {several} an item" if several > 1 else "")


@dataclass(frozen=True)
class Numbers:
    """A column of numbers."""

    values: np.ndarray
    """Value of each item, NaN where it has none, float64, shape (n,)."""
    are_whole: bool
    """Whether all of them are whole, and may be names of categories."""
    texts: np.ndarray | None = None
    """How each one is written, empty where there is none, str, shape (n,); None of a typed column with fractions."""

    def take(self, rows: np.ndarray) -> Numbers:
        """The values of some items; -1 stands for one that has none."""
        texts = None if self.texts is None else np.where(rows >= 0, self.texts[rows], "")
        return Numbers(np.where(rows >= 0, self.values[rows], np.nan), self.are_whole, texts)

    @property
    def is_missing(self) -> np.ndarray:
        """Which items have no value, bool, shape (n,)."""
        return np.isnan(self.values)

    def as_categories(self) -> Categories:
        """Whole numbers as names, as they are written: in a text, 007 and 7 are two."""
        has_value = ~self.is_missing
        own = self.values[has_value].astype(np.int64) if self.texts is None else self.texts[has_value]
        found, codes = np.unique(own, return_inverse=True)
        offsets = np.concatenate([[0], np.cumsum(has_value)])
        return Categories([str(name) for name in found.tolist()], codes.reshape(-1).astype(np.int64), offsets)

    def __str__(self) -> str:
        known = self.values[~self.is_missing]
        if not len(known):
            return "numbers, all missing"
        kind = "whole numbers" if self.are_whole else "numbers"
        return f"{kind} from {known.min():g} to {known.max():g}, {len(np.unique(known)):,} distinct"


@dataclass(frozen=True)
class Vectors:
    """A column of vectors of one length."""

    values: np.ndarray
    """Vector of each item, zeros where it has none, float32, shape (n, D)."""
    has_value: np.ndarray
    """Which items have one, bool, shape (n,)."""

    def take(self, rows: np.ndarray) -> Vectors:
        """The vectors of some items; -1 stands for one that has none."""
        has_value = (rows >= 0) & self.has_value[rows]
        return Vectors(np.where(has_value[:, None], self.values[rows], np.float32(0)), has_value)

    @property
    def is_missing(self) -> np.ndarray:
        """Which items have no vector, bool, shape (n,)."""
        return ~self.has_value

    def __str__(self) -> str:
        return f"vectors of {self.values.shape[1]:,} numbers"


Column: TypeAlias = Categories | Numbers | Vectors


class ItemTable:
    """What is known of items beside their clicks: columns by name, one value an item.

    Args:
        item_ids: Item id of each row, text, all different.
        columns: Columns by name.
        source: Where they are from, for messages.
        notes: What a reader has to know of how they were read.
        faults: Why other columns of the table can be no features, by their names.

    Example:
        >>> table = ItemTable(["a", "b"], {"price": Numbers(np.array([1.0, 2.0]), are_whole=False)}, "shop")
        >>> table.select(["b", "x"])["price"].values.tolist()
        [2.0, nan]
    """

    def __init__(
        self,
        item_ids: Iterable[str],
        columns: Mapping[str, Column],
        source: str,
        notes: Iterable[str] = (),
        faults: Mapping[str, str] | None = None,
    ) -> None:
        self.item_ids = list(item_ids)
        self.columns = dict(columns)
        self.source = source
        self.notes = list(notes)
        self.faults = dict(faults or {})
        self._row = {item_id: row for row, item_id in enumerate(self.item_ids)}

    def __len__(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    def rows_of(self, item_ids: Iterable[str]) -> np.ndarray:
        """Row of each item id, -1 where the table has none, int64."""
        return np.array([self._row.get(item_id, -1) for item_id in item_ids], dtype=np.int64)

    def select(self, item_ids: Iterable[str], names: Iterable[str] | None = None) -> dict[str, Column]:
        """Some columns, all where None, with one row for each item id, in their order.

        Values of items that the table lacks are missing.
        """
        rows = self.rows_of(item_ids)
        return {name: self.columns[name].take(rows) for name in (self.columns if names is None else names)}

    def describe(self, item_ids: Iterable[str]) -> dict[str, int | str]:
        """Figures for the data report: kinds of the columns, and how the table and the items of a log meet.

        Args:
            item_ids: The items of the log.
        """
        item_ids = list(item_ids)
        rows = self.rows_of(item_ids)
        found = int((rows >= 0).sum())
        figures: dict[str, int | str] = {
            "source": self.source,
            "items": len(self),
            "items_of_the_log_with_a_row": found,
            "items_of_the_log_without_a_row": len(item_ids) - found,
            "items_without_a_click_in_training": len(self) - found,
        }
        for name, column in self.columns.items():
            n_missing = int(column.is_missing.sum())
            figures[f"column_{name}"] = str(column) + (f", {n_missing:,} missing" if n_missing else "")
        notes = [*self.notes, *(f"left out: {fault}" for fault in self.faults.values())]
        return figures | {f"note_{number}": note for number, note in enumerate(notes, 1)}
