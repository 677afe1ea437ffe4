"""When each item is there to be clicked: intervals of time, from a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.click_log.times import TimeUnit, UnreadableTimes, times_from_column
from sessrec.errors import SessRecError
from sessrec.features.reading import item_id_texts, read_table
from sessrec.text import counted

COLUMNS = ("From", "To")
_OPTION = "--data.availability"


@dataclass(frozen=True)
class Availability:
    """When items are there: from each time in turn it is there, and gone, and there again.

    Args:
        item_ids: Item ids, all different.
        bounds: Times at which each item comes and goes, Unix seconds, ascending, infinite where there are no more,
            float64, shape (n, 2 K).
        source: Where they are from.
        notes: What a reader has to know of how they were read.

    Example:
        >>> availability = Availability(["a"], np.array([[10.0, 20.0, 30.0, np.inf]]), "shop")
        >>> [availability.of(["a", "b"]).at(time).tolist() for time in (5, 10, 20, 99)]
        [[False, True], [True, True], [False, True], [True, True]]
    """

    item_ids: list[str]
    bounds: np.ndarray
    source: str
    notes: tuple[str, ...] = ()

    def of(self, item_ids: Sequence[str]) -> ItemIntervals:
        """The intervals of some items; those that the table lacks are always there."""
        row = {item_id: number for number, item_id in enumerate(self.item_ids)}
        rows = np.array([row.get(item_id, -1) for item_id in item_ids], dtype=np.int64)
        bounds = np.full((len(rows), max(2, self.bounds.shape[1])), np.inf)
        bounds[:, 0] = -np.inf
        bounds[rows >= 0, : self.bounds.shape[1]] = self.bounds[rows[rows >= 0]]
        return ItemIntervals(bounds, n_unlisted=int((rows < 0).sum()))


@dataclass(frozen=True)
class ItemIntervals:
    """When the items of a vocabulary are there.

    Args:
        bounds: See `Availability`, one row an item, float64, shape (N, 2 K).
        n_unlisted: Items that are always there because no table says when.
    """

    bounds: np.ndarray
    n_unlisted: int = 0

    def at(self, time: float) -> np.ndarray:
        """Which items are there, bool, shape (N,)."""
        return _are_there(self.bounds, time)

    def are_there(self, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Whether some items, int64, are there, each at a time of its own, bool, both of shape (P,)."""
        return _are_there(self.bounds[items], times[:, None])

    def counts(self, times: np.ndarray) -> np.ndarray:
        """Number of items that are there at each time, int64."""
        come, go = np.sort(self.bounds[:, ::2].ravel()), np.sort(self.bounds[:, 1::2].ravel())
        return np.searchsorted(come, times, side="right") - np.searchsorted(go, times, side="right")

    def next_change(self, time: float) -> float:
        """The first time after another at which an item comes or goes; infinite where none does."""
        later = self.bounds[self.bounds > time]
        return float(later.min(initial=np.inf))


def _are_there(bounds: np.ndarray, time: float | np.ndarray) -> np.ndarray:
    """Whether the last bound of each row, (n, 2 K), up to a time is one at which the item comes, bool, shape (n,)."""
    return (bounds <= time).sum(axis=1) % 2 == 1


def read_availability(
    source: Any, item_column: str = "ItemId", time_unit: TimeUnit = "auto", time_format: str | None = None
) -> Availability:
    """Read a table of intervals: an item id, ``From`` and ``To``, one row an interval.

    An item is there from ``From`` on, and no longer at ``To``. An empty ``From`` stands for ever before, an empty
    ``To`` for ever after.

    Args:
        source: A Parquet, CSV or TSV file, or a table in memory.
        item_column: Column of the item ids.
        time_unit: Unit of numeric times, as of the click log.
        time_format: Format of times that are neither numbers nor ISO 8601.

    Raises:
        SessRecError: If the table cannot be read, lacks a column, has times that cannot be read, or an interval that
            ends before it begins.
    """
    table, name, _ = read_table(source, item_column, _OPTION)
    if missing := [column for column in COLUMNS if column not in table.column_names]:
        raise SessRecError(
            f"{name} ({_OPTION}) has no column {' and no column '.join(missing)}; it has "
            f"{', '.join(table.column_names)}: an interval has {item_column}, From and To"
        )
    texts, table, notes = item_id_texts(table, item_column, name)
    starts = _times(table["From"], f"column From of {name}", -np.inf, time_unit, time_format)
    ends = _times(table["To"], f"column To of {name}", np.inf, time_unit, time_format)
    if len(bad := np.flatnonzero(ends < starts)):
        such = texts[bad[0]].as_py()
        raise SessRecError(f"{name}: {counted(len(bad), 'interval')} with To before From, such as one of item {such}")
    encoded = texts.dictionary_encode()
    items, n_items = encoded.indices.to_numpy(zero_copy_only=False), len(encoded.dictionary)
    bounds = _bounds(items, starts, ends, n_items)
    return Availability(encoded.dictionary.to_pylist(), bounds, name, tuple(notes))


def _times(
    column: pa.ChunkedArray, where: str, empty: float, time_unit: TimeUnit, time_format: str | None
) -> np.ndarray:
    """Unix seconds of a column, float64, with a value for empty cells."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.string())
        column = pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), None, column)
    is_there = pc.is_valid(column).to_numpy()
    found = np.full(len(column), empty)
    known = column.drop_null()
    if len(known):
        try:
            found[is_there] = times_from_column(known, time_unit, where, time_format)[0]
        except UnreadableTimes as error:
            raise SessRecError(
                f"{where}: {counted(len(error.rows), 'time')} cannot be read, first "
                f"{', '.join(map(repr, error.texts))}; {error}"
            ) from error
    return found


def _bounds(items: np.ndarray, starts: np.ndarray, ends: np.ndarray, n_items: int) -> np.ndarray:
    """Intervals of each item, those that meet or overlap made one, as bounds of shape (n, 2 K)."""
    kept = ends > starts
    items, starts, ends = items[kept], starts[kept], ends[kept]
    # of all comings (+1) and goings (-1) of an item in time order, comings first, those where the number there is 0
    item, time = np.concatenate([items, items]), np.concatenate([starts, ends])
    step = np.repeat([1, -1], len(items))
    order = np.lexsort((-step, time, item))
    item, time, step = item[order], time[order], step[order]
    n_there = np.cumsum(step)  # every item ends with 0
    is_bound = (n_there == 0) | (n_there - step == 0)
    item, time = item[is_bound], time[is_bound]
    counts = np.bincount(item, minlength=n_items)
    place = np.arange(len(item)) - np.repeat(np.cumsum(counts) - counts, counts)
    bounds = np.full((n_items, max(2, counts.max(initial=0))), np.inf)
    bounds[item, place] = time
    return bounds
