"""The page of the server, `GET /`, to try models in a browser, and the routes that it asks.

A session is made by clicks, or is one of a click log, whose positions show the rank of what came next.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import Field

from sessrec.serving.item_table import ItemTable
from sessrec.serving.requests import Answer, Engine, Request
from sessrec.serving.schemas import ItemId, Limits, SessionId, Strict
from sessrec.serving.service import Service

if TYPE_CHECKING:
    from sessrec.serving.log_sessions import LogSession, LogSessions

_MOST_EVENTS = 200  # positions of a session that are ranked, its last ones
_AT_ONCE = 32  # requests that the page puts in the queue at a time
_MOST_FOUND = 50
_CUTOFF = 20
_MOST_LISTED = 100
_LONGEST = 1000  # items of a list that ranks are told from


class Session(Strict):
    """A session of the page."""

    items: list[ItemId]
    k: int = Field(1, ge=1)


@dataclass
class Page:
    """What the page shows.

    Args:
        services: The models, side by side; the first one is the one that is served.
        items: Titles and pictures.
        sessions: Sessions of a click log; None where there is none.
        limits: Limits of the server.
    """

    services: list[Service]
    items: ItemTable = field(default_factory=ItemTable)
    sessions: LogSessions | None = None
    limits: Limits = field(default_factory=Limits)
    _indices: dict[str, _Index] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def about(self) -> dict[str, Any]:
        """The models, and what there is beside them."""
        models = [_about(service.engine) for service in self.services]
        return {"models": models, "has_sessions": self.sessions is not None, "cutoff": self.longest(_CUTOFF)}

    def longest(self, at_most: int) -> int:
        """Length of the longest lists that all models may give."""
        engines = [service.engine for service in self.services]
        return min(at_most, self.limits.most_k, *(e.most_k or len(e.item_ids) for e in engines))

    def check(self, session: Session) -> None:
        """Refuse a session above the server's limits."""
        if len(session.items) > self.limits.most_items:
            raise HTTPException(422, f"items: at most {self.limits.most_items:,} items of a session are taken")
        if session.k > (longest := self.longest(_MOST_LISTED)):
            raise HTTPException(422, f"k: at most {longest:,} items are listed")

    def shown(self, item_id: str) -> dict[str, Any]:
        """An item as the page shows it."""
        title, picture = self.items[item_id]
        return {"id": item_id, "title": title, "picture": picture}

    def search(self, text: str) -> list[dict[str, Any]]:
        """Items whose id or title has a text, the most frequent in training first."""
        found = self._index_of(self.services[0].engine).find(text, _MOST_FOUND)
        return [self.shown(item_id) for item_id in found]

    async def lists(self, session: Session) -> list[dict[str, Any]]:
        """List of each model for a session."""
        answers = [await _answers(service, [Request(session.items, session.k)]) for service in self.services]
        return [
            {
                "items": [
                    {**self.shown(own), "score": score} for own, score in zip(one.item_ids, one.scores, strict=True)
                ],
                "fallback": one.fallback,
                **one.origin.info(),
            }
            for (one,) in answers
        ]

    async def ranks(self, items: Sequence[str]) -> list[list[int | str | None]]:
        """Rank of each event of a session but the first by each model, from the events before it."""
        first = max(1, len(items) - _MOST_EVENTS)
        found = []
        for service in self.services:
            index = await asyncio.to_thread(self._index_of, service.engine)
            k = min(self.longest(_LONGEST), len(index.ids))
            ranks: list[int | str | None] = [None] * (first - 1)
            for start in range(first, len(items), _AT_ONCE):  # so that few lists are held at a time
                places = range(start, min(start + _AT_ONCE, len(items)))
                answers = await _answers(service, [Request(items[:place], k) for place in places])
                ranks += [
                    _rank(answer, items[place], k, index.ids) for place, answer in zip(places, answers, strict=True)
                ]
            found.append(ranks)
        return found

    def session(self, session: LogSession) -> dict[str, Any]:
        """A session of the log, and whether it begins after the training of each model."""
        trained = [service.engine.origin.trained_at for service in self.services]
        newer = [None if session.start is None or time is None else session.start > time for time in trained]
        items = session.items[-self.limits.most_items :]
        return {"id": session.session_id, "items": [self.shown(i) for i in items], "is_after_training": newer}

    def _index_of(self, engine: Engine) -> _Index:
        """Texts of a model's items; made anew when it is another one."""
        digest = engine.origin.digest
        with self._lock:
            if digest not in self._indices:
                while len(self._indices) >= len(self.services):
                    self._indices.pop(next(iter(self._indices)))
                self._indices[digest] = _Index(engine, self.items)
            return self._indices[digest]


class _Index:
    """Items of a model by their texts, the most frequent in training first."""

    def __init__(self, engine: Engine, table: ItemTable) -> None:
        everything = engine.with_availability(None, ())
        answer = everything.popular(Request([], len(engine.item_ids), exclude_last=False, exclude_seen=False), "")
        self.ids = dict.fromkeys(answer.item_ids)
        self._ids = answer.item_ids
        self._texts = pa.array([f"{own}\n{table[own].title or ''}" for own in self._ids], pa.string())

    def find(self, text: str, most: int) -> list[str]:
        exact = [text] if text in self.ids else []
        matches = pc.match_substring(self._texts, text, ignore_case=True)
        found = pc.indices_nonzero(matches)[: most + 1].to_pylist()
        return [*dict.fromkeys([*exact, *(self._ids[index] for index in found)])][:most]


async def _answers(service: Service, requests: Sequence[Request]) -> list[Answer]:
    """Answers of a model, whose queue has to have a place for each request."""
    service.batcher.reserve(len(requests))
    return await asyncio.gather(*(service.recommend(request) for request in requests))


def _rank(answer: Answer, target: str, k: int, known: dict[str, None]) -> int | str:
    """Rank of a target in a list of k, after all that score as it does; or why it has none."""
    if target not in known:
        return "unknown item"
    if answer.fallback is not None:
        return "nothing known before"
    if target not in answer.item_ids:
        return f"{k}+" if len(answer.item_ids) == k else "no candidate"
    own = answer.scores[answer.item_ids.index(target)]
    is_cut = len(answer.item_ids) == k < len(known) and answer.scores[-1] == own  # others may score so, too
    return f"{k}+" if is_cut else sum(score >= own for score in answer.scores)


def _about(engine: Engine) -> dict[str, Any]:
    return {**engine.origin.info(), "model": engine.origin.model, "n_items": len(engine.item_ids)}


def page_routes(page: Page) -> APIRouter:
    """The routes of the page."""
    router = APIRouter(include_in_schema=False)
    html = files("sessrec.serving").joinpath("page.html").read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": _policy(html), "X-Content-Type-Options": "nosniff"}

    @router.get("/")
    async def show() -> Response:
        return Response(html, media_type="text/html; charset=utf-8", headers=headers)

    @router.get("/page/about")
    async def about() -> dict[str, Any]:
        return page.about()

    @router.get("/page/items")
    def search(text: Annotated[str, Query(max_length=256)] = "") -> list[dict[str, Any]]:
        return page.search(text)

    @router.post("/page/lists")
    async def lists(session: Session) -> list[dict[str, Any]]:
        page.check(session)
        return await page.lists(session)

    @router.post("/page/ranks")
    async def ranks(session: Session) -> list[list[int | str | None]]:
        page.check(session)
        return await page.ranks(session.items)

    @router.get("/page/session")
    def session(id: SessionId | None = None) -> dict[str, Any]:
        if page.sessions is None:
            raise HTTPException(404, "the server has no sessions of a log: start it with --sessions LOG")
        trained = page.services[0].engine.origin.trained_at
        found = page.sessions.one_after(trained) if id is None else page.sessions.of_id(id)
        if found is None:
            raise HTTPException(404, "there is no such session of two events or more in the log")
        return page.session(found)

    return router


def _policy(html: str) -> str:
    """What the page may load: nothing but its own script and style, and pictures."""
    kinds = {"script": "script-src", "style": "style-src"}
    parts = ["default-src 'none'", "connect-src 'self'", "img-src http: https: data:", "frame-ancestors 'none'"]
    for tag, name in kinds.items():
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found)
        parts.append(" ".join([name, *(f"'sha256-{digest}'" for digest in digests)]))
    return "; ".join(parts)
