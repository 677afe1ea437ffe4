"""Requests over many connections at a rate, or as many as are answered."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.due = 0.0
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """A connection that waits for an answer has none to come; one that is idle is not used again."""
        if self in self.load.free:
            self.load.free.remove(self)
        else:
            self.load.is_lost |= self.load.is_running

    def ask(self, request: bytes, due: float) -> None:
        """Send a request that was due at a time."""
        self.due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            self._received = b""
            self.load.answered(self, head.startswith(b"HTTP/1.1 200"))


class Load:
    """Asks a server with requests in turn, and keeps the times of the answers.

    Args:
        port: Port of the server on this machine.
        bodies: JSON of POST requests to /v1/recommend.
        n_connections: Number of connections.
    """

    def __init__(self, port: int, bodies: Sequence[bytes], n_connections: int = 32) -> None:
        head = b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.requests = [head % len(body) + body for body in bodies]
        self.port, self.n_connections = port, n_connections
        self.seconds: list[float] = []
        """Time of each answer, from when its request was due."""
        self.n_failed = 0
        self.is_running = self.is_lost = False
        self._n_asked = 0
        self._waiting: deque[float] = deque()  # times at which requests were due for which no connection is free
        self.free: deque[_Connection] = deque()
        """Connections that wait for no answer, the one that was used least lately first."""
        self._is_closed_loop = False

    def answered(self, connection: _Connection, is_well: bool) -> None:
        """Take an answer, and use its connection again."""
        self.seconds.append(time.perf_counter() - connection.due)
        self.n_failed += not is_well
        if self._waiting:
            self._ask(connection, self._waiting.popleft())
        elif self._is_closed_loop:
            self._ask(connection, time.perf_counter())
        else:
            self.free.append(connection)

    def _ask(self, connection: _Connection, due: float) -> None:
        connection.ask(self.requests[self._n_asked % len(self.requests)], due)
        self._n_asked += 1

    async def at_rate(self, rate: float, seconds: float) -> None:
        """Ask at even times, whether or not the answers come; one that must wait for a connection waits in its time."""
        await self._connect()
        start = time.perf_counter()
        for number in range(round(rate * seconds)):
            due = start + number / rate
            while (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left if left > 0.002 else 0)
            if self.free:
                self._ask(self.free.popleft(), due)
            else:
                self._waiting.append(due)
            if number % 8 == 0:
                await asyncio.sleep(0)
        while len(self.seconds) < self._n_asked + len(self._waiting):
            self._check()
            await asyncio.sleep(0.01)
        self.is_running = False

    async def saturated(self, seconds: float) -> float:
        """Ask on each connection as soon as it has its answer; gives the answers a second."""
        self._is_closed_loop = True
        await self._connect()
        start = time.perf_counter()
        while self.free:
            self._ask(self.free.popleft(), start)
        await asyncio.sleep(seconds)
        self._check()
        self.is_running = False
        return len(self.seconds) / (time.perf_counter() - start)

    def _check(self) -> None:
        if self.is_lost:
            raise ConnectionError("the server has closed a connection")

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self.n_connections):
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.port)
            self.free.append(connection)
        self.is_running = True
