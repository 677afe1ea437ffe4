"""What Spark's workers do with the rows of a click log: count items, put sessions together.

Rows pass through Spark as arrays: a task makes of a block of rows the events of each session in their order, and parts
the sessions by their ids; Spark's shuffle brings each part of all blocks to one task, which joins them and writes its
sessions as a run that is sorted by their first events. Items are counted likewise.
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
from sessrec.engines.spark_shards import check_folder, mapped_array, mapped_table, whole_file, write_table

_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits without a pattern


class Block(NamedTuple):
    """Some consecutive rows of a shard."""

    shard: int
    start: int
    """Its first row in the shard."""
    row: int
    """Its first row in the log."""
    n_rows: int


class Fragments(NamedTuple):
    """The events that a block has of some sessions, by session and in their order."""

    row: int
    """First row of the block."""
    ids: pa.Array
    lengths: np.ndarray
    """Number of events of each session."""
    first: np.ndarray
    """Row of the first event of each session."""
    appears: np.ndarray
    """First row of each session, which is another one where the rows are not ordered."""
    columns: dict[str, np.ndarray]
    """Item and time of each event, and what orders and selects it."""


class Counts(NamedTuple):
    """Some distinct ids of a block, with their numbers of rows and first rows."""

    ids: pa.Array
    n: np.ndarray
    appears: np.ndarray


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

    def item_counts(self, number: int, n_parts: int) -> Iterator[tuple[int, Counts]]:
        """Distinct items of a block, by their part of all items."""
        check_folder(self.folder)
        block = self.blocks[number]
        codes, ids = encode_ids(self._ids("item", block))
        first = np.empty(len(ids), np.int64)
        first[codes[::-1]] = np.arange(block.row + block.n_rows - 1, block.row - 1, -1)  # the earliest comes last
        ids, n = self._keys("item", ids), count_codes(codes, len(ids))
        for part, places in _parts(ids, n_parts):
            yield part, Counts(ids.take(pa.array(places)), n[places], first[places])

    def write_items(self, part: int, found: Iterator[tuple[int, Counts]]) -> Iterator[int]:
        """Add up the counts of a part of the items, and write them; gives its number, where there are any."""
        check_folder(self.folder)
        counts = [own for _, own in found]
        if counts:
            codes, ids = encode_ids([own.ids for own in counts])
            n, appears = np.zeros(len(ids), np.int64), np.full(len(ids), np.iinfo(np.int64).max)
            np.add.at(n, codes, np.concatenate([own.n for own in counts]))
            np.minimum.at(appears, codes, np.concatenate([own.appears for own in counts]))
            with whole_file(Path(self.folder, f"ids-{part}.arrow")) as file:
                write_table(file, pa.table([ids, n, appears], ["id", "n", "appears"]))
            yield part

    def first_row_of(self, number: int, session: str, item: str) -> int | None:
        """The first row of a block that has both of two ids, given as texts."""
        block, has_both = self.blocks[number], np.True_
        for role, text in (("session", session), ("item", item)):
            ids = pa.chunked_array([piece.cast(pa.string()) for piece in self._ids(role, block)])
            has_both = has_both & pc.equal(ids, text).to_numpy()
        return block.row + int(has_both.argmax()) if has_both.any() else None

    def fragments(self, number: int, n_parts: int) -> Iterator[tuple[int, Fragments]]:
        """Sessions as far as a block has them, by their part of all sessions."""
        check_folder(self.folder)
        block = self.blocks[number]
        sessions, columns = self._ids("session", block), self._columns(block)
        chosen, times = (self._array(name, block.row, block) for name in ("is_chosen", "chosen_time"))
        if chosen is not None and times is not None:  # of the longest lists
            columns = {name: column[chosen] for name, column in {**columns, "time": times}.items()}
            sessions = pa.chunked_array(sessions).filter(pa.array(chosen)).chunks
        if not len(columns["item"]):
            return
        codes, ids = encode_ids(sessions)
        names = list(columns)
        sorted_columns, offsets, order = sort_into_sessions(
            codes, columns["time"], list(columns.values()), columns.get("order")
        )
        row = sorted_columns.pop(names.index("row"))
        names.remove("row")
        first, appears = row[offsets[:-1]], np.minimum.reduceat(row, offsets[:-1])
        ids = self._keys("session", ids).take(pa.array(order))
        for part, places in _parts(ids, n_parts):
            own, ends = take_runs(sorted_columns, offsets, places)
            of_events = dict(zip(names, own, strict=True))
            own_ids = ids.take(pa.array(places))
            yield part, Fragments(block.row, own_ids, np.diff(ends), first[places], appears[places], of_events)

    def write_sessions(self, part: int, found: Iterator[tuple[int, Fragments]]) -> Iterator[tuple[int, int]]:
        """Put the sessions of a part together from all their fragments, and write them as a sorted run.

        Args:
            part: Number of the part, and of the run.
            found: All fragments of its sessions.

        Yields:
            Number of the run, and of its sessions, where there are any.
        """
        check_folder(self.folder)
        fragments = sorted((own for _, own in found), key=lambda own: own.row)  # so that equal events stay in order
        if not fragments:
            return
        codes, ids = encode_ids([own.ids for own in fragments])
        columns = {name: np.concatenate([own.columns[name] for own in fragments]) for name in fragments[0].columns}
        lengths = np.concatenate([own.lengths for own in fragments])
        columns["row"] = np.repeat(np.concatenate([own.first for own in fragments]), lengths)  # true of first events
        joined, offsets, order = sort_into_sessions(
            np.repeat(codes, lengths), columns["time"], list(columns.values()), columns.get("order")
        )
        names = list(columns)
        columns = dict(zip(names, joined, strict=True))
        by_first = np.lexsort([columns[name][offsets[:-1]] for name in ("row", "time")])
        joined, offsets = take_runs(joined, offsets, by_first)
        columns, order = dict(zip(names, joined, strict=True)), order[by_first]
        appears = np.empty(len(ids), np.int64)
        appears[codes[::-1]] = np.concatenate([own.appears for own in fragments])[::-1]  # the earliest comes last
        first = {"start": columns["time"][offsets[:-1]], "first": columns["row"][offsets[:-1]]}
        own = {"id": ids.take(pa.array(order)), "n": np.diff(offsets), "appears": appears[order], **first}
        for name in names:
            if name not in ("row", "order"):
                with whole_file(Path(self.folder, f"run-{part}-{name}.npy")) as file:
                    np.save(file, columns[name])
        with whole_file(Path(self.folder, f"run-{part}.arrow")) as file:
            write_table(file, pa.table(own))
        yield part, len(ids)

    def _columns(self, block: Block) -> dict[str, np.ndarray]:
        """What a block has of each event, but for its session."""
        items = mapped_table(Path(self.folder, "items.arrow"))["id"].combine_chunks()
        places = [pc.index_in(piece.cast(items.type), items) for piece in self._ids("item", block)]
        row = np.arange(block.row, block.row + block.n_rows)
        columns = {"item": pa.chunked_array(places).to_numpy(), "row": row}
        for name in ("time", "order"):
            if (array := self._array(f"{block.shard}-{name}", block.start, block)) is not None:
                columns[name] = array.astype(self.kinds[name])
        columns.setdefault("time", row)
        if (wanted := self._array("is_wanted", block.row, block)) is not None:
            columns["is_wanted"] = wanted
        return columns

    def _ids(self, role: str, block: Block) -> list[pa.Array]:
        """Ids of a block, in pieces."""
        if (own := self._array(role, block.row, block)) is not None:  # numbers of rows, which are the sessions
            return [pa.array(own)]
        column = mapped_table(Path(self.folder, f"{block.shard}.arrow"))[role]
        return column.slice(block.start, block.n_rows).chunks

    def _array(self, name: str, start: int, block: Block) -> np.ndarray | None:
        array = mapped_array(Path(self.folder, f"{name}.npy"))
        return None if array is None else array[start : start + block.n_rows]

    def _keys(self, role: str, ids: pa.Array) -> pa.Array:
        """Ids as all blocks have them: numbers, or texts."""
        return ids if self.have_numbers[role] else ids.cast(pa.string())


def _parts(ids: pa.Array, n_parts: int) -> Iterator[tuple[int, np.ndarray]]:
    """Part ids by their value alone: the number of each part that has some, and the places of these, ascending."""
    part = (_hashes(ids) >> np.uint64(33)) % np.uint64(n_parts)
    order = np.argsort(part, kind="stable")
    ends = np.searchsorted(part[order], np.arange(n_parts + 1, dtype=np.uint64))
    return ((own, order[ends[own] : ends[own + 1]]) for own in range(n_parts) if ends[own] < ends[own + 1])


def _hashes(ids: pa.Array) -> np.ndarray:
    """A number for each id, which depends on its bytes alone, uint64; equal ones for different ids do no harm."""
    if ids.type == pa.int64():
        return ids.to_numpy().view(np.uint64) * _MIX
    ends = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1].astype(np.int64)
    content = np.frombuffer(ids.buffers()[2], np.uint8)[ends[0] : ends[-1]]  # no id is empty
    ends -= ends[0]
    place = (np.arange(len(content)) - np.repeat(ends[:-1], np.diff(ends))).astype(np.uint64)
    weights = (place * np.uint64(2) + np.uint64(1)) * _MIX
    return np.add.reduceat((content + np.uint64(1)) * (weights ^ (weights >> np.uint64(29))), ends[:-1]) * _MIX
