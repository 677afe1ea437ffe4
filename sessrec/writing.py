"""Atomic file writes."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sessrec.errors import SessRecError


@contextmanager
def atomic_write(file: str | Path) -> Iterator[Path]:
    """Give a temporary name to write to; when all is written it is synced to the disk and takes the file's name.

    After an error the temporary file is removed and the old file stays as it was. A killed process leaves at most its
    temporary file, which the next one overwrites.

    Args:
        file: The file to write; its folder is made where it is missing.

    Yields:
        Where to write, in the same folder.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "report.txt") as temporary:
        ...     _ = temporary.write_text("complete")
        >>> [file.name for file in folder.iterdir()]
        ['report.txt']
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.partial")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(file)
        _sync(file.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def probe_folder(folder: Path) -> None:
    """Find out whether files can be written to a folder, there or not yet; leaves nothing behind.

    Raises:
        OSError: If they cannot.
    """
    existing = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if existing.is_file():
        raise NotADirectoryError(errno.ENOTDIR, f"{existing} is a file")
    with tempfile.TemporaryFile(dir=existing):
        pass


def check_writable(folder: Path, option: str) -> None:
    """Refuse, before the work, a folder that cannot be written to.

    Args:
        folder: The folder, there or not yet.
        option: The option that names it.

    Raises:
        SessRecError: If it cannot be written to.
    """
    try:
        probe_folder(folder)
    except OSError as error:
        reason = error.strerror or error
        raise SessRecError(f"{option} {folder} cannot be written to: {reason}; name another folder") from error


def write_text(file: Path, text: str) -> None:
    """Write text, whole or not at all."""
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(file: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(file, json.dumps(content, indent=2) + "\n")


def _sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
