"""Test-time augmentation: a picture as it is, mirrored, and slightly zoomed in; averages the five words' probabilities."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from saiqa.engines import Engine, Failure, Rating, Request

if TYPE_CHECKING:
    from PIL import Image

    from saiqa.model.decoding import Decoded

CHOICES = (1, 2, 4)
_CLOSER = 0.96  # share of height and width that the zoomed view keeps, around the centre
_AT_ONCE = 8  # pictures held decoded


def _mirrored(picture: Image.Image) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.mirror(picture)


def _closer(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    across, down = round(width * (1 - _CLOSER) / 2), round(height * (1 - _CLOSER) / 2)
    return picture.crop((across, down, width - across, height - down))


# In this order: ``views`` takes the first 1, 2 or 4.
_LOOKS: tuple[Callable[[Image.Image], Image.Image], ...] = (
    lambda picture: picture,
    _mirrored,
    _closer,
    lambda picture: _mirrored(_closer(picture)),
)


class Views:
    """An engine that rates several views of a picture with another engine.

    Args:
        engine: the other engine.
        count: one of ``CHOICES``, more than 1.
        upright: whether pictures are turned as their EXIF orientation says.
    """

    def __init__(self, engine: Engine, count: int, upright: bool):
        self.engine, self.looks, self.upright = engine, _LOOKS[:count], upright
        self.name = engine.name

    def describe(self) -> dict:
        """As the engine's, with the number of views."""
        return {**self.engine.describe(), "views": len(self.looks)}

    def rate(self, requests: Sequence[Request]) -> list[Rating | Failure]:
        """As ``Engine.rate``; a request fails if one of its views does."""
        by_picture = [list(group) for _, group in itertools.groupby(requests, key=lambda request: id(request.image))]
        chunks = (by_picture[start : start + _AT_ONCE] for start in range(0, len(by_picture), _AT_ONCE))
        return [answer for chunk in chunks for answer in self._rate(chunk)]

    def _rate(self, groups: Sequence[Sequence[Request]]) -> Iterator[Rating | Failure]:
        opened = [_read(group[0].image, self.upright) for group in groups]
        asked = [
            Request(view, request.prompt, request.answer_prefix)
            for group, picture in zip(groups, opened, strict=True)
            if not isinstance(picture, Failure)
            for view in [look(picture.image) for look in self.looks]
            for request in group
        ]
        answers = iter(self.engine.rate(asked))
        for group, picture in zip(groups, opened, strict=True):
            if isinstance(picture, Failure):
                yield from itertools.repeat(picture, len(group))
                continue
            seen = [list(itertools.islice(answers, len(group))) for _ in self.looks]
            yield from (mean(views, picture.notes) for views in zip(*seen, strict=True))


def _read(image: Any, upright: bool) -> Decoded | Failure:
    """The picture and its notes, or why there is none."""
    from saiqa.engines.loading import read_image
    from saiqa.model.decoding import IMAGE_ERRORS, unreadable

    try:
        return read_image(image, upright)
    except (*IMAGE_ERRORS, MemoryError) as error:
        return Failure(unreadable(error))


def mean(answers: Sequence[Rating | Failure], notes: tuple[str, ...]) -> Rating | Failure:
    """The rating with the mean of the probabilities, or the first failure if there is one."""
    ratings = []
    for answer in answers:
        if isinstance(answer, Failure):
            return answer
        ratings.append(answer)
    first = ratings[0]
    means = {word: _log_mean([rating.logprobs[word] for rating in ratings]) for word in first.logprobs}
    return Rating(means, first.text, notes, first.look)


def _log_mean(logs: Sequence[float]) -> float:
    """The log of the mean of numbers, given their logs; stable also for very small numbers."""
    highest = max(logs)
    return highest + math.log(sum(math.exp(log - highest) for log in logs) / len(logs))
