"""Engines that prepare logs which are larger than the memory.

Each gives, for the same files and options, the very bytes that the default one gives.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from sessrec.click_log.arrays import arrays_on_disk, scratch_folder
from sessrec.click_log.log_engine import LogEngine
from sessrec.engines.duckdb_index import DuckDBEngine
from sessrec.engines.spark_engine import SparkEngine
from sessrec.engines.spark_session import session_kept
from sessrec.errors import SessRecError, check_choice

Engine = Literal["local", "duckdb", "spark"]


def check_engine(engine: str, memory_limit: str | None) -> None:
    """Refuse an engine that does not exist, and a limit that is no amount of memory.

    Raises:
        SessRecError: If one of them is so.
    """
    check_choice("--data.engine", engine, Engine)
    if memory_limit is not None and not re.fullmatch(r"0*[1-9]\d*(\.\d+)? ?[KMGT]i?B", str(memory_limit)):
        raise SessRecError(f"--data.memory_limit is {memory_limit!r}; write a number and a unit, such as 2GB")


def log_engine(engine: Engine, memory_limit: str | None = None, scratch_dir: str | None = None) -> LogEngine:
    """Who finds, reads and sorts the rows of a log.

    Args:
        engine: Name of the engine.
        memory_limit: Memory that it may take; None for its default.
        scratch_dir: Folder of its files; None for that of temporary files.
    """
    if engine == "spark":
        return SparkEngine(memory_limit, scratch_dir)
    return LogEngine() if engine == "local" else DuckDBEngine(memory_limit)


@contextmanager
def scratch_of(engine: Engine, scratch_dir: str | None) -> Iterator[None]:
    """Keep large arrays in a folder of their own meanwhile, where the engine works on disk; once for all that nest.

    What the engine has started ends with it.

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
    with folder as name, arrays_on_disk(Path(name)), session_kept():
        yield
