"""Engines that prepare logs which are larger than the memory.

Each gives, for the same files and options, the very bytes that the default one gives.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from sessrec.click_log.arrays import arrays_on_disk, scratch_folder
from sessrec.click_log.row_index import IndexRows, MemoryIndex
from sessrec.engines.duckdb_index import DuckDBIndex
from sessrec.errors import SessRecError, check_choice

Engine = Literal["local", "duckdb"]


def check_engine(engine: str, memory_limit: str | None) -> None:
    """Refuse an engine that does not exist, and a limit that is no amount of memory.

    Raises:
        SessRecError: If one of them is so.
    """
    check_choice("--data.engine", engine, Engine)
    if memory_limit is not None and not re.fullmatch(r"0*[1-9]\d*(\.\d+)? ?[KMGT]i?B", str(memory_limit)):
        raise SessRecError(f"--data.memory_limit is {memory_limit!r}; write a number and a unit, such as 2GB")


def index_by(engine: Engine, memory_limit: str | None = None) -> IndexRows:
    """What sorts the rows of a log: `DuckDBIndex`, or the memory of this process.

    Args:
        engine: Name of the engine.
        memory_limit: Memory that it may take; None for its default.
    """
    return MemoryIndex if engine == "local" else partial(DuckDBIndex, memory_limit=memory_limit)


@contextmanager
def scratch_of(engine: Engine, scratch_dir: str | None) -> Iterator[None]:
    """Keep large arrays in a folder of their own meanwhile, where the engine works on disk; once for all that nest.

    Args:
        engine: Name of the engine.
        scratch_dir: Folder in which that folder lies; None for that of temporary files.

    Raises:
        SessRecError: If nothing can be written there.
    """
    if engine == "local" or scratch_folder() is not None:
        yield
        return
    try:
        place = None if scratch_dir is None else Path(scratch_dir).expanduser()
        folder = tempfile.TemporaryDirectory(prefix="sessrec-", dir=place)
    except OSError as error:
        raise SessRecError(f"--data.scratch_dir {scratch_dir}: {error.strerror}") from error
    with folder as name, arrays_on_disk(Path(name)):
        yield
