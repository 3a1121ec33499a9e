"""Changes to a picture: small ones that should not change a score, and degradations that should lower a dimension."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Change = Callable[[Image.Image], Image.Image]


class Harm(NamedTuple):
    """A degradation of a picture.

    Attributes:
        lowers: dimensions, at least one of which must fall.
        strengths: the strengths for ``apply``, ascending.
    """

    lowers: tuple[str, ...]
    strengths: tuple[float, ...]
    apply: Callable[[Image.Image, float], Image.Image]


def jpeg(image: Image.Image, quality: int = 90) -> Image.Image:
    """The picture after JPEG compression."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def crop(image: Image.Image, share: float = 0.02) -> Image.Image:
    """The picture with its margins cropped by this total share of width and height."""
    x, y = (round(side * share / 2) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


def resize(image: Image.Image, share: float = 0.9) -> Image.Image:
    """The picture downscaled to this share of its width and height."""
    width, height = (max(1, round(side * share)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


SMALL: dict[str, Change] = {"flip": ImageOps.mirror, "jpeg 90": jpeg, "crop 2%": crop, "resize 90%": resize}


# ---- degradations ----------------------------------------------------------------------------------------------------


def darken(image: Image.Image, strength: float) -> Image.Image:
    """Less light: 1 is black."""
    return ImageEnhance.Brightness(image).enhance(1 - strength)


def blur(image: Image.Image, strength: float) -> Image.Image:
    """A Gaussian blur whose radius is this share of the shorter side."""
    return image.filter(ImageFilter.GaussianBlur(strength * min(image.size)))


def warp(image: Image.Image, strength: float) -> Image.Image:
    """Waves with an amplitude of this share of the width, four per side."""
    import numpy

    pixels = numpy.asarray(image)
    height, width = pixels.shape[:2]
    rows, columns = numpy.mgrid[0:height, 0:width]
    shift = strength * width
    x = columns + shift * numpy.sin(8 * numpy.pi * rows / height)
    y = rows + shift * numpy.sin(8 * numpy.pi * columns / width)
    return Image.fromarray(pixels[y.round().clip(0, height - 1).astype(int), x.round().clip(0, width - 1).astype(int)])


def tint(image: Image.Image, strength: float) -> Image.Image:
    """A sickly green tint."""
    return Image.blend(image, Image.merge("RGB", _green(image)), strength)


def _green(image: Image.Image) -> tuple[Image.Image, Image.Image, Image.Image]:
    red, green, blue = image.split()
    return red.point(lambda value: value * 0.35), green, blue.point(lambda value: value * 0.25)


def clutter(image: Image.Image, strength: float) -> Image.Image:
    """Rotated pieces of the picture itself, scattered over its lower two thirds: ten at a strength of 1."""
    drawn = random.Random(7)  # the same positions in every picture
    cluttered = image.copy()
    width, height = image.width // 4, image.height // 4
    for _ in range(round(10 * strength)):
        x, y = drawn.randrange(image.width - width), drawn.randrange(image.height // 3, image.height - height)
        piece = image.crop((x, y, x + width, y + height)).rotate(drawn.choice((90, 180, 270)), expand=True)
        place = (drawn.randrange(image.width - piece.width), drawn.randrange(image.height // 3, image.height - piece.height))
        cluttered.paste(piece, place)
    return cluttered


HARMS = {
    "darkening": Harm(("lighting",), (0.5, 0.8), darken),
    "blur": Harm(("distortion",), (0.008, 0.025), blur),
    "warp": Harm(("distortion",), (0.008, 0.025), warp),
    "tint": Harm(("lighting", "harmony"), (0.4, 0.9), tint),
    "clutter": Harm(("layout",), (0.4, 1.0), clutter),
}


def no_rooms(size: tuple[int, int]) -> dict[str, Image.Image]:
    """Pictures without any content."""
    import numpy

    noise = numpy.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), dtype=numpy.uint8)
    return {"black": Image.new("RGB", size), "noise": Image.fromarray(noise)}
