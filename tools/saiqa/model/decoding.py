"""From an image file to the RGB picture that is scored: formats, orientation, transparency, bit depth. Imports no torch.

A picture that cannot be converted faithfully to eight bits per channel is refused, never guessed at.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from PIL import Image, UnidentifiedImageError

from saiqa.facts import IMAGE_FORMATS, IMAGE_FORMATS_TEXT
from saiqa.model import jpeg

# What Pillow raises for files that are missing, truncated, not images, or suspiciously large (decompression bombs).
IMAGE_ERRORS = (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError)

OVER_WHITE = "transparent parts are seen over white"
FIRST_FRAME = "the first of several frames is seen"

ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THE_SIDE = (5, 6, 7, 8)  # height and width are swapped

_HEIF = "HEIF"
_HEIF_PACKAGE = "pillow-heif"
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_BRAND = slice(4, 12)  # of a file of the ISO family: "ftyp" and the brand

_JPEGS = ("JPEG", "MPO")
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_MOVING = ("GIF", "PNG", "WEBP", "TIFF", "AVIF", _HEIF)  # a second frame is another picture; in JPEG, a preview


@dataclass(frozen=True)
class Decoded:
    """A picture as it is scored, and what was decided while decoding it.

    Attributes:
        image: RGB, eight bits per channel.
        notes: ``OVER_WHITE`` and ``FIRST_FRAME``, where they apply.
    """

    image: Image.Image
    notes: tuple[str, ...] = ()


def open_image(file: str | os.PathLike | io.BytesIO) -> Image.Image:
    """Read the header of an image file; the picture is not decoded yet.

    Raises:
        one of ``IMAGE_ERRORS``: there is no such file, or its format is not in ``IMAGE_FORMATS``.
    """
    formats = _readable_formats()
    if not isinstance(file, io.BytesIO) and not stat.S_ISREG(os.stat(file).st_mode):
        raise ValueError(f"{_named(file)} is not a regular file")
    try:
        with _damage():
            return Image.open(file, formats=formats)
    except UnidentifiedImageError:
        if _is_heif(file) and _HEIF not in formats:
            raise ValueError(f"HEIC needs {_HEIF_PACKAGE}: pip install {_HEIF_PACKAGE}") from None
        raise ValueError(f"{_named(file)} is not a {IMAGE_FORMATS_TEXT} file") from None


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """Within, any error of a format's decoder becomes one of ``IMAGE_ERRORS``."""
    try:
        yield
    except (*IMAGE_ERRORS, MemoryError):
        raise
    except Exception as error:  # IndexError, KeyError, struct.error: each decoder raises its own
        raise ValueError(f"it is damaged: {str(error) or type(error).__name__}") from error


def _named(file: str | os.PathLike | io.BytesIO) -> str:
    if type(file) is io.BytesIO:
        return "this"
    return repr(file if isinstance(file, io.BytesIO) else os.fspath(file))


def unreadable(error: Exception) -> str:
    """Why an image has no score, from one of ``IMAGE_ERRORS`` or a ``MemoryError``."""
    return f"cannot read the image: {str(error) or type(error).__name__}"


@functools.cache
def _readable_formats() -> list[str]:
    """The formats of ``IMAGE_FORMATS``; HEIC only if its package is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ModuleNotFoundError:
        return [name for name in IMAGE_FORMATS if name != _HEIF]
    register_heif_opener()
    return list(IMAGE_FORMATS)


def _is_heif(file: str | os.PathLike | io.BytesIO) -> bool:
    if isinstance(file, io.BytesIO):
        head = file.getvalue()[: _BRAND.stop]
    else:
        with Path(file).open("rb") as opened:
            head = opened.read(_BRAND.stop)
    return head[_BRAND].startswith(b"ftyp") and head[_BRAND][4:] in _HEIF_BRANDS


# ---- size and orientation --------------------------------------------------------------------------------------------


def size_of(image: Image.Image, upright: bool) -> tuple[int, int]:
    """Height and width in pixels of the picture that ``decode`` would return, from the header."""
    if upright and _orientation(image) in _ON_THE_SIDE:
        return image.width, image.height
    return image.height, image.width


def _orientation(image: Image.Image) -> Any:
    """The EXIF orientation, from 1 to 8; any other value means none."""
    if image.format == "TIFF":  # Pillow itself turns it while loading, and reports the size of the upright picture
        return None
    try:
        return image.getexif().get(ORIENTATION_TAG)
    except Exception:  # metadata may be broken in any way; that must not cost the picture
        return None


# ---- pixels ----------------------------------------------------------------------------------------------------------


def decode(image: Image.Image, upright: bool) -> Decoded:
    """The picture in RGB.

    Of sixteen bits per channel the lower eight are dropped; floats are 0 (black) to 1 (white), or whole numbers up to 255;
    transparent parts become white; of several frames the first is used.

    Args:
        image: an open image, decoded or not.
        upright: turn it as its EXIF orientation says.

    Raises:
        one of ``IMAGE_ERRORS``: the file is broken, or it is undefined which of its values is white.
    """
    turn = _TURNS.get(_orientation(image)) if upright else None
    with _damage():
        notes = [FIRST_FRAME] if image.format in _MOVING and getattr(image, "is_animated", False) else []
    content = _jpeg_content(image)
    if content:
        jpeg.check_before_decoding(content)
    with _damage():
        image.load()
    if content:
        jpeg.check_decoded(image, content)
    rgb = image if image.mode == "RGB" and not image.has_transparency_data else _to_rgb(image, notes)
    return Decoded(rgb if turn is None else rgb.transpose(turn), tuple(notes))


def _jpeg_content(image: Image.Image) -> bytes:
    """The file content of a JPEG that is not decoded yet; empty for any other picture."""
    file = getattr(image, "fp", None)
    if image.format not in _JPEGS or file is None:
        return b""
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    return content


def _to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    shallow = _eight_bits(image)
    if not shallow.has_transparency_data:
        return shallow.convert("RGB")
    with_alpha = shallow.convert("RGBA")
    lowest, highest = with_alpha.getchannel("A").getextrema()
    if highest == 0:
        raise ValueError("it is entirely transparent")
    if lowest == 255:
        return with_alpha.convert("RGB")
    notes.append(OVER_WHITE)
    return Image.alpha_composite(Image.new("RGBA", with_alpha.size, "white"), with_alpha).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """The picture with eight bits per channel; unchanged if it already has them."""
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format == "PNG"):
        return _from_sixteen_bits(image)
    if image.mode == "I":
        raise ValueError("it holds 32-bit integers, and nothing says which value is white")
    return _from_floats(image) if image.mode == "F" else image


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """The higher byte of each value, as Pillow does for 16-bit RGB; one value may be marked as transparent."""
    values = numpy.asarray(image)
    grey = Image.fromarray((values >> 8).astype(numpy.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(numpy.where(values == clear, 0, 255).astype(numpy.uint8)))
    return grey


def _from_floats(image: Image.Image) -> Image.Image:
    values = numpy.asarray(image)
    lowest, highest = float(values.min()), float(values.max())  # NaN if there is one
    if lowest >= 0 and highest <= 1:
        return Image.fromarray(numpy.rint(values * 255).astype(numpy.uint8))
    if lowest >= 0 and highest <= 255 and (values == numpy.rint(values)).all():
        return Image.fromarray(values.astype(numpy.uint8))
    raise ValueError(f"it holds floats from {lowest:g} to {highest:g}; expected are 0 (black) to 1 (white)")
