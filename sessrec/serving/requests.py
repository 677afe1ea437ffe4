"""What the server asks a model for, and what it gets; torch is not imported."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple, Protocol


class Request(NamedTuple):
    """What a list is asked for."""

    item_ids: Sequence[str]
    """Items of the session so far, oldest first."""
    k: int = 20
    allow: Sequence[str] | None = None
    """Items that may be recommended; all where None."""
    exclude: Sequence[str] = ()
    """Items that may not be."""
    exclude_last: bool | None = None
    """Whether the last item may not be; the model's option where None."""
    exclude_seen: bool | None = None
    """Whether no item of the session may be; the model's option where None."""


class Origin(NamedTuple):
    """Which model it is, and where it is from."""

    model: str
    """Name of its class."""
    run: str
    digest: str
    """SHA-256 of its checkpoint."""
    trained_at: float | None
    """Time of the last event it was trained on, Unix seconds; None where that is not known."""
    exclude_last: bool
    """Whether the last item is no candidate where a request does not say so."""
    exclude_seen: bool
    """Whether no item of the session is one where a request does not say so."""

    @property
    def trained_until(self) -> str | None:
        """`trained_at` as ISO 8601."""
        return None if self.trained_at is None else datetime.fromtimestamp(self.trained_at, timezone.utc).isoformat()

    def info(self) -> dict[str, Any]:
        """What an answer says of the model."""
        return {"run": self.run, "digest": self.digest, "trained_until": self.trained_until}

    def flags(self, request: Request) -> tuple[bool, bool]:
        """Whether a request excludes the last item, and all items of the session."""
        last, seen = request.exclude_last, request.exclude_seen
        return self.exclude_last if last is None else last, self.exclude_seen if seen is None else seen


class Answer(NamedTuple):
    """A list of items, best first."""

    item_ids: list[str]
    scores: list[float]
    n_known: int
    """Items of the session that the model knows."""
    fallback: str | None
    """Why these are the items most frequent in training; None where the model was asked."""
    origin: Origin
    """Whose list it is."""


class Engine(Protocol):
    """A model that answers requests."""

    @property
    def origin(self) -> Origin:
        """Which model it is."""

    @property
    def most_k(self) -> int | None:
        """Longest list that it can give; None for all items."""

    @property
    def item_ids(self) -> Sequence[str]:
        """The items that it knows."""

    @property
    def n_available(self) -> int:
        """Number of items that may be recommended at present."""

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer a request, the same but for rounding whatever requests are beside it."""

    def popular(self, request: Request, reason: str) -> Answer:
        """The items most frequent in training that the request allows, for a reason that the answer tells."""

    def with_availability(self, available: Sequence[str] | None, unavailable: Sequence[str]) -> Engine:
        """The same model, of which only some items may be recommended: those available (all where None), but some."""
