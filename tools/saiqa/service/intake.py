"""From the body of a request to pictures whose headers have been read: what is refused, and with which status.

A whole request is refused (``Refused``) if it exceeds a limit or cannot be understood. A picture that cannot be read does not
cause that: it gets its own error. Nothing is decoded here, so no header can cause large allocations.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from PIL import Image
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from saiqa import facts
from saiqa.model.decoding import IMAGE_ERRORS, open_image, unreadable
from saiqa.service.messages import NAME_CHARACTERS, NamedImage, ScoreRequest, explained, only_these, readable

if TYPE_CHECKING:
    from starlette.types import Message, Receive

MEGA = 1_000_000

TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
UNUSABLE = HTTPStatus.UNPROCESSABLE_ENTITY

_JSON = "application/json"
TEXT_FIELDS = 16  # more than a form with dimensions can have
_MARKS_AN_IMAGE = 3 * NAME_CHARACTERS + 8  # brackets and commas of JSON per image, including those in its name


class Refused(Exception):
    """A request that is refused as a whole.

    Attributes:
        status: 413 if a limit is exceeded, 422 if the body is not understood, 404 for another model.
        detail: what is wrong and what to do, for the client.
    """

    def __init__(self, status: int, detail: str):
        super().__init__(status, detail)
        self.status, self.detail = int(status), detail


@dataclass(frozen=True)
class Limits:
    """Limits of one request."""

    request_bytes: int
    images: int
    pixels: int


@dataclass(frozen=True)
class Picture:
    """One image of a request: its file, whose header has been read, or an error."""

    name: str
    image: bytes | None
    pixels: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Question:
    """A parsed request: its pictures and the dimensions asked for."""

    pictures: list[Picture]
    dimensions: tuple[str, ...]


async def read_question(request: Request, limits: Limits, hold: Callable[[int], None]) -> Question:
    """Read and validate a request's body.

    Args:
        hold: called with the number of bytes as they arrive; it may raise to stop reading.

    Raises:
        Refused: 413 for too many bytes, images or pixels; 422 for a body of another type, without images, or with
            unknown dimensions.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    request = Request(request.scope, _limited(request.receive, limits, hold))
    if kind == "multipart/form-data":
        named, dimensions = await _read_form(request, limits)
    elif kind == _JSON:
        named, dimensions = await run_in_threadpool(_read_images, await request.body(), limits)
    else:
        raise Refused(UNUSABLE, "Send multipart/form-data with files named `images`, or application/json")
    if not named:
        raise Refused(UNUSABLE, "There are no images. Send files named `images`, or a list `images` in JSON")
    asked = _dimensions(dimensions)
    return Question(await run_in_threadpool(_open_all, named, limits), asked)


async def read_json(request: Request, limits: Limits, hold: Callable[[int], None], marks: int) -> object:
    """The JSON in a request's body, with at most ``marks`` brackets and commas; otherwise as ``read_question``."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
        raise Refused(UNUSABLE, f"Send {_JSON}")
    request = Request(request.scope, _limited(request.receive, limits, hold))
    return await run_in_threadpool(_parsed, await request.body(), marks)


def check_length(request: Request, limits: Limits) -> None:
    """Refuse a request by its Content-Length, before anything is read."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limits.request_bytes:
        raise _too_many_bytes(limits)


def _too_many_bytes(limits: Limits) -> Refused:
    return Refused(TOO_LARGE, f"A request may have at most {limits.request_bytes / MEGA:g} MB. Send fewer images at a time")


def _too_many_images(limits: Limits) -> Refused:
    return Refused(TOO_LARGE, f"A request may have at most {limits.images} images. Send the rest in another request")


def _limited(receive: Receive, limits: Limits, hold: Callable[[int], None]) -> Receive:
    """``receive`` that refuses bytes beyond the limit, whatever the announced length."""
    received = 0

    async def counting() -> Message:
        nonlocal received
        message = await receive()
        arrived = len(message.get("body", b""))
        hold(arrived)
        received += arrived
        if received > limits.request_bytes:
            raise _too_many_bytes(limits)
        return message

    return counting


# ---- the two kinds of body -------------------------------------------------------------------------------------------

Named = list[tuple[str, bytes | None]]  # None if the text was not base64


class _FormParser(MultiPartParser):
    """Starlette's parser, which drops a truncated part; this one also records whether the form was complete."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


async def _read_form(request: Request, limits: Limits) -> tuple[Named, list[str]]:
    # One more than allowed, so that the count below reports a small excess and a large one stops the parser.
    parser = _FormParser(request.headers, request.stream(), max_files=limits.images + 1, max_fields=TEXT_FIELDS)
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, LookupError, ValueError) as error:  # LookupError, ValueError: unknown charsets
        if str(getattr(error, "message", "")).startswith("Too many files"):
            raise _too_many_images(limits) from None
        raise Refused(UNUSABLE, f"The form cannot be read: {error}") from None
    try:
        if not parser.ended:
            raise Refused(UNUSABLE, "The form cannot be read: it is cut off")
        unknown = sorted(set(form) - set(ScoreRequest.model_fields))
        if unknown:
            raise Refused(UNUSABLE, only_these("Fields", unknown))
        uploads = form.getlist("images")
        if len(uploads) > limits.images:
            raise _too_many_images(limits)
        files = [upload for upload in uploads if isinstance(upload, UploadFile)]
        if len(files) < len(uploads):
            raise Refused(UNUSABLE, "`images` must be files with file names; with curl: -F images=@FILE")
        texts = form.getlist("dimensions")
        written = [text for text in texts if isinstance(text, str)]
        if len(written) < len(texts):
            raise Refused(UNUSABLE, "`dimensions` must be names, not files")
        names = [name for text in written for name in text.replace(",", " ").split() or [text]]
        named: Named = [(upload.filename or "", await upload.read()) for upload in files]
        return named, names
    finally:
        await form.close()


def _parsed(body: bytes, marks: int) -> object:
    # Every bracket and comma creates objects, up to millions for the largest body; pictures in base64 contain none.
    if sum(map(body.count, (b"[", b"{", b","))) > marks:
        raise Refused(UNUSABLE, "The JSON has too many parts: pictures must be base64 strings")
    try:
        return json.loads(body, object_pairs_hook=lambda pairs: {readable(key): one for key, one in pairs})
    except (ValueError, RecursionError):
        raise Refused(UNUSABLE, "The body is not JSON") from None


def _read_images(body: bytes, limits: Limits) -> tuple[Named, list[str]]:
    value = _parsed(body, limits.images * _MARKS_AN_IMAGE)
    try:
        asked = ScoreRequest.model_validate(value)
    except ValidationError as error:
        raise Refused(UNUSABLE, explained(error, value)) from None
    if len(asked.images) > limits.images:
        raise _too_many_images(limits)
    return [_json_image(image) for image in asked.images], asked.dimensions or []


def _json_image(image: str | NamedImage) -> tuple[str, bytes | None]:
    named = NamedImage(data=image) if isinstance(image, str) else image
    try:
        return named.name, base64.b64decode(named.data, validate=True)
    except (binascii.Error, ValueError):
        return named.name, None


def _dimensions(names: Sequence[str]) -> tuple[str, ...]:
    """The dimensions in their usual order; all if none is named."""
    unknown = sorted(set(names) - set(facts.DIMENSIONS))
    if unknown:
        raise Refused(UNUSABLE, f"Dimensions are {', '.join(facts.DIMENSIONS)}, not {', '.join(unknown)[:NAME_CHARACTERS]}")
    return tuple(name for name in facts.DIMENSIONS if not names or name in names)


# ---- headers ---------------------------------------------------------------------------------------------------------


def _open_all(named: Named, limits: Limits) -> list[Picture]:
    return [
        open_picture(readable(name[:NAME_CHARACTERS]) or f"image {n}", data, limits) for n, (name, data) in enumerate(named, 1)
    ]


def open_picture(name: str, data: bytes | None, limits: Limits) -> Picture:
    """A picture whose header has been read, or why it cannot be. ``data`` is None if it was not base64.

    Raises:
        Refused: it has too many pixels according to its header.
    """
    if data is None:
        return Picture(name, None, error="cannot read the image: its data is not base64")
    try:
        image = open_image(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise _too_many_pixels(name, limits) from None
    except IMAGE_ERRORS as error:
        return Picture(name, None, error=unreadable(error))
    if image.width * image.height > limits.pixels:
        raise _too_many_pixels(name, limits)
    return Picture(name, data, image.width * image.height)


def _too_many_pixels(name: str, limits: Limits) -> Refused:
    return Refused(TOO_LARGE, f"{name}: an image may have at most {limits.pixels / MEGA:g} megapixels. Send a smaller one")
