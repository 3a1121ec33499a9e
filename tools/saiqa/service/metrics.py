"""The Prometheus metrics of ``/metrics``."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one service, in a separate registry, so that several services can run in one process.

    Args:
        pending: returns the number of images queued or in progress.
    """

    def __init__(self, pending: Callable[[], int]):
        self._registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self._registry}
        self._requests = Counter(
            "saiqa_requests", "Answers of POST /score, /explain and /v1/decisions by HTTP status", ["status"], **options
        )
        self._seconds = Histogram("saiqa_request_seconds", "From request to answer", buckets=_SECONDS, **options)
        self._images = Counter("saiqa_images", "Images answered, with a score or with an error", ["outcome"], **options)
        self._batches = Histogram("saiqa_batch_images", "Images scored together", buckets=_IMAGES, **options)
        self._model = Counter("saiqa_model_seconds", "Time the model's thread worked", **options)
        Gauge("saiqa_pending_images", "Images queued or in progress", **options).set_function(pending)
        ProcessCollector(registry=self._registry)

    def request(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)

    def images(self, scored: int, failed: int) -> None:
        """Count the images of an answer."""
        self._images.labels("scored").inc(scored)
        self._images.labels("failed").inc(failed)

    def batch(self, images: int, seconds: float) -> None:
        """Count a batch of the model's thread."""
        self._batches.observe(images)
        self._model.inc(seconds)

    def text(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        return generate_latest(self._registry)


class Measured:
    """ASGI middleware that counts and times the answers of the routes that use the model."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]):
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in self.paths:
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            self.metrics.request(status, time.monotonic() - started)
