"""`SparkIndex`: the rows of a click log sorted by Spark's workers, on one machine or many."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sessrec.click_log.arrays import concatenate, empty, joined_texts, take_texts
from sessrec.click_log.id_checks import IdColumn
from sessrec.click_log.ids import are_dense, encode_ids
from sessrec.click_log.lists import longest_lists
from sessrec.click_log.row_index import OrderedRows, Rows
from sessrec.engines.spark_runs import mapped_run, merged
from sessrec.engines.spark_session import explained
from sessrec.engines.spark_shards import Shard, mapped_table, write_table
from sessrec.engines.spark_tasks import Block, RowBlocks
from sessrec.engines.stored_ids import StoredIds, joined_ids

_ROWS = 1 << 21  # in a block that a task takes up, and about as many in a run


class SparkIndex:
    """See `sessrec.click_log.row_index.RowIndex`; to be used inside of `arrays_on_disk`.

    Args:
        spark: The Spark session.
        folder: The shared folder with the shards, which is removed when the rows are sorted.
        shards: The shards with a row.
        numbers: Their numbers.
        rows: The rows of these.

    Raises:
        SessRecError: If Spark fails.
    """

    session: IdColumn
    item: IdColumn

    def __init__(
        self, spark: Any, folder: tempfile.TemporaryDirectory, shards: list[Shard], numbers: list[int], rows: Rows
    ) -> None:
        self._spark, self._folder, self._path, self._rows = spark, folder, Path(folder.name), rows
        self._n_rows = len(rows)
        given = {"time": rows.time, "order": rows.order}
        types = {"time": "int64"} | {name: array.dtype.str for name, array in given.items() if array is not None}
        are_numbers = {
            role: all(piece.type == pa.int64() for piece in getattr(rows, role)) for role in ("session", "item")
        }
        self._blocks = RowBlocks(folder.name, list(_blocks_of(shards, numbers)), are_numbers, types)
        if "session" not in shards[0].have_numbers:
            np.save(self._path / "session.npy", concatenate([piece.to_numpy() for piece in rows.session]))
        if rows.is_wanted is not None:
            np.save(self._path / "is_wanted.npy", rows.is_wanted)
        with explained():
            self.item = self._distinct_items()
            self._run_sessions()
        self.session = self._distinct_sessions()

    def first_row_of(self, session: int, item: int) -> int | None:
        """See `RowIndex`."""
        ids = str(self.session.ids[session]), str(self.item.ids[item])
        with explained():
            numbers = self._spark.sparkContext.parallelize(range(self._n_tasks), self._n_tasks)
            found = numbers.map(partial(self._blocks.first_row_of, session=ids[0], item=ids[1])).collect()
        return min((row for row in found if row is not None), default=None)

    def longest_lists(self, rows: np.ndarray) -> int:
        """See `RowIndex`; the lists are compared in the memory of this process."""
        codes = [encode_ids(pieces)[0] for pieces in (self._rows.session, self._rows.item)]
        time = np.arange(self._n_rows) if self._rows.time is None else self._rows.time
        is_chosen, times, n_others = longest_lists(codes[0], rows, codes[1], time)
        chosen_time = np.zeros(self._n_rows, time.dtype)
        chosen_time[is_chosen] = times
        np.save(self._path / "is_chosen.npy", is_chosen)
        np.save(self._path / "chosen_time.npy", chosen_time)
        self._n_rows = len(times)
        with explained():
            self._run_sessions()
        return n_others

    def sort(self) -> OrderedRows:
        """See `RowIndex`."""
        runs = [mapped_run(self._path, number) for number in self._runs]
        kinds = [column.dtype for column in runs[0].columns]
        columns = [empty(self._n_rows, kind) for kind in kinds]
        offsets = empty(self.n_sessions + 1, np.int64)
        are_numbers = self._blocks.have_numbers["session"]
        session_ids = joined_ids(merged(runs, columns, offsets), self.n_sessions, are_numbers)
        self._folder.cleanup()
        numbers = empty(self.n_sessions, np.int32)
        numbers[:] = np.arange(self.n_sessions)
        item, time, *wanted = columns
        return OrderedRows(item, time, wanted[0] if wanted else None, offsets, numbers, session_ids)

    @property
    def _n_tasks(self) -> int:
        return len(self._blocks.blocks)

    def _shuffled(self, task: Any, join: Any) -> list[Any]:
        """Give each block to a task, bring what they yield for one part together, and join it."""
        n_parts = -(-self._n_rows // _ROWS)
        blocks = self._spark.sparkContext.parallelize(range(self._n_tasks), self._n_tasks)
        parts = blocks.flatMap(partial(task, n_parts=n_parts)).partitionBy(n_parts, int)
        return parts.mapPartitionsWithIndex(join).collect()

    def _distinct_items(self) -> StoredIds:
        """The distinct items in the order in which the default engine numbers them; tasks find their numbers by it."""
        parts = sorted(self._shuffled(self._blocks.item_counts, self._blocks.write_items))
        tables = [mapped_table(self._path / f"ids-{part}.arrow") for part in parts]
        column = _stored("item", self._rows.names[1], tables, self._n_rows)
        write_table(self._path / "items.arrow", pa.table([column.ids], ["id"]))
        return column

    def _distinct_sessions(self) -> IdColumn:
        """The distinct sessions in the order of their first rows; none where they are numbers, which need no look."""
        if self._blocks.have_numbers["session"]:
            none = np.empty(0, np.int64)
            return StoredIds(self._rows.kind, self._rows.names[0], pa.array(none), none, none)
        tables = [mapped_table(self._path / f"run-{number}.arrow") for number in self._runs]
        return _stored(self._rows.kind, self._rows.names[0], tables, self._n_rows)

    def _run_sessions(self) -> None:
        """Have the sessions put together in sorted runs."""
        found = sorted(self._shuffled(self._blocks.fragments, self._blocks.write_sessions))
        self._runs, self.n_sessions = [run for run, _ in found], sum(n for _, n in found)


def _blocks_of(shards: list[Shard], numbers: list[int]) -> Iterator[Block]:
    row = 0
    for number, shard in zip(numbers, shards, strict=True):
        for start in range(0, shard.n_rows, _ROWS):
            yield Block(number, start, row + start, min(_ROWS, shard.n_rows - start))
        row += shard.n_rows


def _stored(kind: str, name: str, tables: list[pa.Table], n_rows: int) -> StoredIds:
    """Distinct ids that lie in several tables, in the order of the numbers or else of their first rows."""
    counts, first_rows = (np.concatenate([table[own].to_numpy() for table in tables]) for own in ("n", "appears"))
    blocks = [piece for table in tables for piece in table["id"].chunks]
    if blocks[0].type == pa.int64():
        ids = np.concatenate(blocks)
        order = np.argsort(ids if are_dense(int(ids.min()), int(ids.max()), n_rows) else first_rows)
        return StoredIds(kind, name, pa.array(ids[order]), counts[order], first_rows[order])
    order = np.argsort(first_rows)
    return StoredIds(kind, name, take_texts(joined_texts(iter(blocks)), order), counts[order], first_rows[order])
