"""Stores of sessions: in memory against plain Python, and by Redis's own commands where a server is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sessrec.errors import SessRecError
from sessrec.serving import session_store
from sessrec.serving.session_store import MemoryStore, RedisStore, StoreDownError, store_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the time that the store sees."""
    now = [1000.0]
    monkeypatch.setattr(session_store.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def run(answer: Any) -> Any:
    return asyncio.run(answer)


def test_sessions_are_their_last_events_for_a_time(clock: Callable[[float], None]) -> None:
    store = MemoryStore(seconds=60, most_sessions=3, most_events=4)
    assert run(store.items("a")) == []
    found = [run(store.append("a", str(number))) for number in range(6)]
    assert found[-1] == ["2", "3", "4", "5"]
    clock(50)
    run(store.append("b", "x"))
    clock(20)
    assert run(store.items("a")) == []  # quiet for 70 seconds
    assert run(store.append("a", "7")) == ["7"]
    assert run(store.items("b")) == ["x"]
    assert (run(store.delete("b")), run(store.delete("b")), len(store)) == (True, False, 1)


def test_random_moves_against_plain_python(clock: Callable[[float], None]) -> None:
    store, rng = MemoryStore(seconds=10, most_sessions=5, most_events=3), np.random.default_rng(0)
    plain: dict[str, tuple[float, list[str]]] = {}
    now = 0.0
    for _ in range(2000):
        step = float(rng.exponential(1.5))
        clock(step)
        now += step
        plain = {name: own for name, own in plain.items() if now - own[0] <= 10}
        name, move = f"s{rng.integers(8)}", rng.random()
        if move < 0.7:
            item = str(rng.integers(100))
            kept = plain.pop(name, (0.0, []))[1]
            plain[name] = now, [*kept, item][-3:]
            if len(plain) > 5:
                del plain[min(plain, key=lambda other: plain[other][0])]
            assert run(store.append(name, item)) == plain[name][1]
        elif move < 0.9:
            assert run(store.items(name)) == plain.get(name, (0.0, []))[1]
        else:
            assert run(store.delete(name)) == (plain.pop(name, None) is not None)
        assert len(store) == len(plain)


def test_what_an_option_names() -> None:
    assert isinstance(store_of("memory", 60, 5, 5), MemoryStore)
    assert store_of("none", 60, 5, 5) is None
    assert isinstance(store_of("valkey://127.0.0.1:1/0", 60, 5, 5), RedisStore)
    with pytest.raises(SessRecError, match="--store must be memory, none or an address"):
        store_of("disk", 60, 5, 5)
    with pytest.raises(SessRecError, match="--store redis://host:port"):
        store_of("redis://host:port", 60, 5, 5)


def test_a_store_that_is_not_there_says_so() -> None:
    async def ask() -> None:
        store = RedisStore("redis://127.0.0.1:9/0")  # the port of nothing
        for answer in (store.append("a", "1"), store.items("a"), store.delete("a")):
            with pytest.raises(StoreDownError):
                await answer
        await store.close()

    run(ask())
