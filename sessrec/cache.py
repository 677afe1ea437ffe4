"""Keep prepared logs on disk: written once, checked, and mapped into memory whenever the same log is opened again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import sessrec
from sessrec.errors import SessRecError
from sessrec.files import file_identity, log_files
from sessrec.preparation import Preparation, PreparedLog
from sessrec.report import DataReport
from sessrec.sessions import Sessions
from sessrec.vocabulary import Vocabulary

_FORMAT = 1  # of the files; raised whenever they, or what is put into them, change
_INDEX = "prepared.json"


class BrokenCacheError(Exception):
    """A prepared log on disk that is incomplete or damaged."""


def open_or_prepare(preparation: Preparation, cache_dir: str | Path | None) -> PreparedLog:
    """Open the prepared log where it was prepared before, else prepare it and keep it.

    A prepared log belongs to the settings and to the very files that it was made of; it is made anew where a file
    changed since, or where it is damaged, and the report says so.

    Args:
        preparation: The log, and what is done to it.
        cache_dir: Folder of the prepared logs; None prepares in memory and keeps nothing, as for generated
            logs.

    Raises:
        SessRecError: If the log cannot be read, nothing is left of it, or the folder cannot be written.
    """
    if cache_dir is None or preparation.path is None:
        return preparation.run()
    files = [file_identity(file) for file in log_files(preparation.path)]
    name = _name(preparation, files)
    folder = Path(cache_dir) / f"{name}-{_digest(files)[:16]}"
    reason = ""
    if folder.exists():
        try:
            return open_prepared(folder)
        except BrokenCacheError as error:
            reason = f"the prepared log was damaged ({error})"
            _remove(folder)
    stale = [old for old in Path(cache_dir).glob(f"{name}-*") if old != folder]
    if stale:
        reason = "the files of the log have changed since it was prepared"
    prepared = preparation.run()
    if [file_identity(file) for file in log_files(preparation.path)] != files:
        raise SessRecError("the click log changed while it was being prepared: wait until it is complete")
    if reason:
        prepared.report.add("read", {"prepared_anew": reason})
    try:
        save_prepared(prepared, preparation, folder)
    except OSError as error:
        raise SessRecError(
            f"cannot keep the prepared log in {cache_dir}: {error.strerror or error}; give another --data.cache_dir, "
            "or null to keep nothing"
        ) from error
    for old in stale:
        _remove(old)
    return prepared


def _name(preparation: Preparation, files: list[dict[str, Any]]) -> str:
    """Name that a log has under some settings, whatever the state of its files."""
    what = {
        "format": _FORMAT,
        "version": sessrec.__version__,
        "settings": preparation.settings() | {"path": [file["path"] for file in files]},
    }
    stem = Path(files[0]["path"]).name.split(".")[0]
    return f"{stem}-{_digest(what)[:16]}"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def save_prepared(prepared: PreparedLog, preparation: Preparation, folder: Path) -> None:
    """Write a prepared log under a temporary name and rename it; a log that another process wrote meanwhile stays.

    Args:
        prepared: The prepared log.
        preparation: What was done, kept for people who look into the folder.
        folder: Where it will lie.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    temporary = Path(tempfile.mkdtemp(prefix=".preparing-", dir=folder.parent))
    try:
        _write(temporary / "item_counts.npy", prepared.vocabulary.counts)
        _write(temporary / "item_ids.arrow", pa.array(prepared.vocabulary.item_ids, pa.string()))
        for part, sessions in prepared.sessions.items():
            for name in ("items", "offsets", "times"):
                _write(temporary / f"{part}_{name}.npy", getattr(sessions, name))
            _write(temporary / f"{part}_session_ids.arrow", sessions.session_ids)
        index = {
            "settings": preparation.settings(),
            "parts": list(prepared.sessions),
            "digests": _digests(temporary),
            "report": prepared.report.as_dict(),
        }
        (temporary / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / _INDEX).exists():  # else another process was faster, with the same result
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(file: Path, content: Any) -> None:
    if file.suffix == ".npy":
        np.save(file, content, allow_pickle=False)
        return
    batch = pa.record_batch([content], names=["id"])
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def open_prepared(folder: Path) -> PreparedLog:
    """Map a prepared log into memory.

    Raises:
        BrokenCacheError: If a file is missing or is not as it was written.
    """
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        found = _digests(folder)
        for name, digest in index["digests"].items():
            if found.get(name) != digest:
                raise BrokenCacheError(f"{name} is not as it was written")
        sessions = {}
        for part in index["parts"]:
            items, offsets, times = (
                np.load(folder / f"{part}_{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in ("items", "offsets", "times")
            )
            sessions[part] = Sessions(items, offsets, times, _read_ids(folder / f"{part}_session_ids.arrow"))
        counts = np.load(folder / "item_counts.npy", allow_pickle=False)
        vocabulary = Vocabulary(_read_ids(folder / "item_ids.arrow").to_pylist(), counts)
        report = DataReport.from_dict(index["report"])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise BrokenCacheError(" ".join(str(error).split())[:120]) from error
    report.add("read", {"prepared_before": f"opened from {folder}"})
    return PreparedLog(sessions, vocabulary, report)


def _read_ids(file: Path) -> pa.Array:
    return pa.ipc.open_file(pa.memory_map(str(file))).get_batch(0).column(0)


def _digests(folder: Path) -> dict[str, str]:
    """Digest of the content of each file but the index."""
    files = sorted(file for file in folder.iterdir() if file.name != _INDEX)
    with ThreadPoolExecutor() as pool:
        return dict(zip((file.name for file in files), pool.map(_file_digest, files), strict=True))


def _file_digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
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
        if time.time() - folder.stat().st_mtime > 86400:
            shutil.rmtree(folder, ignore_errors=True)
