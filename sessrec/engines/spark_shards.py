"""Files of a click log as Spark's workers leave them in the folder that they share with this process.

A file of the log becomes a shard there: columns of ids, mapped by whoever needs them, and one file each of times, order
and rows.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from sessrec.click_log.arrays import arrays_on_disk
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.log_table import LogTable, read_table_of
from sessrec.errors import SessRecError

BATCH = 1 << 18  # rows
ARRAYS = ("time", "order", "rows")  # of a shard


class Shard(NamedTuple):
    """What is told of a file that was read; the rest is in the shared folder."""

    n_rows: int
    have_numbers: dict[str, bool]
    """Whether the ids of a role are plain numbers, int64."""
    figures: dict[str, int]
    notes: list[str]
    time_note: str


def read_shard(job: tuple[int, str, str], folder: str, log_format: LogFormat, n_files: int) -> Shard | str:
    """Read a file of the log.

    Args:
        job: Its number, its name in messages, and where it is.
        folder: The shared folder.
        log_format: How it is written.
        n_files: Number of files of the log.

    Returns:
        The shard; the message where the file cannot be read.
    """
    number, name, file = job
    check_folder(folder)

    def named(text: str) -> str:
        return text.replace(file, name)

    try:
        with local_folder() as own, arrays_on_disk(own):
            shard = write_shard(read_table_of(Path(file), log_format, n_files), Path(folder), number)
    except SessRecError as error:
        return named(str(error))
    return shard._replace(notes=list(map(named, shard.notes)))


def read_contents(
    batches: Iterator[pa.RecordBatch], numbers: dict[str, int], folder: str, log_format: LogFormat, n_files: int
) -> Iterator[pa.RecordBatch]:
    """Read files of the log whose content Spark hands over.

    Args:
        batches: URL and content of files.
        numbers: Number of each file, by its URL.
        folder: See `read_shard`, as all that follow.
        log_format: How they are written.
        n_files: Number of files of the log.

    Yields:
        Number of each, and its shard as JSON.
    """
    known = {unquote(url): (number, url) for url, number in numbers.items()}  # Spark may write an URL otherwise
    for batch in batches:
        for found, content in zip(*batch.columns, strict=True):
            number, url = known[unquote(found.as_py())]
            with local_folder() as own:
                copy = own / "file"
                with copy.open("wb") as file:
                    file.write(content.as_buffer())
                shard = read_shard((number, url, str(copy)), folder, log_format, n_files)
            yield as_batch(number=np.array([number]), shard=pa.array([json.dumps(shard)]))


@contextmanager
def local_folder() -> Iterator[Path]:
    """A folder of the machine's own for the files of a task."""
    places = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")
    with tempfile.TemporaryDirectory(prefix="sessrec-", dir=places[0] or None) as name:
        yield Path(name)


def check_folder(folder: str) -> None:
    """Refuse a machine that does not share the folder.

    Raises:
        SessRecError: If it does not.
    """
    if not Path(folder).is_dir():
        raise SessRecError(
            f"the machine {socket.gethostname()} has no folder {folder}: --data.scratch_dir must name one that all "
            "machines of the cluster share"
        )


def write_shard(table: LogTable, folder: Path, number: int) -> Shard:
    """Write the rows of a file.

    Args:
        table: The rows.
        folder: The shared folder.
        number: Number of the file.
    """
    columns: dict[str, Any] = {}
    for role in ("session", "item"):
        pieces = getattr(table, role)
        are_numbers = all(piece.type == pa.int64() for piece in pieces)
        if pieces:
            columns[role] = pa.chunked_array([piece if are_numbers else piece.cast(pa.string()) for piece in pieces])
    if table.event:
        columns["event"] = pa.chunked_array(table.event).unify_dictionaries()
    with whole_file(folder / f"{number}.arrow") as file:
        write_table(file, pa.table(columns))
    for name in ARRAYS:
        if (array := getattr(table, name)) is not None:
            with whole_file(folder / f"{number}-{name}.npy") as file:
                np.save(file, array)
    have_numbers = {role: pa.types.is_integer(column.type) for role, column in columns.items() if role != "event"}
    return Shard(table.n_rows, have_numbers, table.figures, table.notes, table.time_note)


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A temporary name, so that another attempt at the same task finds no half of a file."""
    temporary = file.with_name(f"{os.getpid()}-{socket.gethostname()}-{file.name}")
    try:
        yield temporary
        temporary.replace(file)
    except OSError as error:
        raise SessRecError(f"cannot write to {file.parent} (--data.scratch_dir): {error.strerror or error}") from error


def write_table(file: Path, table: pa.Table) -> None:
    """Write a table so that it can be mapped."""
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=BATCH)


def mapped_table(file: Path) -> pa.Table:
    """Map a table that `write_table` wrote."""
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()


def mapped_array(file: Path) -> np.ndarray | None:
    """Map an array; None where there is none."""
    return np.asarray(np.load(file, "r")) if file.exists() else None


def as_batch(**columns: Any) -> pa.RecordBatch:
    """Columns as a block of a table."""
    return pa.record_batch([pa.array(column) for column in columns.values()], names=list(columns))
