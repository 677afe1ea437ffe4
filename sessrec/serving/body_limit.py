"""Refuses bodies that are too large before they are read, and counts every request."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any

from sessrec.serving.measures import Measures


class BodyLimit:
    """Middleware that answers 413 to a body above a size, whatever its head says of it.

    Args:
        app: The application.
        most_bytes: Largest body.
        larger: Largest body of some paths.
        measures: Is told of each request.
    """

    def __init__(self, app: Any, most_bytes: int, larger: Mapping[str, int], measures: Measures) -> None:
        self.app, self.most_bytes, self.larger, self.measures = app, most_bytes, larger, measures

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, counted."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, seen, status = time.perf_counter(), 0, 500
        is_too_large, most_bytes = False, self.larger.get(scope["path"], self.most_bytes)
        head = dict(scope["headers"]).get(b"content-length", b"0")

        async def counted_receive() -> Any:
            nonlocal seen, is_too_large
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most_bytes:
                is_too_large = True
                raise _TooLargeError
            return message

        async def noted_send(message: Any) -> None:
            nonlocal status
            if is_too_large:
                return  # the application takes the error for another one
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            is_too_large = head.isdigit() and int(head) > most_bytes
            if not is_too_large:
                with contextlib.suppress(_TooLargeError):
                    await self.app(scope, counted_receive, noted_send)
            if is_too_large:
                status = 413
                await self._refuse(send, most_bytes)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.measures.request_seconds.labels(route, str(status)).observe(time.perf_counter() - start)

    async def _refuse(self, send: Any, most_bytes: int) -> None:
        body = json.dumps({"detail": f"a body of more than {most_bytes:,} bytes"}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 413, "headers": [*headers, (b"connection", b"close")]})
        await send({"type": "http.response.body", "body": body})
        self.measures.rejected.labels("body_too_large").inc()


class _TooLargeError(Exception):
    """The body is above the limit."""
