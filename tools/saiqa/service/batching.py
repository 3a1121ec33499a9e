"""One thread that owns the model, and the bounded queue in front of it.

Requests come from many threads; their images are scored together, in order of arrival. Knows nothing of HTTP.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saiqa.service.intake import Picture

_RATE_MEMORY = 0.8  # weight of the past in the running estimate of images per second
_LONGEST_RETRY_SECONDS = 60
BATCH_PIXELS = 64_000_000  # 0.2 GB as RGB

_log = logging.getLogger(__name__)


class QueueFull(Exception):
    """There is currently no room for these images.

    Attributes:
        retry_after_seconds: when there should be room again, a whole number of at least 1.
    """

    def __init__(self, retry_after_seconds: int):
        super().__init__(retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds


class ScoringFailed(Exception):
    """Scoring raised an unexpected error; the log has its traceback."""


class Closed(Exception):
    """The service is being shut down and accepts no more images."""


@dataclass
class Order:
    """Images that arrived in one request and are answered together."""

    images: Sequence[Picture]
    asked: Hashable
    results: list[Any]  # None for a result that is still missing
    missing: int
    future: Future[list[Any]] = field(default_factory=Future)


@dataclass(frozen=True)
class Item:
    """One image of an order."""

    order: Order
    place: int


class Batcher:
    """Scores images of concurrent callers together.

    Args:
        score: takes images and what is asked about them, returns one result per image, in order; called from one thread only.
        max_queue: the most images that may be queued or in progress; more are refused.
        max_batch: the most images passed to ``score`` at a time; fewer if together they have more than ``BATCH_PIXELS``, since
            all of them may be decoded at once.
        wait_seconds: how long an incomplete batch waits for more images.
        pixels: the number of pixels of an image.
        observe: called with the images and seconds of every batch.
    """

    def __init__(
        self,
        score: Callable[[list[Picture], Any], list[Any]],
        *,
        max_queue: int,
        max_batch: int,
        wait_seconds: float,
        pixels: Callable[[Picture], int] = lambda image: 0,
        observe: Callable[[int, float], None] = lambda images, seconds: None,
    ):
        self._pixels = pixels
        self._score = score
        self.max_queue, self.max_batch, self.wait_seconds = max_queue, max_batch, wait_seconds
        self._observe = observe
        self._queue: deque[Item] = deque()
        self._pending = 0  # queued or in progress
        self._images_per_second = 0.0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Number of images queued or in progress."""
        return self._pending

    @property
    def alive(self) -> bool:
        """Whether the model's thread is running."""
        return self._thread.is_alive()

    def check_room(self, images: int = 1) -> None:
        """Raise ``QueueFull`` or ``Closed`` if ``submit`` would raise it now."""
        with self._changed:
            self._require_room(images)

    def submit(self, images: Sequence[Picture], asked: Hashable) -> Future[list[Any]]:
        """Queue images for scoring, all of them or none. Images with an equal ``asked`` may share a batch.

        Returns:
            A future of one result per image, in order, or of ``ScoringFailed``.

        Raises:
            QueueFull: with these images the queue would exceed ``max_queue``.
            Closed: ``close`` has been called.
        """
        order = Order(images, asked, [None] * len(images), len(images))
        if not images:
            order.future.set_result([])
            return order.future
        with self._changed:
            self._require_room(len(images))
            self._pending += len(images)
            self._queue.extend(Item(order, place) for place in range(len(images)))
            self._changed.notify()
        return order.future

    def close(self, seconds: float) -> None:
        """Accept no more images, finish the queue, and return when that is done or ``seconds`` have passed."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            left = list(self._queue)
            self._queue.clear()
        self._fail(left, Closed())

    def _require_room(self, images: int) -> None:
        if self._closed:
            raise Closed
        if self._pending + images > self.max_queue:
            raise QueueFull(self._retry_after_seconds())

    def _retry_after_seconds(self) -> int:
        """When the current queue should be done."""
        if not self._images_per_second:
            return 1
        return min(max(math.ceil(self._pending / self._images_per_second), 1), _LONGEST_RETRY_SECONDS)

    # ---- the model's thread ------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while batch := self._next_batch():
            self._rate(batch)

    def _next_batch(self) -> list[Item]:
        """The oldest images with an equal ``asked``; empty if the service is closed and the queue is empty."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            deadline = time.monotonic() + self.wait_seconds
            while len(self._queue) < self.max_batch and not self._closed:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            return self._take()

    def _take(self) -> list[Item]:
        batch: list[Item] = []
        others: list[Item] = []
        pixels = 0
        while self._queue and len(batch) < self.max_batch:
            item = self._queue.popleft()
            if batch and item.order.asked != batch[0].order.asked:
                others.append(item)
                continue
            pixels += self._pixels_of(item)
            if batch and pixels > BATCH_PIXELS:
                others.append(item)
                break
            batch.append(item)
        self._queue.extendleft(reversed(others))
        return batch

    def _pixels_of(self, item: Item) -> int:
        return self._pixels(item.order.images[item.place])

    def _rate(self, batch: list[Item]) -> None:
        started = time.monotonic()
        try:
            images = [item.order.images[item.place] for item in batch]
            results = self._score(images, batch[0].order.asked)
            answers = list(zip(batch, results, strict=True))
        except Exception:  # whatever it is, the callers must be told and the thread must survive
            _log.exception("scoring %d images failed", len(batch))
            self._fail(batch, ScoringFailed())
        else:
            self._deliver(answers)
        self._settle(len(batch), time.monotonic() - started)

    def _deliver(self, answers: list[tuple[Item, Any]]) -> None:
        for item, result in answers:
            order = item.order
            order.results[item.place] = result
            order.missing -= 1
            if not order.missing and not order.future.done():
                order.future.set_result(order.results)

    def _fail(self, batch: list[Item], error: Exception) -> None:
        for item in batch:
            item.order.missing -= 1
            if not item.order.future.done():
                item.order.future.set_exception(error)

    def _settle(self, images: int, seconds: float) -> None:
        with self._changed:
            self._pending -= images
            rate = images / max(seconds, 1e-6)
            past = self._images_per_second or rate
            self._images_per_second = _RATE_MEMORY * past + (1 - _RATE_MEMORY) * rate
        self._observe(images, seconds)
