"""Keep prepared logs on disk: written once, checked, and mapped into memory whenever the same log is opened again."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from sessrec.click_log.files import PREPARED
from sessrec.click_log.row_index import ENGINE_OPTIONS
from sessrec.data.preparation import Preparation, PreparedLog
from sessrec.data.report import DataReport
from sessrec.data.sessions import Sessions
from sessrec.data.vocabulary import Vocabulary
from sessrec.engines import session_kept
from sessrec.errors import SessRecError
from sessrec.writing import probe_folder

_FIELDS = ("items", "offsets", "times", "session_ids", "event_numbers")  # of a part's `Sessions`


class BrokenCacheError(Exception):
    """A prepared log on disk that is incomplete or damaged."""


@session_kept()
def open_or_prepare(preparation: Preparation, cache_dir: str | Path | None) -> PreparedLog:
    """Open the prepared log where it was prepared before, else prepare it and keep it.

    A prepared log belongs to the settings and to the very files that it was made of; it is made anew where a file
    changed since, or where it is damaged, and the report says so.

    Args:
        preparation: The log, and what is done to it.
        cache_dir: Folder of the prepared logs; None keeps nothing. A generated log or a table in memory is never kept.

    Raises:
        SessRecError: If the log cannot be read, nothing is left of it, or the folder cannot be written.
    """
    if cache_dir is None or not preparation.is_from_files:
        return preparation.run()
    files, folder = _place(preparation, Path(cache_dir).expanduser())
    reason = ""
    try:
        if folder.exists():
            return open_prepared(folder)
    except BrokenCacheError as error:
        reason = f"the prepared log was damaged ({error})"
        _remove(folder)
    stale = [old for old in folder.parent.glob(f"{glob.escape(folder.name[:-16])}*") if old != folder]
    if stale:
        reason = "the files of the log, or sessrec, have changed since it was prepared"
    with _naming(cache_dir):
        probe_folder(folder.parent)
    prepared = preparation.run()
    if _place(preparation, Path(cache_dir))[0] != files:
        raise SessRecError("the click log changed while it was being prepared: wait until it is complete")
    if reason:
        prepared.report.add("read", {"prepared_anew": reason})
    with _naming(cache_dir):
        save_prepared(prepared, preparation, folder)
    for old in stale:
        _remove(old)
    if preparation.engine != "local":  # whose own arrays take as much of the disk again
        with suppress(BrokenCacheError):  # removed by another process: its own are as good
            prepared.sessions = open_prepared(folder).sessions
    return prepared


@session_kept()
def find_prepared(preparation: Preparation, cache_dir: str | Path | None) -> PreparedLog | None:
    """Open a prepared log as `open_or_prepare` does; None where it was not prepared before, or is damaged."""
    if cache_dir is None or not preparation.is_from_files:
        return None
    folder = _place(preparation, Path(cache_dir).expanduser())[1]
    try:
        return open_prepared(folder) if folder.exists() else None
    except BrokenCacheError:
        return None


def _place(preparation: Preparation, cache_dir: Path) -> tuple[list[dict[str, Any]], Path]:
    """State of a log's files, and the folder of its prepared form: its name, its settings, and that state."""
    sources = preparation.sources.items()
    engine = preparation.log_engine
    found = {
        name: [engine.identity_of(file) for file in engine.find_files(path, f"--data.{name}")] for name, path in sources
    }
    files = [file for own in found.values() for file in own]
    settings = _settings(preparation) | {name: [file["path"] for file in own] for name, own in found.items()}
    stem = Path(files[0]["path"]).name.split(".")[0]
    return files, cache_dir / f"{stem}-{_digest(settings)[:16]}-{_digest([files, _code()])[:16]}"


def _settings(preparation: Preparation) -> dict[str, Any]:
    """Options that the prepared log follows from: whatever the engine, it is the same."""
    return {name: value for name, value in asdict(preparation).items() if name not in ENGINE_OPTIONS}


@cache
def _code() -> str:
    """Digest of the modules that prepare a log: other code may prepare it otherwise."""
    package = Path(__file__).parents[1]
    files = sorted(file for room in ("click_log", "data", "engines") for file in (package / room).glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@contextmanager
def _naming(cache_dir: str | Path) -> Iterator[None]:
    """Name the option in an error of the file system."""
    try:
        yield
    except OSError as error:
        raise SessRecError(
            f"cannot keep the prepared log in {cache_dir}: {error.strerror or error}; give another --data.cache_dir, "
            "or null to keep nothing"
        ) from error


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def save_prepared(prepared: PreparedLog, preparation: Preparation, folder: Path) -> None:
    """Write a prepared log under a temporary name and rename it; a log that another process wrote meanwhile stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    temporary = Path(tempfile.mkdtemp(prefix=".preparing-", dir=folder.parent))
    try:
        vocabulary = prepared.vocabulary
        content = {
            "item_counts": vocabulary.counts,
            "item_first_times": vocabulary.first_times,
            "item_ids": pa.array(vocabulary.item_ids, pa.string()),
        }
        for part, sessions in prepared.sessions.items():
            content |= {f"{part}_{name}": getattr(sessions, name) for name in _FIELDS}
        for name, array in content.items():
            if array is not None:
                _write(temporary / name, array)
        index = {
            "settings": _settings(preparation),
            "parts": list(prepared.sessions),
            "digests": _digests(temporary),
            "report": prepared.report.as_dict(),
        }
        index["digest"] = _digest(index)
        (temporary / PREPARED).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another process was faster, with the same
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(file: Path, content: np.ndarray | pa.Array) -> None:
    """Write an array under a name that shows its kind."""
    if isinstance(content, np.ndarray):
        np.save(file.with_suffix(".npy"), content, allow_pickle=False)
        return
    batch = pa.record_batch([content], names=["id"])
    with pa.OSFile(str(file.with_suffix(".arrow")), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _read(file: Path, mmap_mode: Literal["r"] | None = None) -> Any:
    """An array that `_write` wrote; None where there is none."""
    if (ids := file.with_suffix(".arrow")).exists():
        return pa.ipc.open_file(pa.memory_map(str(ids))).get_batch(0).column(0)
    array = file.with_suffix(".npy")
    return np.load(array, mmap_mode, allow_pickle=False) if array.exists() else None


def open_prepared(folder: Path) -> PreparedLog:
    """Map a prepared log into memory.

    Raises:
        BrokenCacheError: If a file is missing or is not as it was written.
    """
    try:
        index = json.loads((folder / PREPARED).read_text(encoding="utf-8"))
        if index.pop("digest") != _digest(index):
            raise BrokenCacheError(f"{PREPARED} is not as it was written")
        found = _digests(folder)
        for name, digest in index["digests"].items():
            if found.get(name) != digest:
                raise BrokenCacheError(f"{name} is not as it was written")
        sessions = {
            part: Sessions(*(_read(folder / f"{part}_{name}", mmap_mode="r") for name in _FIELDS))
            for part in index["parts"]
        }
        counts, first_times = (_read(folder / f"item_{name}") for name in ("counts", "first_times"))
        vocabulary = Vocabulary(_read(folder / "item_ids").to_pylist(), counts, first_times)
        report = DataReport.from_dict(index["report"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise BrokenCacheError(" ".join(str(error).split())[:120]) from error
    report.add("read", {"prepared_before": f"opened from {folder}"})
    return PreparedLog(sessions, vocabulary, report)


def _digests(folder: Path) -> dict[str, str]:
    """Digest of the content of each file but the index."""
    files = sorted(file for file in folder.iterdir() if file.name != PREPARED)
    with ThreadPoolExecutor() as pool:
        return dict(zip((file.name for file in files), pool.map(_file_digest, files), strict=True))


def _file_digest(file: Path) -> str:
    digest, buffer = hashlib.sha256(), bytearray(1 << 18)
    with file.open("rb", buffering=0) as stream:
        while n_read := stream.readinto(buffer):
            digest.update(memoryview(buffer)[:n_read])
    return digest.hexdigest()


def _remove(folder: Path) -> None:
    """Remove a prepared log as a whole, so that no other process finds half of it."""
    away = folder.with_name(f".removing-{folder.name}-{os.getpid()}")
    try:
        folder.rename(away)
    except OSError:
        return  # another process removed it
    shutil.rmtree(away, ignore_errors=True)


def _sweep(cache_dir: Path) -> None:
    """Remove what processes that were killed a day ago or more left behind."""
    for folder in [*cache_dir.glob(".preparing-*"), *cache_dir.glob(".removing-*")]:
        with suppress(FileNotFoundError):  # another process is done with it
            if time.time() - folder.stat().st_mtime > 86400:
                shutil.rmtree(folder, ignore_errors=True)
