"""The HTTP interface of the server: its routes."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse

from sessrec import __version__
from sessrec.serving.body_limit import BodyLimit
from sessrec.serving.page import Page, page_routes
from sessrec.serving.refusals import add_refusals
from sessrec.serving.requests import Answer, Request
from sessrec.serving.schemas import (
    MOST_BYTES,
    MOST_BYTES_OF_AVAILABILITY,
    Ask,
    Availability,
    Batch,
    Limits,
    ModelInfo,
    Recommended,
    Reload,
    SessionId,
)
from sessrec.serving.service import Service

_AVAILABILITY = "/v1/availability"


def create_app(
    service: Service, token: str | None = None, limits: Limits | None = None, page: Page | None = None
) -> FastAPI:
    """The application.

    Args:
        service: What it serves.
        token: Token that writing routes ask for; none where None.
        limits: What a request may ask for; the usual ones where None.
        page: What the page shows; the served model alone where None.
    """
    page = page or Page([service], limits=limits or Limits())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for one in page.services:
            await one.close()

    app = FastAPI(title="sessrec", version=__version__, lifespan=lifespan)
    app.state.service, app.state.token, app.state.limits = service, token, limits or Limits()
    larger = {_AVAILABILITY: MOST_BYTES_OF_AVAILABILITY}
    app.add_middleware(BodyLimit, most_bytes=MOST_BYTES, larger=larger, measures=service.measures)
    add_refusals(app)
    app.include_router(router)
    app.include_router(page_routes(page))
    return app


router = APIRouter()
_ASK = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Ask"}}},
    }
}


async def _service(request: HttpRequest) -> Service:  # a plain function would be run in a thread of its own
    return request.app.state.service


async def _may_write(request: HttpRequest, authorization: Annotated[str | None, Header()] = None) -> None:
    """Refuse a writing route without the token."""
    token = request.app.state.token
    given = (authorization or "").removeprefix("Bearer ")
    if token is not None and not secrets.compare_digest(given.encode(), token.encode()):
        raise HTTPException(
            401, "this route needs the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
        )


async def _limits(request: HttpRequest) -> Limits:
    return request.app.state.limits


Served = Annotated[Service, Depends(_service)]
Limited = Annotated[Limits, Depends(_limits)]


@router.post("/v1/recommend", response_model=Recommended, openapi_extra=_ASK)
async def recommend(request: HttpRequest) -> Response:
    """Recommend the next item of a session."""
    start, state = time.perf_counter(), request.app.state
    service: Service = state.service
    ask = await _ask_of(request)
    _check(ask, state.limits, service)
    service.batcher.reserve()  # before the event is kept: who is sent away will come again with it
    try:
        items = await _items_of(ask, service)
    except BaseException:
        service.batcher.release()
        raise
    return JSONResponse(_answered(items, await _ask_model(ask, items, start, service), start, service))


@router.post("/v1/recommend:batch", response_model=list[Recommended])
async def recommend_batch(batch: Batch, service: Served, limits: Limited) -> Response:
    """Recommend for several sessions, whose items are given, in their order."""
    start = time.perf_counter()
    if any(ask.items is None for ask in batch.requests):
        raise HTTPException(422, "requests of a batch give items, for their order in a kept session would be chance")
    for ask in batch.requests:
        _check(ask, limits, service)
    service.batcher.reserve(len(batch.requests))
    answers = await asyncio.gather(*(_ask_model(ask, ask.items or [], start, service) for ask in batch.requests))
    asked = zip(batch.requests, answers, strict=True)
    return JSONResponse([_answered(ask.items or [], answer, start, service) for ask, answer in asked])


@router.put(_AVAILABILITY, dependencies=[Depends(_may_write)])
async def availability(change: Availability, service: Served) -> dict[str, int]:
    """Say what may be recommended: all that is available, or what is added and removed."""
    whole = "available" in change.model_fields_set
    if whole == bool(change.add or change.remove):
        raise HTTPException(422, "give available, or add and remove")
    loop = asyncio.get_running_loop()
    if whole:
        n_items = await loop.run_in_executor(None, service.set_available, change.available)
    else:
        n_items = await loop.run_in_executor(None, service.change_available, change.add, change.remove)
    return {"available_items": n_items}


@router.delete("/v1/sessions/{session_id:path}", dependencies=[Depends(_may_write)])
async def delete_session(session_id: SessionId, service: Served) -> dict[str, bool]:
    """Forget a session."""
    return {"deleted": service.store is not None and await service.store.delete(session_id)}


@router.post("/v1/reload", dependencies=[Depends(_may_write)])
async def reload(service: Served, options: Reload | None = None) -> ModelInfo:
    """Load the checkpoint anew and serve it; refused where it is damaged or of other items."""
    any_catalogue = options is not None and options.any_catalogue
    engine = await asyncio.get_running_loop().run_in_executor(None, lambda: service.reload(None, any_catalogue))
    return ModelInfo(**engine.origin.info())


@router.get("/v1/model")
async def model(service: Served) -> dict[str, Any]:
    """The model that serves."""
    engine = service.engine
    origin = engine.origin
    rules = {"exclude_last": origin.exclude_last, "exclude_seen": origin.exclude_seen}
    return {**origin.info(), "model": origin.model, "n_items": len(engine.item_ids), "most_k": engine.most_k, **rules}


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether the server runs."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(service: Served) -> dict[str, str]:
    """Whether the server takes requests."""
    if service.batcher.is_stopped:
        raise HTTPException(503, "the server ends")
    return {"status": "ready"}


@router.get("/metrics")
async def metrics(service: Served) -> Response:
    """Counts and times for Prometheus."""
    return Response(service.measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _ask_of(request: HttpRequest) -> Ask:
    """The body of a request; FastAPI would take as long to find it as the model for its list."""
    kind = request.headers.get("content-type", "none").partition(";")[0].strip().lower()
    if kind != "application/json":  # a page of another site may send others without asking
        raise HTTPException(415, f"the body must be application/json, not {kind[:60]}")
    try:
        return Ask.model_validate_json(await request.body())
    except ClientDisconnect:
        raise HTTPException(400, "the client has gone") from None
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from None


def _check(ask: Ask, limits: Limits, service: Service) -> None:
    """Refuse a request above the limits of the server and of its model."""
    most_k = min(limits.most_k, service.engine.most_k or limits.most_k)
    if ask.k > most_k:
        raise HTTPException(422, f"k: at most {most_k:,} items are listed")
    if ask.items is not None and len(ask.items) > limits.most_items:
        raise HTTPException(422, f"items: at most {limits.most_items:,} items of a session are taken")


async def _items_of(ask: Ask, service: Service) -> list[str]:
    """Items of the session that is asked for; its newest one is kept."""
    if ask.items is not None:
        if ask.session_id is not None or ask.item is not None:
            raise HTTPException(422, "give items, or session_id and item")
        return ask.items
    if ask.session_id is None and ask.item is None:
        raise HTTPException(422, "give items, or session_id, item or both")
    if not ask.consent or ask.session_id is None:
        return [] if ask.item is None else [ask.item]
    if service.store is None:
        raise HTTPException(422, "this server keeps no sessions (--store none): give items")
    if ask.item is None:
        return await service.store.items(ask.session_id)
    return await service.store.append(ask.session_id, ask.item)


async def _ask_model(ask: Ask, items: list[str], start: float, service: Service) -> Answer:
    """The answer for a request with a place in the queue; its time has run since its start."""
    request = Request(items, ask.k, ask.allow, ask.exclude, ask.exclude_last, ask.exclude_seen)
    left = None if ask.timeout_ms is None else ask.timeout_ms / 1000 - (time.perf_counter() - start)
    return await service.recommend(request, None if left is None else max(0.0, left))


def _answered(items: list[str], answer: Answer, start: float, service: Service) -> dict[str, Any]:
    """A `Recommended`, as plain values: to check what is known to be right would take longer than to find it."""
    unknown = len(items) - answer.n_known
    if unknown:
        service.measures.unknown_items.inc(unknown)
    if answer.fallback:
        service.measures.fallbacks.labels(answer.fallback).inc()
    return {
        "items": [{"id": own, "score": score} for own, score in zip(answer.item_ids, answer.scores, strict=True)],
        "model": answer.origin.info(),
        "known_items": answer.n_known,
        "unknown_items": unknown,
        "fallback": answer.fallback,
        "took_ms": round(1000 * (time.perf_counter() - start), 3),
    }
