"""`RowIndex`: the distinct ids of a click log's rows, and its rows in session order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from sessrec.click_log.id_checks import IdColumn
from sessrec.click_log.ids import encode_ids
from sessrec.click_log.lists import longest_lists
from sessrec.click_log.ordering import sort_into_sessions

ENGINE_OPTIONS = ("engine", "memory_limit", "scratch_dir")
"""Options of the data that choose who indexes the rows, and with what of this machine; no result depends on them."""


@dataclass
class Rows:
    """The complete rows of a click log, as they stand in its files."""

    kind: str
    """What the session ids are ids of: sessions or visitors."""
    names: tuple[str, str]
    """Names of the columns of session and item."""
    session: list[pa.Array]
    """Session ids in pieces, as `plain_numbers` gives them; emptied once they are read."""
    item: list[pa.Array]
    """Item ids, likewise, in pieces of the same rows."""
    time: np.ndarray | None
    """Unix seconds, int64 or float64; None where the order of rows is the time."""
    order: np.ndarray | None
    """Numbers that order rows of equal time."""
    is_wanted: np.ndarray | None
    """Whether each row is of a kind of event that is kept; None where all are."""

    def __len__(self) -> int:
        """Number of rows."""
        return sum(map(len, self.item))


class OrderedRows(NamedTuple):
    """Rows in session order: sessions by time and row of their first event, events by time, order and row."""

    item: np.ndarray
    """Place of each row's item among the item ids, int32."""
    time: np.ndarray
    is_wanted: np.ndarray | None
    offsets: np.ndarray
    """First row of each session, and the number of rows, int64, shape (S + 1,)."""
    numbers: np.ndarray
    """Place of each session among ``session_ids``, int32, shape (S,)."""
    session_ids: pa.Array


class RowIndex(Protocol):
    """What an engine makes of rows."""

    session: IdColumn
    item: IdColumn
    n_sessions: int

    def first_row_of(self, session: int, item: int) -> int | None:
        """The first row that has both of two ids, given by their places; None where there is none."""

    def longest_lists(self, rows: np.ndarray) -> int:
        """Keep the longest list of each session alone, of lists that ``rows`` tells apart.

        Returns:
            Number of lists that the longest one of their session does not continue.
        """

    def sort(self) -> OrderedRows:
        """Put the rows into session order."""


class MemoryIndex:
    """The index of rows that fit into memory."""

    def __init__(self, rows: Rows) -> None:
        self.session = IdColumn(rows.kind, rows.names[0], *encode_ids(rows.session))
        self.item = IdColumn("item", rows.names[1], *encode_ids(rows.item))
        self.n_sessions = len(self.session.ids)
        rows.session.clear()
        rows.item.clear()
        time = np.arange(len(self.item.codes)) if rows.time is None else rows.time
        self._columns = [self.session.codes, self.item.codes, time]
        self._is_wanted, self._order = rows.is_wanted, rows.order

    def first_row_of(self, session: int, item: int) -> int | None:
        """See `RowIndex`."""
        has_both = (self.session.codes == session) & (self.item.codes == item)
        return int(has_both.argmax()) if has_both.any() else None

    def longest_lists(self, rows: np.ndarray) -> int:
        """See `RowIndex`."""
        session, item, time = self._columns
        is_chosen, times, n_others = longest_lists(session, rows, item, time)
        self._columns = [session[is_chosen], item[is_chosen], times]
        self._is_wanted, self._order = (
            None if column is None else column[is_chosen] for column in (self._is_wanted, self._order)
        )
        return n_others

    def sort(self) -> OrderedRows:
        """See `RowIndex`."""
        session, item, time = self._columns
        columns: Sequence[np.ndarray] = [item, time, *([] if self._is_wanted is None else [self._is_wanted])]
        (item, time, *wanted), offsets, numbers = sort_into_sessions(session, time, columns, self._order)
        return OrderedRows(item, time, wanted[0] if wanted else None, offsets, numbers, self.session.ids)
