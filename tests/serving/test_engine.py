"""The engine and the queue of the server: each answer is what `recommend` gives, in whatever batch."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_sessions, make_vocabulary

from sessrec import models
from sessrec.serving.batcher import Batcher, BatcherStoppedError, QueueFullError
from sessrec.serving.engine import TorchEngine
from sessrec.serving.requests import Answer, Origin, Request

N_ITEMS = 60
SESSIONS = make_sessions([[(7 * s + 3 * p * p) % N_ITEMS for p in range(2 + s % 6)] for s in range(90)])
NAMES = [name for name in models.__all__ if name not in ("SessionRecommender", "Oracle", "Random")]


def engine_of(name: str, **changes: Any) -> TorchEngine:
    torch.manual_seed(1)
    model = getattr(models, name)()
    model.set_vocabulary(make_vocabulary(N_ITEMS))
    if model.batches == "log":
        model.learn_sessions(SESSIONS)
    origin = Origin(name, "run", "digest", None, False, False)
    return TorchEngine(vocabulary=model.vocabulary, origin=origin, model=model.eval(), **changes)


def requests_of(n: int, seed: int = 0) -> list[Request]:
    """Requests of all kinds: lengths, lists, flags, unknown items, empty sessions."""
    rng, found = np.random.default_rng(seed), []
    ids = [*make_vocabulary(N_ITEMS).item_ids, "unknown-1", "unknown-2"]
    for _ in range(n):
        items = [ids[number] for number in rng.integers(len(ids), size=rng.integers(0, 9))]
        some = [[ids[number] for number in rng.permutation(len(ids))[: rng.integers(0, 30)]] for _ in range(2)]
        flags = [None, True, False]
        found.append(
            Request(
                items,
                int(rng.integers(1, 2 * N_ITEMS)),
                some[0] if rng.random() < 0.3 else None,
                some[1] if rng.random() < 0.3 else (),
                flags[rng.integers(3)],
                flags[rng.integers(3)],
            )
        )
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:.*unknown to the model")
def test_answers_are_those_of_recommend_in_any_mix(name: str) -> None:
    engine, requests = engine_of(name), requests_of(90)
    rng = np.random.default_rng(1)
    start = 0
    while start < len(requests):
        stop = start + int(rng.integers(1, 40))
        for request, answer in zip(requests[start:stop], engine.answer(requests[start:stop]), strict=True):
            known = [item for item in request.item_ids if not item.startswith("unknown")]
            expected = engine.model.recommend(
                known, request.k, request.allow, request.exclude, request.exclude_last, request.exclude_seen
            )
            assert answer.item_ids == [item for item, _ in expected]
            assert answer.scores == pytest.approx([score for _, score in expected], rel=1e-6, abs=1e-6)
            assert answer.n_known == len(known)
            reason = "unknown_items" if request.item_ids else "empty_session"
            assert answer.fallback == (None if known else reason)
        start = stop


def test_only_what_is_available_is_recommended() -> None:
    available = np.arange(N_ITEMS) % 3 == 0
    engine, whole = engine_of("Markov", available=available), engine_of("Markov")
    ids = engine.model.vocabulary.item_ids
    for request in requests_of(60, seed=2):
        (answer,), (of_all,) = engine.answer([request]), whole.answer([request._replace(k=N_ITEMS)])
        left = [item for item in of_all.item_ids if available[ids.index(item)]]
        assert answer.item_ids == left[: request.k]


def answer_later(gate: threading.Event, seen: list[int]) -> Any:
    engine = engine_of("Popularity")

    def answer(requests: Sequence[Request]) -> list[Answer]:
        seen.append(len(requests))
        gate.wait(10)
        return [Answer([str(request.k)], [1.0], 0, None, engine.origin) for request in requests]

    return answer


def test_whatever_waits_is_answered_together() -> None:
    gate, seen = threading.Event(), []  # type: ignore[var-annotated]
    batcher = Batcher(answer_later(gate, seen), most_at_once=4, most_waiting=6)

    async def ask() -> list[str]:
        first = ask_for(batcher, 1)
        while not seen:  # alone, at once
            await asyncio.sleep(0.001)
        others = [ask_for(batcher, k) for k in range(2, 8)]
        with pytest.raises(QueueFullError):
            ask_for(batcher, 9)
        others[1].cancel()  # which is not answered
        gate.set()
        return [(await future).item_ids[0] for future in (first, others[0], *others[2:])]

    assert asyncio.run(ask()) == ["1", "2", "4", "5", "6", "7"]
    assert seen == [1, 3, 2]
    batcher.stop()
    with pytest.raises(BatcherStoppedError):
        asyncio.run(submit(batcher))


async def submit(batcher: Batcher) -> Any:
    return await ask_for(batcher, 1)


def ask_for(batcher: Batcher, k: int) -> Any:
    batcher.reserve()
    return batcher.submit(Request([], k))


def test_the_event_loop_answers_what_has_come_together() -> None:
    gate, seen = threading.Event(), []  # type: ignore[var-annotated]
    gate.set()
    batcher = Batcher(answer_later(gate, seen), most_at_once=4, most_waiting=9, in_loop=True)

    async def ask_one(k: int) -> str:
        await asyncio.sleep(0)  # as a request that is read first
        return (await ask_for(batcher, k)).item_ids[0]

    async def ask() -> list[str]:
        return await asyncio.gather(*(ask_one(k) for k in range(1, 8)))

    assert asyncio.run(ask()) == [str(k) for k in range(1, 8)]
    assert seen == [4, 3]
    assert asyncio.run(ask_one(9)) == "9"
    batcher.stop()
    with pytest.raises(BatcherStoppedError):
        batcher.reserve()


def test_places_are_kept_and_given_up() -> None:
    gate, seen = threading.Event(), []  # type: ignore[var-annotated]
    batcher = Batcher(answer_later(gate, seen), most_waiting=5)
    batcher.reserve(3)
    with pytest.raises(QueueFullError):
        batcher.reserve(3)
    batcher.reserve(2)
    batcher.release(4)
    batcher.reserve(4)
    batcher.release(5)
    gate.set()
    assert asyncio.run(submit(batcher)).item_ids == ["1"]
    batcher.stop()


def test_an_error_ends_every_request_of_its_batch_and_no_other() -> None:
    calls: list[int] = []

    def answer(requests: Sequence[Request]) -> list[Answer]:
        calls.append(len(requests))
        if requests[0].k == 13:
            raise RuntimeError("of the model")
        return answer_later(done, [])(requests)

    done = threading.Event()
    done.set()
    batcher = Batcher(answer)

    async def ask() -> str:
        with pytest.raises(RuntimeError, match="of the model"):
            await ask_for(batcher, 13)
        return (await ask_for(batcher, 2)).item_ids[0]

    assert asyncio.run(ask()) == "2"
    batcher.stop()


def test_what_waits_is_answered_before_the_end() -> None:
    gate, seen = threading.Event(), []  # type: ignore[var-annotated]
    batcher = Batcher(answer_later(gate, seen), most_at_once=2)

    async def ask() -> list[str]:
        futures = [ask_for(batcher, k) for k in range(1, 6)]
        threading.Timer(0.05, gate.set).start()
        await asyncio.get_running_loop().run_in_executor(None, batcher.stop)
        return [(await future).item_ids[0] for future in futures]

    start = time.perf_counter()
    assert asyncio.run(ask()) == ["1", "2", "3", "4", "5"]
    assert time.perf_counter() - start < 5
