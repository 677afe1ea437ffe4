"""Takes all requests that wait, and has them answered together."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from sessrec.serving.requests import Answer, Request


class QueueFullError(Exception):
    """As many requests wait as may."""


class BatcherStoppedError(Exception):
    """No more requests are taken."""


class _Waiting(NamedTuple):
    request: Request
    future: asyncio.Future[Answer]
    since: float


class Batcher:
    """A queue of requests, answered by a thread, or by the event loop where a thread would have no processor.

    Whatever waits is taken, up to a number, and nothing more is waited for: a request that comes alone is answered
    alone, and under load they share the reading of the item table.

    Args:
        answer: Answers some requests.
        most_at_once: Most requests that are answered together.
        most_waiting: Most requests that wait or have a place.
        observe: Is told of each batch: its size, seconds that its first request waited, seconds of the answers.
        in_loop: Whether the event loop answers, which waits meanwhile: on one processor two threads would only take it
            from each other, some milliseconds at a time.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Request]], list[Answer]],
        most_at_once: int = 64,
        most_waiting: int = 1024,
        observe: Callable[[int, float, float], None] = lambda *_: None,
        in_loop: bool = False,
    ) -> None:
        self._answer, self._observe = answer, observe
        self._most_at_once, self._most_waiting = most_at_once, most_waiting
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._is_stopped, self._n_reserved = False, 0
        self._in_loop, self._is_due = in_loop, False
        self._thread = threading.Thread(target=self._work, name="sessrec-batcher", daemon=True)
        if not in_loop:
            self._thread.start()

    def reserve(self, n_places: int = 1) -> None:
        """Keep places for requests that are submitted later, or given up by `release`.

        Raises:
            QueueFullError: If there are not so many.
            BatcherStoppedError: If the batcher is stopped.
        """
        with self._changed:
            if self._is_stopped:
                raise BatcherStoppedError
            if len(self._waiting) + self._n_reserved + n_places > self._most_waiting:
                raise QueueFullError
            self._n_reserved += n_places

    def release(self, n_places: int = 1) -> None:
        """Give up places that are reserved."""
        with self._changed:
            self._n_reserved -= n_places
            self._changed.notify()

    def submit(self, request: Request) -> asyncio.Future[Answer]:
        """Have a request answered that has a reserved place, in the running event loop."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        with self._changed:
            self._n_reserved -= 1
            self._waiting.append(_Waiting(request, future, time.perf_counter()))
            self._changed.notify()
        if self._in_loop and not self._is_due:
            self._is_due = True
            future.get_loop().call_soon(self._drain, future.get_loop(), 0)
        return future

    def _drain(self, loop: asyncio.AbstractEventLoop, n_before: int) -> None:
        """Answer the requests that wait, some at most, when the event loop has read all that has come."""
        if n_before < len(self._waiting) < self._most_at_once:
            loop.call_soon(self._drain, loop, len(self._waiting))
            return
        self._answer_batch([self._waiting.popleft() for _ in range(min(len(self._waiting), self._most_at_once))])
        self._is_due = bool(self._waiting)
        if self._is_due:
            loop.call_soon(self._drain, loop, 0)

    @property
    def is_stopped(self) -> bool:
        """Whether no more requests are taken."""
        return self._is_stopped

    def stop(self, seconds: float = 10.0) -> None:
        """Answer what waits, take nothing more, and end the thread."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        if not self._in_loop:
            self._thread.join(seconds)
        end = time.monotonic() + seconds
        while (self._waiting or self._n_reserved) and time.monotonic() < end:
            time.sleep(0.01)

    def _work(self) -> None:
        while batch := self._take():
            self._answer_batch(batch)

    def _answer_batch(self, batch: list[_Waiting]) -> None:
        batch = [one for one in batch if not one.future.cancelled()]
        if not batch:
            return
        start = time.perf_counter()
        error: Exception | None = None
        try:
            answers = self._answer([one.request for one in batch])
        except Exception as fault:  # every request of the batch has to end, whatever happened
            answers, error = [], fault
        self._observe(len(batch), start - batch[0].since, time.perf_counter() - start)
        resolve = partial(_resolve, batch, answers, error)
        if self._in_loop:
            resolve()
        else:
            batch[0].future.get_loop().call_soon_threadsafe(resolve)  # one call for all

    def _take(self) -> list[_Waiting]:
        """The requests that wait, some at most; nothing when the batcher is stopped."""
        with self._changed:
            while not self._waiting and not (self._is_stopped and not self._n_reserved):
                self._changed.wait()
            number = min(len(self._waiting), self._most_at_once)
            return [self._waiting.popleft() for _ in range(number)]


def _resolve(batch: Sequence[_Waiting], answers: Sequence[Answer], error: Exception | None) -> None:
    """Hand the answers, or the error of all, to those that wait for them."""
    for number, one in enumerate(batch):
        if one.future.done():
            continue
        if error is None:
            one.future.set_result(answers[number])
        else:
            one.future.set_exception(error)
