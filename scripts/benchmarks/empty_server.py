"""A server that does nothing: uvicorn, and an answer that is always the same; ``empty_server.py PORT``."""

from __future__ import annotations

import json
import sys
from typing import Any

import uvicorn

_ITEMS = [{"id": str(1000 + number), "score": 1.9743846654891968 - number} for number in range(20)]
_BODY = json.dumps({"items": _ITEMS, "model": {"run": "none", "digest": "0" * 64}, "fallback": None}).encode()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read a request and answer."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, lifespan="off")
