"""Converts images as programs pass them (paths, URLs, bytes, arrays, PIL images) to what engines take."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from saiqa.engines import Failure
from saiqa.files import places

if TYPE_CHECKING:
    import numpy
    from PIL import Image

    from saiqa.files.places import Place

    OneImage = str | os.PathLike | bytes | BinaryIO | Image.Image | numpy.ndarray  # and tensors
    ImageLike = OneImage | Any

_ROUNDING = 1e-2  # floats may exceed 0 and 1 by this much, as generators in half precision do


class NotNumbers(ValueError):
    """A picture with NaN in it, as a diverged generator produces."""


def request_image(image: ImageLike, at_once: bool) -> str | Place | io.BytesIO | Image.Image | Failure:
    """The image as ``rate.rate`` takes it, or why a file cannot be read. Raises as ``Scorer.score``.

    Args:
        at_once: read a file now rather than when its turn comes, because it may be overwritten in the meantime.
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
    if is_tensor(image):
        return from_tensor(image)
    if hasattr(image, "__array_interface__"):
        return from_array(image)  # type: ignore[arg-type]
    if hasattr(image, "read"):
        return io.BytesIO(image.read())
    raise TypeError(f"{type(image).__name__} is not an image: give paths, PIL images, bytes, open files, arrays or tensors")


def _from_file(path: str | os.PathLike) -> io.BytesIO | Failure:
    from saiqa.model.decoding import unreadable

    try:
        return io.BytesIO(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        return Failure(unreadable(error))


def from_array(array: numpy.ndarray) -> Image.Image:
    """The picture in an array [height, width, 3] RGB or [height, width] grey, uint8 or float from 0 to 1.

    Raises:
        ValueError: any other array; ``NotNumbers`` if it contains NaN.
    """
    from PIL import Image

    what = f"{list(array.shape)} {array.dtype}"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or 0 in array.shape:
        raise ValueError(f"an array must be [height, width, 3] RGB or [height, width] grey, not {what}")
    if array.dtype.kind == "f":
        array = _bytes_of(array)
    if array.dtype != "uint8":
        raise ValueError(f"an array must be uint8, or float from 0 to 1, not {what}")
    return Image.fromarray(array.copy()).convert("RGB")


def _bytes_of(array: numpy.ndarray) -> numpy.ndarray:
    """Floats from 0 to 1 as uint8. Raises as ``from_array``."""
    low, high = float(array.min()), float(array.max())
    if math.isnan(low):
        raise NotNumbers("its pixels are not all numbers")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(f"the floats of an array or tensor must lie between 0 and 1; these range from {low:g} to {high:g}")
    return (array * 255).round().clip(0, 255).astype("uint8")


def is_tensor(image: object) -> bool:
    """Whether this is a torch tensor; works without importing torch."""
    return hasattr(image, "detach") and hasattr(image, "ndim")  # open files have ``detach``, too


def from_tensor(tensor: Any) -> Image.Image:
    """The picture in a tensor [3, height, width] or [1, height, width]. Raises as ``from_array``."""
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ValueError(f"a tensor must be [3, height, width], not {list(tensor.shape)}")
    values = tensor.detach().cpu()
    return from_array((values.float() if values.is_floating_point() else values).numpy().transpose(1, 2, 0))


def is_one(images: object) -> bool:
    """Whether this is a single image rather than several."""
    if isinstance(images, str | bytes | bytearray | memoryview | os.PathLike) or hasattr(images, "convert"):
        return True
    return hasattr(images, "read") or getattr(images, "ndim", None) in (2, 3)


def name_of(image: object) -> str:
    """The file name of an image, if it has one; else empty."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image) if isinstance(image, str) else str(image)
    name = getattr(image, "filename", None) or getattr(image, "name", None)
    return name if isinstance(name, str) else ""
