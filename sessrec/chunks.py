"""Work on the pieces of a log by all cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

_AHEAD = 8  # pieces in work; more would only fill the memory


def map_pieces(function: Callable[[S], T], pieces: Iterable[S]) -> Iterator[T]:
    """Apply a function that releases the interpreter's lock to each piece while the next ones are being read.

    Args:
        function: What to apply; its first exception is raised.
        pieces: The pieces, taken one by one as room becomes free.

    Yields:
        The results, in the order of the pieces.
    """
    with ThreadPoolExecutor() as pool:
        in_work: deque[Future[T]] = deque()
        for piece in pieces:
            in_work.append(pool.submit(function, piece))
            if len(in_work) == _AHEAD:
                yield in_work.popleft().result()
        while in_work:
            yield in_work.popleft().result()
