"""A map drawn over its picture: red where the score is lowered, stronger where it is lowered more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from saiqa.files.text_files import atomic_writer
from saiqa.image_map import ImageMap
from saiqa.model import thumbnails
from saiqa.model.decoding import decode, open_image

RED = (220, 20, 30)
STRONGEST = 0.6  # opacity of the red where the map is highest
FULL = 0.05  # points; a lower maximum is drawn fainter, so that a good room does not look like a bad one
WEAKEST = 0.005  # points; below this nothing is drawn
EDGE = 2  # pixels of the frame around the region that lowers the score most


def overlay(picture: Image.Image, found: ImageMap) -> Image.Image:
    """The RGB picture with the map over it. The region that lowers the score most, if any does, is framed."""
    values = np.clip(np.array(found.map, np.float32), 0, None)
    highest = float(values.max())
    if highest < WEAKEST:
        return picture.convert("RGB")
    share = Image.fromarray(values / highest).resize(picture.size, Image.Resampling.BICUBIC)
    alpha = np.clip(np.asarray(share), 0, 1) * STRONGEST * min(1.0, highest / FULL) * 255
    drawn = Image.composite(
        Image.new("RGB", picture.size, RED), picture.convert("RGB"), Image.fromarray(alpha.astype(np.uint8), "L")
    )
    left, top, right, bottom = found.box(*picture.size)
    ImageDraw.Draw(drawn).rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=RED, width=EDGE)
    return drawn


def write(path: Path, image: str, upright: bool, found: ImageMap) -> None:
    """Write the overlay of an image file as PNG, completely or not at all. Raises ``Failed``."""
    drawn = _of_file(image, upright, found)
    with atomic_writer(path) as file:
        drawn.save(file.buffer, "PNG")  # type: ignore[attr-defined]


def thumbnail(image: str, upright: bool, found: ImageMap, side: int) -> bytes:
    """The overlay of an image file as a small JPEG, at most ``side`` pixels on its longer side."""
    return thumbnails.of_picture(_of_file(image, upright, found), side)


def _of_file(image: str, upright: bool, found: ImageMap) -> Image.Image:
    with open_image(image) as opened:
        return overlay(decode(opened, upright).image, found)
