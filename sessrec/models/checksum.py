"""A checksum at the end of a checkpoint, by which a damaged file is noticed.

A checkpoint is a zip file, and its checksum the comment that a zip file may end with: torch and Lightning read the file
as before.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

_NAME = b"sessrec sha256 "
_LENGTH = len(_NAME) + 64  # of the comment, in bytes
_END = b"PK\x05\x06"
_END_LENGTH = 22  # of a zip file's last record, whose last two bytes are the length of the comment after it


def add_checksum(file: Path) -> None:
    """Write the SHA-256 of a zip file without a comment behind it."""
    with file.open("r+b") as stream:
        stream.seek(-2, os.SEEK_END)
        stream.write(_LENGTH.to_bytes(2, "little"))
        stream.write(_NAME + _digest(stream, stream.tell()))


def checksum_holds(file: Path) -> bool:
    """Whether a checkpoint is as it was written, as far as can be known: earlier releases wrote no checksum.

    Raises:
        OSError: If the file cannot be read.
    """
    with file.open("rb") as stream:
        n_bytes = stream.seek(0, os.SEEK_END) - _LENGTH
        stream.seek(max(0, n_bytes))
        last = stream.read()
        if last[-_END_LENGTH:].startswith(_END):
            return last.endswith(bytes(2))  # there is no comment, and there was none
        return n_bytes > 0 and last == _NAME + _digest(stream, n_bytes)


def _digest(stream: BinaryIO, n_bytes: int) -> bytes:
    """SHA-256 of the first bytes, in hexadecimal; what is written or read next follows them."""
    digest = hashlib.sha256()
    stream.seek(0)
    while left := n_bytes - stream.tell():
        digest.update(stream.read(min(left, 1 << 20)))
    return digest.hexdigest().encode()
