"""Find the files of a click log, tell their kinds by their first bytes, and open them."""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import io
import lzma
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from sessrec.click_log.foreign_files import HEAD, check_is_archive_of_log, check_is_log
from sessrec.errors import SessRecError

PARQUET = b"PAR1"
IN_MEMORY = "<table in memory>"  # stands where a table was given in the place of a path
PREPARED = "prepared.json"  # every folder with a prepared log has this file


def _open_zstd(file: Path, mode: str) -> io.BufferedReader:
    return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(file)), "zstd"))


_OPENERS: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zX": lzma.open, b"\x28\xb5\x2f\xfd": _open_zstd
}  # fmt: skip


def log_files(
    paths: str | Path | Sequence[str | Path],
    option: str = "--data.path",
    files_of_url: Callable[[str, str], list[Any]] | None = None,
) -> list[Any]:
    """The files that a path stands for.

    Args:
        paths: A file, a folder (all files in and below it, in natural order of their names: part-2 before part-10;
            names that begin with a dot or an underscore, and prepared logs, are left out), a pattern such as
            ``logs/2024-*.csv.gz``, or a list of these.
        option: The option that they came from, for messages.
        files_of_url: Finds the files of a URL, such as s3a://clicks/2024, given this and the option; None refuses it.

    Raises:
        SessRecError: If nothing is there, or a file is named twice.
    """
    check_paths(paths, option)
    files: list[Any] = []
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        if not isinstance(path, (str, Path)):
            raise SessRecError(f"{option} takes files, or one table in memory, got a {type(path).__name__} in a list")
        if not str(path).strip():
            raise SessRecError(f"{option} is empty")
        if str(path) == IN_MEMORY:
            raise SessRecError(f"the log was a table in memory, which no run keeps: give {option}, a file of it")
        if not is_url(path):
            files += _expand(Path(path).expanduser(), option)
        elif files_of_url is None:
            raise SessRecError(f"{path} ({option}): of URLs, only click logs are read, by --data.engine spark")
        else:
            files += files_of_url(str(path), option)
    if not files:
        raise SessRecError(f"{option} names no file")
    seen: set[Any] = set()
    for file in files:
        if (resolved := file.resolve()) in seen:
            raise SessRecError(f"{file} is named twice in {option}: its events would count double")
        seen.add(resolved)
    return files


def is_url(path: object) -> bool:
    """Whether a path is one of another file system, such as s3a://clicks/2024 or hdfs://host/clicks.

    Example:
        >>> is_url("s3a://clicks/2024"), is_url("clicks.tsv")
        (True, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(path)) is not None


def check_paths(paths: Any, option: str) -> None:
    """Refuse what is neither a path nor a list of paths.

    Raises:
        SessRecError: With its type.
    """
    if not isinstance(paths, (str, os.PathLike, list, tuple)):
        kind = type(paths).__name__
        raise SessRecError(f"{option} takes files, or a table that offers the Arrow C stream interface, got a {kind}")


def _expand(path: Path, option: str) -> list[Path]:
    if path.is_dir():
        found = [
            file
            for file in sorted(path.rglob("*"), key=natural_order)
            if file.is_file()
            and not is_left_out(file.relative_to(path).parts)
            and not (file.parent / PREPARED).exists()
        ]
        fault = f"the folder {path} holds no click log ({option})"
    elif path.exists():
        return [path]
    else:
        names = sorted(glob.glob(str(path), recursive=True), key=natural_order)
        found = [Path(name) for name in names if Path(name).is_file()]
        fault = f"no such file: {path} ({option})"
    if not found:
        raise SessRecError(fault)
    return found


def is_left_out(parts: Sequence[str]) -> bool:
    """Whether a file is no part of a log, given the names of the folders that lead to it, and its own."""
    return any(part.startswith((".", "_")) for part in parts)


def natural_order(path: str | Path) -> tuple[list[list[str | int]], str]:
    """Key that orders names as people do: numbers in them by their value."""
    parts = [re.split(r"(\d+)", part) for part in Path(path).parts]
    return [[int(piece) if number % 2 else piece for number, piece in enumerate(part)] for part in parts], str(path)


def file_identity(file: Path) -> dict[str, Any]:
    """What changes whenever the content of a file does: its inode, size, and times of change."""
    stat = file.stat()
    return {
        "path": str(file.resolve()),
        "size": stat.st_size,
        "inode": stat.st_ino,
        "modified": stat.st_mtime_ns,
        "changed": stat.st_ctime_ns,  # nothing sets this one back
    }


def first_bytes(file: Path) -> bytes:
    """The first four bytes, which tell the kind of the file.

    Raises:
        SessRecError: If the file is empty or of a kind that cannot be read.
    """
    with file.open("rb") as stream:
        head = stream.read(HEAD)
    if not head:
        raise SessRecError(f"{file} is empty (0 bytes)")
    check_is_log(file, head)
    return head[:4]


def open_text(file: Path) -> BinaryIO:
    """Open a text file for reading bytes in UTF-8, whatever its compression (gzip, zip, bzip2, xz or zstd).

    A text that a byte-order mark shows to be UTF-16 is turned into UTF-8.
    """
    stream = _decompressed(file)
    check_is_log(file, stream.peek(HEAD)[:HEAD])  # what a compressed file holds
    if stream.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return cast(BinaryIO, codecs.EncodedFile(stream, "utf-8", "utf-16"))
    return cast(BinaryIO, stream)


def _decompressed(file: Path) -> Any:
    magic = first_bytes(file)
    for beginning, opener in _OPENERS.items():
        if magic.startswith(beginning):
            return opener(file, "rb")
    if magic in (b"PK\x03\x04", b"PK\x05\x06"):
        archive = zipfile.ZipFile(file)
        check_is_archive_of_log(file, archive.namelist())
        members = [
            name
            for name in archive.namelist()
            if not name.startswith("__MACOSX/") and not name.rpartition("/")[2].startswith(".") and name[-1] != "/"
        ]
        if len(members) != 1:
            raise SessRecError(f"{file} holds {len(members)} files: unpack it and name the click log (--data.path)")
        return archive.open(members[0])
    return file.open("rb")
