"""Work on the chunks of a column by all cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

T = TypeVar("T")


def map_chunks(function: Callable[[pa.Array], T], column: pa.ChunkedArray) -> list[T]:
    """Apply a function that releases the interpreter's lock to each chunk.

    Args:
        function: What to apply; its first exception is raised.
        column: The column.

    Returns:
        The results, in the order of the chunks.
    """
    if column.num_chunks < 2:
        return [function(chunk) for chunk in column.chunks]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(function, column.chunks))
