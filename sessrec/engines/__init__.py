"""Engines that prepare logs which are larger than the memory.

Each gives, for the same files and options, the very bytes that the default one gives.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from sessrec.click_log.row_index import IndexRows, MemoryIndex
from sessrec.engines.duckdb_index import DuckDBIndex

Engine = Literal["local", "duckdb"]


def index_by(engine: Engine, memory_limit: str | None = None) -> IndexRows:
    """What sorts the rows of a log: `DuckDBIndex`, or the memory of this process.

    Args:
        engine: Name of the engine.
        memory_limit: Memory that it may take; None for its default.
    """
    return MemoryIndex if engine == "local" else partial(DuckDBIndex, memory_limit=memory_limit)
