"""Items that come and go by a table: the server recommends what is there at the time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
from test_engine import N_ITEMS, engine_of

import sessrec.serving.service
from sessrec.features.availability import Availability
from sessrec.serving.requests import Request
from sessrec.serving.service import Service


def service_of(bounds: dict[str, list[float]]) -> Service:
    width = max(map(len, bounds.values()))
    table = np.array([[*own, *[np.inf] * (width - len(own))] for own in bounds.values()])
    schedule = Availability(list(bounds), table, "shop")
    return Service(Path("model.ckpt"), lambda file: engine_of("Popularity"), None, schedule=schedule)


def recommended(service: Service) -> set[str]:
    return set(service.engine.answer([Request(["i3"], N_ITEMS)])[0].item_ids)


def test_what_is_there_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(sessrec.serving.service.time, "time", lambda: now)
    everything = {f"i{number}" for number in range(N_ITEMS)}
    service = service_of({"i1": [-np.inf, 100.0], "i2": [100.0, 200.0, 300.0], "i4": [150.0], "stranger": [0.0, 1.0]})
    assert recommended(service) == everything - {"i1", "i4"}
    assert service.change_available([], ["i9"]) == N_ITEMS - 3
    assert recommended(service) == everything - {"i1", "i4", "i9"}
    now = 200.0
    assert service.set_available(["i1", "i2", "i4", "i5"]) == 2  # what a request says is there is so at its times only
    assert recommended(service) == {"i4", "i5"}
    now = 300.0
    service.reload()
    assert recommended(service) == {"i2", "i4", "i5"}
    asyncio.run(service.close())


def test_a_change_before_the_schedule_is_followed_is_not_lost() -> None:
    service = service_of({"i1": [time.time() + 0.05]})
    assert "i1" not in recommended(service)
    time.sleep(0.1)

    async def serve() -> None:
        following = asyncio.ensure_future(service.follow_schedule())
        for _ in range(100):
            await asyncio.sleep(0.02)
            if "i1" in recommended(service):
                break
        assert "i1" in recommended(service)
        following.cancel()
        await service.close()

    asyncio.run(serve())


def test_the_loop_runs_on_while_a_model_is_loaded() -> None:
    change = time.time() + 0.1
    service = service_of({"i1": [change]})

    async def serve() -> None:
        following = asyncio.ensure_future(service.follow_schedule())
        with service._changing:  # as a reload holds it
            start, n_turns = time.time(), 0
            while time.time() < start + 0.4:
                await asyncio.sleep(0.01)
                n_turns += 1
        assert n_turns > 10
        following.cancel()
        await service.close()

    asyncio.run(serve())


def test_items_come_and_go_while_it_serves() -> None:
    change = time.time() + 0.3
    service = service_of({"i1": [-np.inf, change], "i2": [change]})

    async def serve() -> None:
        following = asyncio.ensure_future(service.follow_schedule())
        assert "i1" in recommended(service)
        assert "i2" not in recommended(service)
        while "i1" in recommended(service):
            assert time.time() < change + 5
            await asyncio.sleep(0.02)
        assert time.time() >= change
        assert "i2" in recommended(service)
        following.cancel()
        await service.close()

    asyncio.run(serve())
