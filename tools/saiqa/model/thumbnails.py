"""Thumbnails for pages and notebooks, as JPEGs, and data URLs that load them without a network."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from saiqa.files import folders
from saiqa.files.places import Fetched, Place, RemotePath

if TYPE_CHECKING:
    from PIL import Image

_QUALITY = 85


def of_file(file: Place, side: int) -> bytes | str:
    """A JPEG of an image file, upright, at most ``side`` pixels on its longer side; or why there is none."""
    from PIL import ImageOps

    from saiqa.model.decoding import IMAGE_ERRORS, decode, open_image

    try:
        with open_image(Fetched(file) if isinstance(file, RemotePath) else file) as image:
            if image.draft("RGB", (2 * side, 2 * side)):  # a large JPEG, decoded at reduced size
                return of_picture(ImageOps.exif_transpose(image), side)
            return of_picture(decode(image, upright=True).image, side)
    except FileNotFoundError:
        return f"{folders.shown(file)} is not there"
    except IMAGE_ERRORS as error:
        return f"cannot read {folders.shown(file)}: {error}"


def of_picture(image: Image.Image, side: int) -> bytes:
    """A JPEG of a picture, which is not changed."""
    small = image.convert("RGB")  # a copy
    small.thumbnail((side, side))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()


def address(jpeg: bytes) -> str:
    """A data URL for a JPEG embedded in a page."""
    return data_address("image/jpeg", jpeg)


def data_address(kind: str, content: bytes) -> str:
    """A data URL for content of a MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
