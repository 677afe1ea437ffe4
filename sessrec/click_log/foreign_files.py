"""Recognise files that are no click log, and say what to do with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sessrec.errors import SessRecError

HEAD = 512  # bytes by which a kind is told; the mark of a tar archive ends at byte 262
_CONVERT = "turn it into CSV, TSV, JSON lines or Parquet, plain, gzipped or zipped"
_SAVE = "save its sheet as CSV"
_PREFIXES = (
    "no pickle is ever loaded as a click log; if it holds prefixes and targets, convert it with "
    "scripts/import_prefixes.py"
)
_BEGINNINGS: dict[bytes, tuple[str, str]] = {
    b"7z\xbc\xaf": ("a 7z archive", _CONVERT),
    b"Rar!": ("a RAR archive", _CONVERT),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet", _SAVE),
    b"SQLi": ("an SQLite database", _CONVERT),
    b"\x89HDF": ("an HDF5 file", _CONVERT),
    b"ARROW1": ("an Arrow file", "write it as Parquet, or pass the table itself as path in Python"),
    b"%PDF": ("a PDF document", _CONVERT),
    b"\x93NUMPY": ("an array of NumPy", _CONVERT),
    b"version https://git-lfs": (
        "a Git LFS pointer, not the file itself",
        "fetch the file with git lfs pull, or download it",
    ),
}
_PATTERNS: tuple[tuple[bytes, str, str], ...] = (
    (
        rb"(?i)\s*(<!doctype html|<html|<\?xml|<head)",
        "a web page or XML, not data: a sign-in or an error page?",
        "log in and download the file itself",
    ),
    (rb"\x80[\x02-\x05]|\(+[ld]p?\d*\n", "a Python pickle", _PREFIXES),
    (rb"(?s).{257}ustar", "a tar archive", "unpack it and name the click log (--data.path)"),
)


def check_is_log(file: Path, head: bytes) -> None:
    """Refuse a file whose first bytes, ``HEAD`` or fewer, show that it is no click log.

    Raises:
        SessRecError: With what the file is and what to do.
    """
    for beginning, (kind, advice) in _BEGINNINGS.items():
        if head.startswith(beginning):
            raise SessRecError(f"{file} is {kind}: {advice}")
    for pattern, kind, advice in _PATTERNS:
        if re.match(pattern, head.removeprefix(b"\xef\xbb\xbf")):
            raise SessRecError(f"{file} is {kind}: {advice}")


def check_is_archive_of_log(file: Path, members: Sequence[str]) -> None:
    """Refuse a zip archive whose members show that it is a document of another program.

    Raises:
        SessRecError: With what the file is and what to do.
    """
    if "[Content_Types].xml" in members or "content.xml" in members:
        raise SessRecError(f"{file} is a spreadsheet or another office document: {_SAVE}")
    if members and all(name.endswith(".npy") for name in members):
        raise SessRecError(f"{file} is an archive of NumPy arrays (.npz): {_CONVERT}")
    if any(name.endswith("data.pkl") for name in members):
        raise SessRecError(f"{file} is a file of PyTorch (a checkpoint or a tensor): {_CONVERT}")
