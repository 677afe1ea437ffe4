"""`DuckDBIndex`: the rows of a click log in a database on disk, which sorts more of them than the memory holds."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sessrec.click_log.arrays import empty, joined_texts, scratch_folder
from sessrec.click_log.id_checks import IdColumn
from sessrec.click_log.ids import are_dense
from sessrec.click_log.lists import longest_lists
from sessrec.click_log.log_engine import LogEngine
from sessrec.click_log.row_index import OrderedRows, Rows
from sessrec.engines.stored_ids import StoredIds, joined_ids
from sessrec.errors import SessRecError, one_line

_ROWS = 1 << 20  # in a block


class DuckDBEngine(LogEngine):
    """Sorts rows on disk.

    Args:
        memory_limit: See `DuckDBIndex`.
    """

    def __init__(self, memory_limit: str | None = None) -> None:
        self._memory_limit = memory_limit

    def index_rows(self, rows: Rows) -> DuckDBIndex:
        """See `LogEngine`."""
        return DuckDBIndex(rows, self._memory_limit)


class DuckDBIndex:
    """See `sessrec.click_log.row_index.RowIndex`; to be used inside of `arrays_on_disk`.

    Args:
        rows: The rows.
        memory_limit: Memory that the database may take, such as 2GB; None for four fifths of the machine's.

    Raises:
        SessRecError: If DuckDB is not installed, or the memory or the disk is too small.
    """

    def __init__(self, rows: Rows, memory_limit: str | None = None) -> None:
        folder = scratch_folder()
        assert folder is not None
        self._folder = tempfile.TemporaryDirectory(prefix="duckdb-", dir=folder)
        self._rows, self._memory_limit = rows, memory_limit
        with self._explained():
            self._database = _connect(Path(self._folder.name), memory_limit)
            self._ids = {role: _kind_of(getattr(rows, role)) for role in ("session", "item")}
            self._n_rows = len(rows)
            self._insert()
            self._group()
            self.item = self._distinct("item", "item", rows.names[1])
            self.session = self._distinct("session", rows.kind, rows.names[0])
            self._number_items()

    def first_row_of(self, session: int, item: int) -> int | None:
        """See `RowIndex`."""
        ids = [str(self.session.ids[session]).encode(), str(self.item.ids[item]).encode()]  # texts are asked for alone
        with self._explained():
            return self._value("SELECT min(row) FROM rows WHERE session = ? AND item = ?", *ids)

    def longest_lists(self, rows: np.ndarray) -> int:
        """See `RowIndex`; the lists are compared on disk, but in this process."""
        with self._explained():
            codes, end = [empty(self._n_rows, np.int32) for _ in ("session", "item")], 0
            for block in self._query(
                "SELECT number, code FROM rows JOIN sessions ON session = id JOIN items USING (item) ORDER BY row"
            ):
                for column, own in zip(codes, block.columns, strict=True):
                    column[end : end + len(block)] = own
                end += len(block)
            time = np.arange(self._n_rows) if self._rows.time is None else self._rows.time
            is_chosen, times, n_others = longest_lists(codes[0], rows, codes[1], time)
            chosen = pa.table([np.flatnonzero(is_chosen), times], ["row", "time"])
            with self._as_table(chosen):
                self._database.execute(
                    "CREATE TABLE chosen AS SELECT rows.* REPLACE (block.time AS time) FROM rows JOIN block USING (row)"
                )
            for table in ("rows", "sessions", "session_ids", "item_ids"):
                self._database.execute(f"DROP TABLE {table}")
            self._database.execute("ALTER TABLE chosen RENAME TO rows")
            self._n_rows = len(times)
            self._group()
            return n_others

    def sort(self) -> OrderedRows:
        """See `RowIndex`."""
        with self._explained():
            return self._sort()

    def _insert(self) -> None:
        """Write all rows into the table ``rows``."""
        rows, blocks = self._rows, self._row_blocks()
        first = next(blocks)
        with self._as_table(pa.RecordBatchReader.from_batches(first.schema, itertools.chain([first], blocks))):
            self._database.execute("CREATE TABLE rows AS SELECT * FROM block")
        rows.session.clear()
        rows.item.clear()

    def _row_blocks(self) -> Iterator[pa.RecordBatch]:
        """Number, ids and times of the rows, and what orders and selects them."""
        rows, start = self._rows, 0
        for session, item in zip(
            *(_blocks(getattr(rows, role), kind) for role, kind in self._ids.items()), strict=True
        ):
            stop = start + len(session)
            row = np.arange(start, stop, dtype=np.uint32 if self._n_rows < 2**32 else np.int64)
            columns: dict[str, Any] = {"row": row, "session": session, "item": item}
            columns["time"] = row.astype(np.int64) if rows.time is None else rows.time[start:stop]
            if rows.order is not None:
                columns["position"] = rows.order[start:stop]
            if rows.is_wanted is not None:
                columns["is_wanted"] = rows.is_wanted[start:stop]
            yield pa.record_batch([pa.array(column) for column in columns.values()], names=list(columns))
            start = stop

    def _group(self) -> None:
        """Make the tables ``item_ids`` and ``session_ids``: rows of each id, and where it comes first."""
        first = f"arg_min(row, (time, {self._position}row))"
        for role, more in {"item": "", "session": f", min(time) AS start, {first} AS first"}.items():
            self._database.execute(
                f"CREATE TABLE {role}_ids AS SELECT {role} AS id, count(*) AS n, min(row) AS appears{more} FROM rows "
                "GROUP BY id"
            )
        self._database.execute(
            "CREATE TABLE sessions AS SELECT id, (row_number() OVER (ORDER BY start, first) - 1)::INTEGER AS number "
            "FROM session_ids"
        )
        self.n_sessions = self._value("SELECT count(*) FROM session_ids")

    def _distinct(self, role: str, kind: str, name: str) -> IdColumn:
        """The distinct ids of a column in the order in which the default engine numbers them."""
        is_number, by = self._ids[role] == pa.int64(), "appears"
        if is_number and role == "session":  # of which nothing is asked, and which may be many
            none = np.empty(0, np.int64)
            return StoredIds(kind, name, pa.array(none), none, none)
        if is_number:
            low, high = (self._value(f"SELECT {end}(id) FROM {role}_ids") for end in ("min", "max"))
            by = "id" if are_dense(low, high, self._n_rows) else "appears"
        n_ids = self._value(f"SELECT count(*) FROM {role}_ids")
        counts, first_rows = empty(n_ids, np.int64), empty(n_ids, np.int64)

        def ids() -> Iterator[pa.Array]:
            end = 0
            for block in self._query(f"SELECT id, n, appears FROM {role}_ids ORDER BY {by}"):
                place = slice(end, end + len(block))
                counts[place], first_rows[place] = block["n"], block["appears"]
                end += len(block)
                yield _as_ids(block["id"])

        joined = pa.concat_arrays(list(ids())) if is_number else joined_texts(ids())
        return StoredIds(kind, name, joined, counts, first_rows)

    def _number_items(self) -> None:
        """Write the place of each item id into the table ``items``."""
        ids = self.item.ids
        columns = [pa.array(np.arange(len(ids), dtype=np.int32)), ids.cast(self._ids["item"])]
        with self._as_table(pa.table(columns, ["code", "item"])):
            self._database.execute("CREATE TABLE items AS SELECT * FROM block")

    def _sort(self) -> OrderedRows:
        kind = np.dtype(np.int64) if self._rows.time is None else self._rows.time.dtype
        item, time = empty(self._n_rows, np.int32), empty(self._n_rows, kind)
        is_wanted = None if self._rows.is_wanted is None else empty(self._n_rows, bool)
        offsets, end, n_begun, last = empty(self.n_sessions + 1, np.int64), 0, 0, -1
        wanted = "" if is_wanted is None else ", is_wanted"
        for block in self._query(
            f"SELECT number, code, time{wanted} FROM rows JOIN sessions ON session = id JOIN items USING (item) "
            f"ORDER BY number, time, {self._position}row"
        ):
            place, session = slice(end, end + len(block)), block["number"].to_numpy()
            item[place], time[place] = block["code"], block["time"]
            if is_wanted is not None:
                is_wanted[place] = block["is_wanted"].to_numpy(zero_copy_only=False)
            begins = np.flatnonzero(np.diff(session, prepend=last))
            offsets[n_begun : n_begun + len(begins)] = begins + end
            n_begun, end, last = n_begun + len(begins), end + len(block), session[-1]
        offsets[-1] = end
        session_ids = self._session_ids()
        self._database.close()
        self._folder.cleanup()
        numbers = empty(self.n_sessions, np.int32)
        numbers[:] = np.arange(self.n_sessions)
        return OrderedRows(item, time, is_wanted, offsets, numbers, session_ids)

    def _session_ids(self) -> pa.Array:
        """Ids of the sessions in session order."""
        blocks = (block["id"] for block in self._query("SELECT id FROM sessions ORDER BY number"))
        return joined_ids(map(_as_ids, blocks), self.n_sessions, self._ids["session"] == pa.int64())

    @property
    def _position(self) -> str:
        """What orders rows of equal time, in a list of columns."""
        return "" if self._rows.order is None else "position, "

    def _value(self, query: str, *parameters: Any) -> Any:
        """The only value that a query gives."""
        return self._database.execute(query, parameters).fetchall()[0][0]

    @contextmanager
    def _as_table(self, table: pa.Table | pa.RecordBatchReader) -> Iterator[None]:
        """Name a table ``block`` in queries."""
        self._database.register("block", table)
        try:
            yield
        finally:
            self._database.unregister("block")

    def _query(self, query: str) -> Iterator[pa.RecordBatch]:
        """The rows that a query gives, block by block."""
        try:
            yield from (block for block in self._database.sql(query).to_arrow_reader(_ROWS) if len(block))
        except (pa.ArrowException, OSError) as error:  # of the rows that are still to come
            raise self._error(error) from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Name the option in an error of the database."""
        try:
            yield
        except RuntimeError as error:
            if "interrupted" in str(error):
                raise KeyboardInterrupt from error
            raise
        except Exception as error:  # DuckDB has many kinds
            if not type(error).__module__.startswith("_duckdb"):
                raise
            raise self._error(error) from error

    def _error(self, error: Exception) -> SessRecError:
        limit = "" if self._memory_limit is None else f" --data.memory_limit {self._memory_limit}"
        text = one_line(error).partition(" Possible solutions")[0]
        return SessRecError(f"--data.engine duckdb{limit}, which writes to {self._folder.name}: {text}")


def _connect(folder: Path, memory_limit: str | None) -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise SessRecError("--data.engine duckdb needs DuckDB: pip install 'sessrec[duckdb]'") from error
    database = duckdb.connect(str(folder / "rows.duckdb"))
    database.execute("SET preserve_insertion_order = false")
    database.execute("SET temp_directory = ?", [str(folder / "spilled")])
    if memory_limit is not None:
        database.execute("SET memory_limit = ?", [memory_limit])
    return database


def _kind_of(pieces: list[pa.Array]) -> pa.DataType:
    """Type of a column of ids in the database: numbers where all are plain, else the bytes of texts."""
    return pa.int64() if all(piece.type == pa.int64() for piece in pieces) else pa.binary()


def _as_ids(block: pa.Array) -> pa.Array:
    return block if block.type == pa.int64() else block.cast(pa.string())


def _blocks(pieces: list[pa.Array], kind: pa.DataType) -> Iterator[pa.Array]:
    for piece in pieces:
        for start in range(0, len(piece), _ROWS):
            block = piece.slice(start, _ROWS)
            yield block if kind == pa.int64() else block.cast(pa.string()).cast(pa.binary())
