"""What the server answers where it refuses a request, or fails: a status and a reason, counted."""

from __future__ import annotations

from fastapi import FastAPI, HTTPException, Response
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse

from sessrec.errors import SessRecError, one_line
from sessrec.serving.batcher import BatcherStoppedError, QueueFullError
from sessrec.serving.session_store import StoreDownError

_UNAVAILABLE = {
    QueueFullError: ("queue_full", "too many requests wait; try again"),
    BatcherStoppedError: ("stopping", "the server ends"),
    StoreDownError: ("store_down", "the store of sessions fails; requests with items are answered"),
}


def add_refusals(app: FastAPI) -> None:
    """Have an application answer what it refuses; ``app.state.service`` counts it."""
    for error in _UNAVAILABLE:
        app.add_exception_handler(error, _unavailable)
    app.add_exception_handler(SessRecError, _refused)
    app.add_exception_handler(RequestValidationError, _no_request)
    app.add_exception_handler(HTTPException, _counted)


async def _unavailable(request: HttpRequest, error: Exception) -> Response:
    name, text = _UNAVAILABLE[type(error)]
    _count(request, name)
    return JSONResponse({"detail": text}, 503, {"Retry-After": "1"})


async def _refused(request: HttpRequest, error: Exception) -> Response:
    _count(request, "refused")
    return JSONResponse({"detail": one_line(error)}, 409)


async def _no_request(request: HttpRequest, error: Exception) -> Response:
    """Answers a body that is no request with where and why, and nothing of the body itself."""
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, one['loc'][1:])) or one['loc'][0]}: {one['msg']}" for one in error.errors()]
    _count(request, "no_request")
    return JSONResponse({"detail": "; ".join(faults[:3])}, 422)


async def _counted(request: HttpRequest, error: Exception) -> Response:
    """Answers a refusal of a route."""
    assert isinstance(error, HTTPException)
    _count(request, "unauthorised" if error.status_code == 401 else "no_request")
    return JSONResponse({"detail": error.detail}, error.status_code, dict(error.headers or {}))


def _count(request: HttpRequest, name: str) -> None:
    request.app.state.service.measures.rejected.labels(name).inc()
