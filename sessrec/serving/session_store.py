"""Where the items of live sessions are kept: in memory, in Redis or Valkey, or nowhere.

Items are kept and not the model's states, so that a model can be replaced under running sessions.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from typing import Any, Protocol

from sessrec.errors import SessRecError

PREFIX = "sessrec:session:"
"""What the keys of sessions in Redis begin with."""


class StoreDownError(Exception):
    """The store cannot be reached."""


class SessionStore(Protocol):
    """Keeps the last items of sessions for a time after their last event."""

    async def append(self, session_id: str, item_id: str) -> list[str]:
        """Add an item to a session, which begins with it if need be, and give all that are kept, oldest first."""

    async def items(self, session_id: str) -> list[str]:
        """The items of a session, oldest first; none of one that is not known."""

    async def delete(self, session_id: str) -> bool:
        """Forget a session; whether it was known."""

    async def close(self) -> None:
        """Let go of connections."""


class MemoryStore:
    """Sessions in the memory of the server; the one that was quiet for longest makes room for a new one.

    Args:
        seconds: Time after its last event for which a session is kept.
        most_sessions: Most sessions.
        most_events: Items that are kept of a session, its last ones.
    """

    def __init__(self, seconds: float = 1800.0, most_sessions: int = 1_000_000, most_events: int = 200) -> None:
        self._seconds, self._most_sessions, self._most_events = seconds, most_sessions, most_events
        self._sessions: OrderedDict[str, tuple[float, list[str]]] = OrderedDict()  # by their last event

    def __len__(self) -> int:
        """Number of sessions that are kept."""
        self._forget_old()
        return len(self._sessions)

    async def append(self, session_id: str, item_id: str) -> list[str]:
        """See `SessionStore.append`."""
        self._forget_old()
        _, kept = self._sessions.pop(session_id, (0.0, []))
        items = [*kept, item_id][-self._most_events :]
        self._sessions[session_id] = time.monotonic(), items
        if len(self._sessions) > self._most_sessions:
            self._sessions.popitem(last=False)
        return list(items)

    async def items(self, session_id: str) -> list[str]:
        """See `SessionStore.items`."""
        self._forget_old()
        return list(self._sessions.get(session_id, (0.0, []))[1])

    async def delete(self, session_id: str) -> bool:
        """See `SessionStore.delete`."""
        self._forget_old()
        return self._sessions.pop(session_id, None) is not None

    async def close(self) -> None:
        """Nothing to let go of."""

    def _forget_old(self) -> None:
        limit = time.monotonic() - self._seconds
        while self._sessions and next(iter(self._sessions.values()))[0] < limit:
            self._sessions.popitem(last=False)


class RedisStore:
    """Sessions in Redis or Valkey, shared by several servers.

    Args:
        url: Address, such as redis://127.0.0.1:6379/0.
        seconds: Time after its last event for which a session is kept.
        most_events: Items that are kept of a session, its last ones.

    Raises:
        SessRecError: If redis is not installed, or the address is none.
    """

    def __init__(self, url: str, seconds: float = 1800.0, most_events: int = 200) -> None:
        try:
            import redis.asyncio as redis
            from redis.exceptions import RedisError
        except ModuleNotFoundError as error:
            raise SessRecError("--store needs redis, which is not installed: pip install sessrec[redis]") from error
        self._seconds, self._most_events = max(1, round(seconds)), most_events
        self._errors, self._is_down = (RedisError, OSError), False
        try:
            self._client: Any = redis.from_url(
                url, decode_responses=True, socket_timeout=1.0, socket_connect_timeout=1.0
            )
        except ValueError as error:
            raise SessRecError(f"--store {url}: {error}") from error

    async def append(self, session_id: str, item_id: str) -> list[str]:
        """See `SessionStore.append`."""
        key = PREFIX + session_id
        pipeline = self._client.pipeline(transaction=True)
        pipeline.rpush(key, item_id)
        pipeline.ltrim(key, -self._most_events, -1)
        pipeline.expire(key, self._seconds)
        pipeline.lrange(key, 0, -1)
        return (await self._ask(pipeline.execute()))[-1]

    async def items(self, session_id: str) -> list[str]:
        """See `SessionStore.items`."""
        return await self._ask(self._client.lrange(PREFIX + session_id, 0, -1))

    async def delete(self, session_id: str) -> bool:
        """See `SessionStore.delete`."""
        return bool(await self._ask(self._client.delete(PREFIX + session_id)))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, answer: Any) -> Any:
        try:
            found = await answer
        except self._errors as error:
            if not self._is_down:
                print(f"sessrec.serve: the store of sessions fails: {error}", file=sys.stderr, flush=True)
            self._is_down = True
            raise StoreDownError(str(error)) from error
        if self._is_down:
            print("sessrec.serve: the store of sessions is back", file=sys.stderr, flush=True)
        self._is_down = False
        return found


def store_of(name: str, seconds: float, most_sessions: int, most_events: int) -> SessionStore | None:
    """The store that ``--store`` names: ``memory``, ``none`` or the address of a Redis or Valkey server.

    Raises:
        SessRecError: If it is none of these.
    """
    if name == "memory":
        return MemoryStore(seconds, most_sessions, most_events)
    if name == "none":
        return None
    if name.startswith(("redis://", "rediss://", "unix://", "valkey://", "valkeys://")):
        return RedisStore(name.replace("valkey", "redis", 1), seconds, most_events)
    raise SessRecError(f"--store must be memory, none or an address such as redis://127.0.0.1:6379/0, got {name!r}")
