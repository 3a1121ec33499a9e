"""The smallest engine, to copy: it rates a picture by its brightness and knows nothing of rooms. No command offers it.

``saiqa.engines`` defines an engine's input, output and obligations; a line in ``ENGINES`` adds it to ``--engine``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import ImageStat

from saiqa.engines import Failure, Rating, Request, checked_rating, describe_input
from saiqa.engines.loading import read_image
from saiqa.model.decoding import IMAGE_ERRORS, unreadable
from saiqa.model.pixels import PixelBounds, Preprocessing
from saiqa.prompts import system_prompt


class ExampleEngine:
    """Mean brightness as a distribution over the five words, the brighter the better."""

    name = "example"

    def __init__(
        self,
        model_path: str | Path,
        *,
        system: str | None = None,
        bounds: PixelBounds | None = None,
        upright: bool = False,
        **options: object,
    ):
        self.upright = upright
        self._told = (system_prompt(model_path, system), bounds or PixelBounds.of_checkpoint(model_path))
        self._preprocessing = Preprocessing.of_checkpoint(model_path)

    def describe(self) -> dict:
        shown = describe_input(*self._told, self._preprocessing, self.upright)
        return {"engine": self.name, "dtype": "float32", "device": "cpu", **shown}

    def rate(self, requests: Sequence[Request]) -> list[Rating | Failure]:
        return [self._rate(request) for request in requests]

    def _rate(self, request: Request) -> Rating | Failure:
        try:
            picture = read_image(request.image, self.upright)
        except IMAGE_ERRORS as error:
            return Failure(unreadable(error))
        level = 5 * ImageStat.Stat(picture.image.convert("L")).mean[0] / 255  # 0 dark .. 5 bright
        weights = [math.exp(-abs(level - value)) for value in (5, 4, 3, 2, 1)]  # excellent .. bad
        return checked_rating([math.log(weight / sum(weights)) for weight in weights], notes=picture.notes)
