"""What Spark's workers do with the rows of a click log: count items, put sessions together.

Sessions pass through Spark: as fragments, which are the events that a block of rows has of a session, then whole, in
runs that are sorted by the sessions' first events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessrec.click_log.ids import encode_ids
from sessrec.click_log.ordering import count_codes, sort_into_sessions, take_runs
from sessrec.engines.spark_shards import as_batch, check_folder, mapped_array, mapped_table, whole_file, write_table


class Block(NamedTuple):
    """Some consecutive rows of a shard."""

    shard: int
    start: int
    """Its first row in the shard."""
    row: int
    """Its first row in the log."""
    n_rows: int


@dataclass(frozen=True)
class RowBlocks:
    """The rows of a log, as tasks take them up."""

    folder: str
    """The shared folder."""
    blocks: list[Block]
    have_numbers: dict[str, bool]
    """Whether the ids of a role are plain numbers in all shards."""
    kinds: dict[str, str]
    """Types of time and order in the log."""

    def distinct_items(self, numbers: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Distinct items of some blocks: id, number of rows, first row."""
        for block in self._chosen(numbers):
            codes, ids = encode_ids(self._ids("item", block))
            first = np.empty(len(ids), np.int64)
            first[codes[::-1]] = np.arange(block.row + block.n_rows - 1, block.row - 1, -1)  # the earliest comes last
            yield as_batch(id=self._key("item", ids), n=count_codes(codes, len(ids)), appears=first)

    def first_row_of(self, number: int, session: str, item: str) -> int | None:
        """The first row of a block that has both of two ids, given as texts."""
        block, has_both = self.blocks[number], np.True_
        for role, text in (("session", session), ("item", item)):
            ids = pa.chunked_array([piece.cast(pa.string()) for piece in self._ids(role, block)])
            has_both = has_both & pc.equal(ids, text).to_numpy()
        return block.row + int(has_both.argmax()) if has_both.any() else None

    def fragments(self, numbers: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Sessions as far as some blocks have them; see `_packed`."""
        items = mapped_table(Path(self.folder, "items.arrow"))["id"].combine_chunks()
        for block in self._chosen(numbers):
            sessions, pieces = self._ids("session", block), self._ids("item", block)
            places = pa.chunked_array([pc.index_in(piece.cast(items.type), items) for piece in pieces])
            row = np.arange(block.row, block.row + block.n_rows)
            columns: dict[str, np.ndarray] = {"item": places.to_numpy(), "first": row}
            for name in ("time", "order"):
                if (array := self._array(f"{block.shard}-{name}", block.start, block)) is not None:
                    columns[name] = array.astype(self.kinds[name])
            columns.setdefault("time", row)
            if (wanted := self._array("is_wanted", block.row, block)) is not None:
                columns["is_wanted"] = wanted
            chosen, times = (self._array(name, block.row, block) for name in ("is_chosen", "chosen_time"))
            if chosen is not None and times is not None:  # of the longest lists
                columns = {name: column[chosen] for name, column in {**columns, "time": times}.items()}
                sessions = [pa.chunked_array(sessions).filter(pa.array(chosen)).combine_chunks()]
            if not len(columns["item"]):
                continue
            codes, ids = encode_ids(sessions)
            yield _packed(self._key("session", ids), codes, columns)

    def sessions(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Put whole sessions together from all their fragments, and write them as a sorted run.

        Args:
            batches: All fragments of some sessions.

        Yields:
            Number of the run, and of its sessions.
        """
        found = list(batches)
        if not sum(map(len, found)):
            return
        fragments = _wide(pa.Table.from_batches(found)).sort_by("appears")
        columns, lengths = _unpacked(fragments, self.kinds)
        codes, ids = encode_ids([_as_ids(fragments["session"].combine_chunks())])
        first = fragments["first"].to_numpy()
        columns["first"] = np.repeat(first, lengths)
        names = [name for name in columns if name != "order"]
        sorted_columns, offsets, order = sort_into_sessions(
            np.repeat(codes, lengths), columns["time"], [columns[name] for name in names], columns.get("order")
        )
        columns = dict(zip(names, sorted_columns, strict=True))
        by_first = np.lexsort((columns["first"][offsets[:-1]], columns["time"][offsets[:-1]]))
        taken, offsets = take_runs(list(columns.values()), offsets, by_first)
        columns, order = dict(zip(names, taken, strict=True)), order[by_first]
        appears = np.empty(len(ids), np.int64)
        appears[codes[::-1]] = fragments["appears"].to_numpy()[::-1]
        own = as_batch(
            id=ids.take(pa.array(order)),
            n=np.diff(offsets),
            appears=appears[order],
            start=columns["time"][offsets[:-1]],
            first=columns.pop("first")[offsets[:-1]],
        )
        number, folder = _partition(), Path(self.folder)
        for name, column in columns.items():
            with whole_file(folder / f"run-{number}-{name}.npy") as file:
                np.save(file, column)
        with whole_file(folder / f"run-{number}.arrow") as file:
            write_table(file, pa.Table.from_batches([own]))
        yield as_batch(run=np.array([number]), n=np.array([len(ids)]))

    def _chosen(self, numbers: Iterator[pa.RecordBatch]) -> Iterator[Block]:
        check_folder(self.folder)
        return (self.blocks[number] for batch in numbers for number in batch.column(0).to_pylist())

    def _ids(self, role: str, block: Block) -> list[pa.Array]:
        """Ids of a block, in pieces."""
        if (own := self._array(role, block.row, block)) is not None:  # numbers of rows, which are the sessions
            return [pa.array(own)]
        column = mapped_table(Path(self.folder, f"{block.shard}.arrow"))[role]
        return column.slice(block.start, block.n_rows).chunks

    def _array(self, name: str, start: int, block: Block) -> np.ndarray | None:
        array = mapped_array(Path(self.folder, f"{name}.npy"))
        return None if array is None else array[start : start + block.n_rows]

    def _key(self, role: str, ids: pa.Array) -> pa.Array:
        """Ids as Spark compares them: numbers, or the bytes of texts."""
        return ids if self.have_numbers[role] else ids.cast(pa.string()).cast(pa.binary())


def write_ids(batches: Iterator[pa.RecordBatch], folder: str) -> Iterator[pa.RecordBatch]:
    """Write the distinct ids of a partition, with their counts and first rows."""
    check_folder(folder)
    found = list(batches)
    if sum(map(len, found)):
        ids, *others = pa.Table.from_batches(found).columns
        number = _partition()
        with whole_file(Path(folder, f"ids-{number}.arrow")) as file:
            ids = pa.chunked_array([_as_ids(piece) for piece in ids.chunks])
            write_table(file, pa.table([ids, *others], ["id", "n", "appears"]))
        yield as_batch(run=np.array([number]), n=np.array([len(ids)]))


def _partition() -> int:
    """Number of the partition that this task works on."""
    from pyspark import TaskContext

    return TaskContext.get().partitionId()


def _packed(ids: pa.Array, codes: np.ndarray, columns: dict[str, np.ndarray]) -> pa.RecordBatch:
    """The events of each session in its order: ids, first row, time and row of the first event, columns as bytes."""
    names = list(columns)
    packed, offsets, order = sort_into_sessions(codes, columns["time"], list(columns.values()), columns.get("order"))
    columns = dict(zip(names, packed, strict=True))
    first = columns.pop("first")
    own = {"session": ids.take(pa.array(order)), "first": first[offsets[:-1]]}
    own["appears"] = np.minimum.reduceat(first, offsets[:-1])
    return as_batch(**own, **{name: _as_bytes(column, offsets) for name, column in columns.items()})


def _as_bytes(column: np.ndarray, offsets: np.ndarray) -> pa.Array:
    """The bytes of each run of a column."""
    ends = pa.array((offsets * column.itemsize).astype(np.int32))
    content = pa.py_buffer(np.ascontiguousarray(column))
    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, [None, ends.buffers()[1], content])


def _wide(fragments: pa.Table) -> pa.Table:
    """Fragments whose bytes may be more than offsets of 32 bits can tell: those of one session cannot be divided."""
    kinds = [pa.large_binary() if one.type == pa.binary() else one.type for one in fragments.schema]
    return fragments.cast(pa.schema(list(zip(fragments.column_names, kinds, strict=True))))


def _unpacked(fragments: pa.Table, kinds: dict[str, str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns of the events of all fragments, and the number of events of each."""
    types = {"item": "int32", "is_wanted": "bool", **kinds}
    columns = {
        name: np.concatenate([_content(piece) for piece in fragments[name].chunks]).view(types[name])
        for name in ("item", "time", "order", "is_wanted")
        if name in fragments.column_names
    }
    return columns, pc.binary_length(fragments["item"]).to_numpy() // 4


def _content(piece: pa.Array) -> np.ndarray:
    """The bytes of an array of bytes."""
    ends = np.frombuffer(piece.buffers()[1], np.int64)[piece.offset : piece.offset + len(piece) + 1]
    return np.frombuffer(piece.buffers()[2], np.uint8)[ends[0] : ends[-1]]


def _as_ids(piece: pa.Array) -> pa.Array:
    return piece if piece.type == pa.int64() else piece.cast(pa.string())
