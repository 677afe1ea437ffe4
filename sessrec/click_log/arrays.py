"""Arrays that are kept in files where they may be larger than the memory, and what makes them block by block.

Inside `arrays_on_disk`, large arrays are memory maps of files without a name: the system moves their pages to the disk
and back as it needs them, and removes a file when its array is gone. Elsewhere these are the functions of numpy.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sessrec.errors import SessRecError

_ROWS = 1 << 20  # in a block
_SMALL = 1 << 20  # bytes; smaller arrays stay in memory
_MOST_BYTES = 2**31  # of an array of texts with offsets of 32 bits
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def arrays_on_disk(folder: Path | None) -> Iterator[None]:
    """Keep large arrays in files of a folder; in memory where it is None."""
    before = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(before)


def scratch_folder() -> Path | None:
    """Folder of the files of large arrays; None where arrays stay in memory."""
    return _folder.get()


def empty(n: int, dtype: Any) -> np.ndarray:
    """An array whose content is whatever is there, shape (n,)."""
    folder, kind = _folder.get(), np.dtype(dtype)
    if folder is None or n * kind.itemsize < _SMALL:
        return np.empty(n, dtype)
    with _named(folder), tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # else a full disk would kill the process where it writes
            os.posix_fallocate(file.fileno(), 0, n * kind.itemsize)
        return np.asarray(np.memmap(file, kind, "w+", shape=(n,)))


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Name the folder in an error of the file system."""
    try:
        yield
    except OSError as error:
        raise SessRecError(f"cannot write to {folder} (--data.scratch_dir): {error.strerror or error}") from error


def _blocks(n: int) -> Iterator[slice]:
    """Consecutive parts of n rows."""
    return (slice(start, start + _ROWS) for start in range(0, n, _ROWS))


def take(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """``values[places]``."""
    if _folder.get() is None:
        return values[places]
    taken = empty(len(places), values.dtype)
    for rows in _blocks(len(places)):
        taken[rows] = values[places[rows]]
    return taken


def compress(values: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """``values[keep]``, of an array of bool."""
    if _folder.get() is None:
        return values[keep]
    kept, end = empty(int(np.count_nonzero(keep)), values.dtype), 0
    for rows in _blocks(len(values)):
        block = values[rows][keep[rows]]
        kept[end : end + len(block)] = block
        end += len(block)
    return kept


def differences(values: np.ndarray) -> np.ndarray:
    """``np.diff(values)``."""
    if _folder.get() is None:
        return np.diff(values)
    found = empty(len(values) - 1, values.dtype)
    for rows in _blocks(len(found)):
        np.subtract(values[1:][rows], values[:-1][rows], out=found[rows])
    return found


def concatenate(parts: Sequence[np.ndarray]) -> np.ndarray:
    """``np.concatenate(parts)``."""
    if _folder.get() is None:
        return np.concatenate(parts)
    joined, end = empty(sum(map(len, parts)), np.result_type(*parts)), 0
    for part in parts:
        joined[end : end + len(part)] = part
        end += len(part)
    return joined


def place_in_run(offsets: np.ndarray) -> np.ndarray:
    """Place of each row in its run, from 0, int32, of runs that begin at ``offsets``, int64, shape (R + 1,).

    Example:
        >>> place_in_run(np.array([0, 3, 5])).tolist()
        [0, 1, 2, 0, 1]
    """
    places = empty(int(offsets[-1]), np.int32)
    for runs in _blocks(len(offsets) - 1):
        own = offsets[runs.start : runs.stop + 1]
        places[own[0] : own[-1]] = np.arange(own[0], own[-1]) - np.repeat(own[:-1], np.diff(own))
    return places


def count_in_runs(is_counted: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Number of rows of each run that are counted, int64; see `place_in_run`.

    Example:
        >>> count_in_runs(np.array([True, False, True, True, True]), np.array([0, 3, 5])).tolist()
        [2, 2]
    """
    counts = empty(len(offsets) - 1, np.int64)
    for runs in _blocks(len(counts)):
        own = offsets[runs.start : runs.stop + 1]
        block = is_counted[own[0] : own[-1]].view(np.int8)
        np.add.reduceat(block, own[:-1] - own[0], dtype=np.int64, out=counts[runs])
    return counts


def take_texts(texts: pa.Array, places: np.ndarray) -> pa.Array:
    """Entries of an array of texts or whole numbers, as texts."""
    if _folder.get() is None or len(places) < _ROWS:
        return texts.take(pa.array(places)).cast(pa.string())
    return joined_texts(texts.take(pa.array(places[rows])).cast(pa.string()) for rows in _blocks(len(places)))


def joined_texts(blocks: Iterator[pa.Array]) -> pa.Array:
    """Arrays of texts, without nulls, as one."""
    folder = _folder.get()
    if folder is None:
        return pa.concat_arrays(list(blocks))
    with _named(folder), tempfile.TemporaryFile(dir=folder) as ends, tempfile.TemporaryFile(dir=folder) as content:
        ends.write(np.zeros(1, np.int64).tobytes())
        n_texts, n_bytes = 0, 0
        for block in blocks:
            offsets = np.frombuffer(block.buffers()[1], np.int32)[block.offset : block.offset + len(block) + 1]
            ends.write((offsets[1:].astype(np.int64) - offsets[0] + n_bytes).tobytes())
            if offsets[-1] > offsets[0]:
                content.write(memoryview(block.buffers()[2])[offsets[0] : offsets[-1]])
            n_texts, n_bytes = n_texts + len(block), n_bytes + int(offsets[-1] - offsets[0])
        ends.flush()
        content.flush()
        offsets = np.memmap(ends, np.int64, "r", shape=(n_texts + 1,))
        texts = np.memmap(content, np.uint8, "r", shape=(n_bytes,)) if n_bytes else np.empty(0, np.uint8)
    kind = pa.large_string()
    if n_bytes < _MOST_BYTES:
        kind, narrow = pa.string(), empty(n_texts + 1, np.int32)
        narrow[:] = offsets
        offsets = narrow
    return pa.Array.from_buffers(kind, n_texts, [None, pa.py_buffer(offsets), pa.py_buffer(texts)])


def spool(columns: dict[str, pa.Array], folder: Path | None) -> dict[str, pa.Array]:
    """Columns of one length, written to a file of a folder and mapped from it; as they are where it is None."""
    if folder is None or not columns:
        return columns
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    with _named(folder), tempfile.NamedTemporaryFile(dir=folder) as file:
        with pa.OSFile(file.name, "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        mapped = pa.ipc.open_file(pa.memory_map(file.name)).get_batch(0)
    return dict(zip(columns, mapped.columns, strict=True))
