"""How a picture becomes the vision tower's input pixels: bounds, sizes, filter and scale. Imports no torch.

Bounds and preprocessing come from the checkpoint: ``config.json`` and ``preprocessor_config.json`` beside its weights. No
filter, scale, mean or standard deviation is hard-coded here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saiqa.errors import InputError
from saiqa.files.checkpoint_files import CONFIG_FILE, PREPROCESSOR_FILE, read_config, read_object
from saiqa.numbers import is_finite

if TYPE_CHECKING:
    import numpy
    from PIL import Image

# The released model's bounds, unless checkpoint or user set others.
MIN_PIXELS = 448 * 448
MAX_PIXELS = 1344 * 1792
MAX_ASPECT_RATIO = 200

_BOUND_VARIABLES = {"min_pixels": "MIN_PIXELS", "max_pixels": "MAX_PIXELS"}  # ms-swift's
_MOST_PIXELS = 2**28
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # indexed by Pillow's numbers
_STEPS_DONE = ("do_resize", "do_rescale", "do_normalize")
_STEPS_UNKNOWN = ("do_center_crop", "do_pad")


# ---- bounds ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PixelBounds:
    """Bounds on the number of pixels of an image at the input of the vision tower."""

    min_pixels: int = MIN_PIXELS
    max_pixels: int = MAX_PIXELS

    @classmethod
    def of(cls, config: object, min_pixels: int | None = None, max_pixels: int | None = None) -> PixelBounds:
        """The given bounds, else the MIN_PIXELS / MAX_PIXELS environment variables, else the checkpoint's, else the defaults.

        Args:
            config: a checkpoint's configuration, which may have ``min_pixels`` and ``max_pixels``.

        Raises:
            InputError: a bound is not a whole number from 1 to 2**28.
        """
        given = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        return cls(**{name: _bound(name, given[name], getattr(config, name, None)) for name in given})

    @classmethod
    def of_checkpoint(cls, folder: str | Path, min_pixels: int | None = None, max_pixels: int | None = None) -> PixelBounds:
        """As ``of``, for the checkpoint in a folder; only its config.json is read."""
        config = read_config(Path(folder))
        return cls.of(_Trained(config.get("min_pixels"), config.get("max_pixels")), min_pixels, max_pixels)


@dataclass(frozen=True)
class _Trained:
    """The bounds in a config.json."""

    min_pixels: object
    max_pixels: object


def _bound(name: str, given: int | None, trained: object) -> int:
    variable = _BOUND_VARIABLES[name]
    candidates = ((name, given), (variable, os.environ.get(variable) or None), (f"{name} of {CONFIG_FILE}", trained))
    for source, value in candidates:
        if value is not None:
            return _checked_bound(source, value)
    return getattr(PixelBounds, name)


def _checked_bound(source: str, value: object) -> int:
    try:
        pixels = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else 0
    except ValueError:
        pixels = 0
    if not 1 <= pixels <= _MOST_PIXELS:
        raise InputError(f"{source} is {str(value)[:40]!r}", f"Give a whole number of pixels from 1 to {_MOST_PIXELS}")
    return pixels


# ---- filter, scale, mean, std ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preprocessing:
    """Resizing and scaling as defined in ``preprocessor_config.json``.

    Attributes:
        resample: Pillow's number for the filter.
        rescale_factor: factor for the values 0 to 255.
        mean, std: per channel; subtracted, then divided by, after rescaling.
        file: the whole file, to be passed on with the weights.
    """

    resample: int
    rescale_factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    file: Mapping = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of_checkpoint(cls, folder: str | Path) -> Preprocessing:
        """The preprocessing of the checkpoint in a folder. Raises ``InputError`` as ``of``, and if the file is missing."""
        path = Path(folder) / PREPROCESSOR_FILE
        return cls.of(read_object(path), str(path))

    @classmethod
    def of(cls, file: Mapping, source: str = PREPROCESSOR_FILE) -> Preprocessing:
        """The preprocessing that the content of a ``preprocessor_config.json`` describes.

        Raises:
            InputError: a step or a value is missing, broken, or not supported.
        """
        for name in _STEPS_DONE:
            if file.get(name, True) is not True:
                raise _not_understood(source, name, file[name], "true")
        for name in _STEPS_UNKNOWN:
            if file.get(name):
                raise _not_understood(source, name, file[name], "false")
        resample: Any = file.get("resample")
        factor: Any = file.get("rescale_factor")
        if type(resample) is not int or not 0 <= resample < len(_FILTERS):
            raise _not_understood(source, "resample", resample, f"a filter from 0 to {len(_FILTERS) - 1}")
        if not is_finite(factor) or factor <= 0:
            raise _not_understood(source, "rescale_factor", factor, "a positive number")
        mean, std = (_channels(source, name, file.get(name)) for name in ("image_mean", "image_std"))
        if min(std) <= 0:
            raise _not_understood(source, "image_std", list(std), "three positive numbers")
        return cls(resample, float(factor), mean, std, dict(file))

    @property
    def filter(self) -> str:
        """The name of the filter."""
        return _FILTERS[self.resample]

    def describe(self) -> dict:
        """Everything that the pixels depend on, as plain JSON values."""
        values = asdict(self)
        del values["file"]
        return {**values, "resample": self.filter, "mean": list(self.mean), "std": list(self.std)}

    def pixels(self, image: Image.Image, height: int, width: int) -> numpy.ndarray:
        """The RGB image resized and scaled: [height, width, 3] float32."""
        import numpy

        pixels = numpy.array(image.resize((width, height), self.resample), dtype=numpy.float32)
        pixels /= 1 / self.rescale_factor  # the file says 1/255; dividing by 255 has less rounding error than multiplying
        pixels -= numpy.array(self.mean, dtype=numpy.float32)
        pixels /= numpy.array(self.std, dtype=numpy.float32)
        return pixels


def _channels(source: str, name: str, value: object) -> tuple[float, float, float]:
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(is_finite, value)):
        raise _not_understood(source, name, value, "three numbers")
    first, second, third = map(float, value)
    return first, second, third


def _not_understood(source: str, name: str, value: object, wanted: str) -> InputError:
    return InputError(f"{source}: {name} is {str(value)[:60]}, not {wanted}", "Use the base model's file")


# ---- sizes -----------------------------------------------------------------------------------------------------------


def resized_size(height: int, width: int, bounds: PixelBounds, factor: int = 32) -> tuple[int, int]:
    """Height and width, multiples of ``factor`` pixels, to which an image of this size is resized for the tower."""
    if min(height, width) < factor:
        # A very thin image keeps its aspect ratio, however long it is.
        scale = factor / min(height, width)
        height, width = max(factor, round(height * scale)), max(factor, round(width * scale))
    elif max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        if height > width:
            height = MAX_ASPECT_RATIO * width
        else:
            width = MAX_ASPECT_RATIO * height
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > bounds.max_pixels:
        scale = math.sqrt(height * width / bounds.max_pixels)
        rows, columns = (max(factor, math.floor(side / scale / factor) * factor) for side in (height, width))
    elif rows * columns < bounds.min_pixels:
        scale = math.sqrt(bounds.min_pixels / (height * width))
        rows, columns = (math.ceil(side * scale / factor) * factor for side in (height, width))
    return rows, columns


def _first_shrink(height: int, width: int, max_pixels: int) -> tuple[int, int]:
    """ms-swift downscales a large image once before the tower's own resize; the released scores include that step."""
    if height * width <= max_pixels:
        return height, width
    ratio = width / height
    scaled = math.sqrt(max_pixels / ratio)
    return max(1, int(scaled)), max(1, int(scaled * ratio))


def visual_grid(height: int, width: int, bounds: PixelBounds, patch_size: int = 16, stride: int = 2) -> tuple[int, int]:
    """Rows and columns of patches for an image of this size in pixels, without decoding it."""
    rows, columns = resized_size(*_first_shrink(height, width, bounds.max_pixels), bounds, patch_size * stride)
    return rows // patch_size, columns // patch_size


def shrink(image: Image.Image, bounds: PixelBounds) -> Image.Image:
    """The RGB image after the first of the two resizes (always bilinear, as in ms-swift, whatever the tower's filter)."""
    from PIL import Image

    height, width = _first_shrink(image.height, image.width, bounds.max_pixels)
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def resized_picture(image: Image.Image, bounds: PixelBounds, preprocessing: Preprocessing, factor: int = 32) -> Image.Image:
    """The RGB image after both resizes, for programs that scale it and cut it into patches themselves."""
    image = shrink(image, bounds)
    height, width = resized_size(image.height, image.width, bounds, factor)
    return image.resize((width, height), preprocessing.resample)
