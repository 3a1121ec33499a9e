"""The benchmarks' inputs: generated pictures, and questions about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from checkpoints import SEED
from saiqa import facts
from saiqa.engines import Request


def size_of(text: str) -> tuple[int, int]:
    """Width and height, written ``WxH``."""
    width, height = map(int, text.split("x"))
    return width, height


def make_images(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """``count`` different JPEGs of ``size`` (width, height) pixels: smooth colour with some noise, as in photographs."""
    width, height = size
    paths = []
    for number in range(count):
        rng = np.random.default_rng([SEED, width, height, number])
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(smooth + rng.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)
        paths.append(folder / f"{width}x{height}_{number}.jpg")
        Image.fromarray(noisy).save(paths[-1], quality=92)
    return paths


def questions(images: Sequence[Path], dimensions: Iterable[str]) -> list[Request]:
    """Prompt 4, in this project's words, about every image; dimension by dimension, as in the release."""
    return [Request(image, facts.query(d), facts.answer_prefix(d)) for d in dimensions for image in images]


def cases(images: Sequence[Path], batch_sizes: Sequence[int], least: int) -> Iterator[tuple[list[str], int, list[Request]]]:
    """(dimensions, batch size, requests) for one and for all dimensions; about ``least`` images, or a batch if larger."""
    for dimensions in (["lighting"], list(facts.DIMENSIONS)):
        for batch_size in batch_sizes:
            yield dimensions, batch_size, questions(images[: max(least, batch_size)], dimensions)
