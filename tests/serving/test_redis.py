"""Sessions in a real Redis or Valkey: `make test-engines` fetches one from Debian where there is none."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from fastapi.testclient import TestClient
from helpers import fit_log, random_rows

from sessrec.serving.api import create_app
from sessrec.serving.engine import TorchEngine
from sessrec.serving.service import Service
from sessrec.serving.session_store import PREFIX, MemoryStore, RedisStore

DEBIAN = Path(sys.prefix, "debian", "usr")
SERVER = shutil.which("redis-server") or shutil.which("valkey-server") or shutil.which(str(DEBIAN / "bin/redis-server"))
pytestmark = pytest.mark.skipif(SERVER is None, reason="needs redis-server or valkey-server: make test-engines")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Address of a server, and what starts and kills it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    libraries = [str(folder) for folder in (DEBIAN / "lib").glob("*-linux-gnu")]
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        words = [str(SERVER), "--port", str(port), "--save", "", "--dir", str(tmp_path), "--bind", "127.0.0.1"]
        environment = os.environ | {"LD_LIBRARY_PATH": ":".join(libraries)}
        running.append(subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL))
        for _ in range(200):
            try:
                redis.Redis(port=port).ping()
                return
            except redis.ConnectionError:
                time.sleep(0.05)
        raise AssertionError("the server does not start")

    def kill() -> None:
        running[-1].kill()
        running[-1].wait()

    start()
    yield f"redis://127.0.0.1:{port}/0", start, kill
    kill()


def test_random_moves_are_those_of_the_store_in_memory(server: tuple[str, Any, Any]) -> None:
    async def move() -> None:
        own, plain, rng = RedisStore(server[0], 60, most_events=3), MemoryStore(60, 1000, 3), np.random.default_rng(0)
        for _ in range(500):
            name, item, kind = f"s{rng.integers(6)}", str(rng.integers(100)), rng.random()
            if kind < 0.7:
                assert await own.append(name, item) == await plain.append(name, item)
            elif kind < 0.9:
                assert await own.items(name) == await plain.items(name)
            else:
                assert await own.delete(name) == await plain.delete(name)
        await own.close()

    asyncio.run(move())


def test_a_session_ends_some_time_after_its_last_event(server: tuple[str, Any, Any]) -> None:
    client = redis.from_url(server[0], decode_responses=True)

    async def ask() -> None:
        store = RedisStore(server[0], seconds=1, most_events=3)
        for number in range(5):
            await store.append("a", str(number))
            await asyncio.sleep(0.3)
        assert await store.items("a") == ["2", "3", "4"]  # younger than a second at each event
        assert client.keys("*") == [f"{PREFIX}a"]
        assert 0 < client.pttl(f"{PREFIX}a") <= 1000
        await asyncio.sleep(1.1)
        assert await store.items("a") == []
        await store.close()

    asyncio.run(ask())


@pytest.mark.filterwarnings("ignore:.*unknown to the model")
def test_a_server_that_is_killed_and_back(
    server: tuple[str, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ["SessionId\tItemId\tTime", *("\t".join(map(str, row)) for row in random_rows(120, 14))]
    Path("clicks.tsv").write_text("\n".join(rows) + "\n")
    run = fit_log("clicks.tsv", model="Markov", run="served")
    address, start, kill = server
    service = Service(run / "checkpoints" / "last.ckpt", TorchEngine.of_checkpoint, RedisStore(address))
    with TestClient(create_app(service), raise_server_exceptions=False) as client:

        def ask(**asked: Any) -> tuple[int, Any]:
            answer = client.post("/v1/recommend", json=asked)
            return answer.status_code, answer.json().get("known_items")

        assert [ask(session_id="a", item=item) for item in ("x1", "x2")] == [(200, 1), (200, 2)]
        kill()
        for _ in range(5):
            assert ask(session_id="a", item="x3") == (503, None)
            assert ask(items=["x1", "x2", "x3"]) == (200, 3)
        start()
        assert ask(session_id="a", item="x4") == (200, 1)  # what was kept is gone with the server, and nothing is mixed
        assert ask(session_id="b", item="x4") == (200, 1)
        assert ask(session_id="a") == (200, 1)
