"""What the server tells Prometheus."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sessrec.serving.requests import Origin

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Measures:
    """Counts and times of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: Any = {"registry": self.registry, "namespace": "sessrec"}
        self.request_seconds = Histogram(
            "request_seconds", "Time of a request", ["route", "status"], buckets=_SECONDS, **own
        )
        self.batch_size = Histogram(
            "batch_size", "Requests answered together", buckets=(1, 2, 4, 8, 16, 32, 64, 128), **own
        )
        self.queue_seconds = Histogram(
            "queue_seconds", "Time that a batch's first request waits", buckets=_SECONDS, **own
        )
        self.model_seconds = Histogram("model_seconds", "Time of the answers of a batch", buckets=_SECONDS, **own)
        self.unknown_items = Counter("unknown_items", "Items of sessions that the model does not know", **own)
        self.fallbacks = Counter("fallbacks", "Answers of popular items", ["reason"], **own)
        self.rejected = Counter("rejected", "Requests that were not answered", ["reason"], **own)
        self.reloads = Counter("reloads", "Reloads of a model", ["result"], **own)
        self.model = Gauge("model_info", "The model that serves", ["run", "digest"], **own)
        self.model_age_hours = Gauge("model_age_hours", "Hours since the last event the model was trained on", **own)

    def batch(self, size: int, waited: float, seconds: float) -> None:
        """Count a batch."""
        self.batch_size.observe(size)
        self.queue_seconds.observe(waited)
        self.model_seconds.observe(seconds)

    def of_model(self, origin: Origin) -> None:
        """Name the model that serves."""
        self.model.clear()
        self.model.labels(origin.run, origin.digest).set(1)
        until = origin.trained_at
        self.model_age_hours.set_function(lambda: float("nan") if until is None else (time.time() - until) / 3600)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
