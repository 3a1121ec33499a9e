"""Images as programs hand them over (paths, URLs, bytes, arrays, PIL images), as engines take them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from saiqa.engines import Failure
from saiqa.files import places

if TYPE_CHECKING:
    import numpy
    from PIL import Image

    from saiqa.files.places import Place

    ImageLike = str | os.PathLike | bytes | Image.Image | numpy.ndarray


def request_image(image: ImageLike, at_once: bool) -> str | Place | io.BytesIO | Image.Image | Failure:
    """What ``rate.rate`` takes, or why a file cannot be read. Raises as ``Scorer.score``.

    Args:
        at_once: read a file now and not when its turn comes, because another picture may take its place.
    """
    from PIL import Image

    if isinstance(image, str) and places.is_url(image):
        return places.place(image)
    if isinstance(image, str | os.PathLike):
        return _from_file(image) if at_once else image if isinstance(image, str) else Path(image)
    if isinstance(image, Image.Image):
        return image.copy() if at_once and getattr(image, "fp", None) is None else image
    if isinstance(image, bytes | bytearray | memoryview):
        return io.BytesIO(image)
    if hasattr(image, "__array_interface__"):
        return from_array(image)
    raise TypeError(f"{type(image).__name__} is no image: give paths, PIL images, bytes or arrays")


def _from_file(path: str | os.PathLike) -> io.BytesIO | Failure:
    from saiqa.model.decoding import unreadable

    try:
        return io.BytesIO(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        return Failure(unreadable(error))


def from_array(array: numpy.ndarray) -> Image.Image:
    """The picture in an array [height, width, 3] uint8 RGB. Raises ``ValueError`` for any other."""
    from PIL import Image

    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != "uint8" or 0 in array.shape:
        what = f"{list(array.shape)} {array.dtype}"
        raise ValueError(f"an array must be [height, width, 3] uint8 RGB, not {what}")
    return Image.fromarray(array.copy())
