"""What the routes of the server take and give, and their limits."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from sessrec.serving.service import MOST_KEPT


class Limits(NamedTuple):
    """What a request may ask for."""

    most_k: int = 1000
    """Longest list."""
    most_items: int = 500
    """Most items of a session in a request."""


MOST_LISTED = 100_000
"""Most item ids of allow, exclude and availability."""
MOST_REQUESTS = 256
"""Most requests of a batch."""
MOST_BYTES = 4 << 20
"""Largest body, but for that of availability."""
MOST_BYTES_OF_AVAILABILITY = 64 << 20
"""Largest body of availability."""

ItemId = Annotated[str, StringConstraints(min_length=1, max_length=256)]
SessionId = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Strict(BaseModel):
    """A body without fields of other names."""

    model_config = ConfigDict(extra="forbid")


class Ask(Strict):
    """What to recommend for: a session that the server keeps, or the items of one."""

    session_id: SessionId | None = Field(None, description="A session that the server keeps.")
    item: ItemId | None = Field(None, description="The item of the session's newest event, which is added to it.")
    items: list[ItemId] | None = Field(None, description="All items of a session, oldest first.")
    k: int = Field(20, ge=1, description="Length of the list.")
    allow: list[ItemId] | None = Field(None, max_length=MOST_LISTED, description="Items that may be recommended.")
    exclude: list[ItemId] = Field([], max_length=MOST_LISTED, description="Items that may not be.")
    exclude_last: bool | None = Field(None, description="Whether the last item may not be; default: as tested.")
    exclude_seen: bool | None = Field(None, description="Whether no item of the session may be; default: as tested.")
    consent: bool = Field(True, description="Whether the session may be kept; without, only the item given counts.")
    timeout_ms: float | None = Field(None, gt=0, le=60_000, description="Time after which popular items are given.")


class Item(BaseModel):
    """An item of a list."""

    id: str
    score: float


class ModelInfo(BaseModel):
    """The model that has answered."""

    run: str
    digest: str
    trained_until: str | None


class Recommended(BaseModel):
    """A list, best first."""

    items: list[Item]
    model: ModelInfo
    known_items: int
    unknown_items: int
    fallback: str | None = Field(description="Why these are popular items; null where they are the model's.")
    took_ms: float


class Batch(Strict):
    """Several requests without sessions that the server keeps."""

    requests: list[Ask] = Field(min_length=1, max_length=MOST_REQUESTS)


class Availability(Strict):
    """What may be recommended from now on: all of ``available`` (null for every item), or a change."""

    available: list[ItemId] | None = Field(None, max_length=MOST_KEPT)
    add: list[ItemId] = Field([], max_length=MOST_LISTED)
    remove: list[ItemId] = Field([], max_length=MOST_LISTED)


class Reload(Strict):
    """How a model is loaded anew, from the file that the server was started with."""

    any_catalogue: bool = False
