"""Scores as rewards for training image generators: ``Reward(...)(images, prompts)``.

The signature is Flow-GRPO's: ``reward(images, prompts, metadata) -> (rewards, info)``; other trainers use a subset of it.
An image without a score gets no reward either: ``Reward`` raises, or returns NaN if told to.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Unpack

from saiqa import facts
from saiqa.errors import Failed
from saiqa.image_score import ImageScore
from saiqa.model.decoding import IMAGE_ERRORS, decode, unreadable
from saiqa.run.given_images import NotNumbers, from_array, from_tensor, is_tensor
from saiqa.service import TOKEN_VARIABLE

if TYPE_CHECKING:
    from saiqa import Scorer
    from saiqa.files.connection import Body, Connection
    from saiqa.run.given_images import ImageLike

SERVICE_VARIABLE = "SAIQA_SERVICE"
MODEL_VARIABLE, DEMO_VARIABLE = "SAIQA_MODEL_PATH", "SAIQA_DEMO"

ON_UNSCORED = ("raise", "nan")

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # Pillow modes that PNG stores unchanged
_SHARE_OF_BODY = 0.95  # for the files; the rest leaves room for what the form adds


class UnscoredError(Failed):
    """Images without a score, and why. No honest reward exists for them."""


class Source(Protocol):
    """Where scores come from: a ``saiqa.Scorer``, or a ``Client`` of a service."""

    def score(self, images: Sequence, dimensions: Sequence[str] | None = None) -> list[ImageScore]: ...


class Options(TypedDict, total=False):
    """What ``Reward.from_environment`` can be told besides; as ``Reward`` has it."""

    token: str | None
    dimensions: Sequence[str] | None
    unscored: str


class Reward:
    """A reward function over pictures of rooms: the overall score, from 1 to 5.

    Args:
        scorer: a ``saiqa.Scorer``, or anything with the same ``score`` method; None with ``service`` or ``base_url``.
        service: address of a running ``serve.py``, e.g. ``http://127.0.0.1:8000``; None with the others.
        base_url: address of a vLLM server that runs the checkpoint, e.g. ``http://127.0.0.1:8000/v1``; None with the others.
        model_path: with ``base_url``, the checkpoint's local folder; by default the environment's ``SAIQA_MODEL_PATH``.
        token: the service's access token; by default the environment's ``SAIQA_TOKEN``.
        dimensions: which of the four count; all if None. The overall score then covers only these.
        unscored: ``raise`` (default) raises ``UnscoredError`` if an image of the batch has no score; ``nan`` gives that image
            NaN, for callers that mask it: an unmasked NaN makes every advantage of its group NaN.

    Raises:
        ValueError: not exactly one of scorer, service and base_url, or an unknown ``unscored`` or dimension.
    """

    def __init__(
        self,
        scorer: Scorer | Source | None = None,
        *,
        service: str | None = None,
        base_url: str | None = None,
        model_path: str | os.PathLike | None = None,
        token: str | None = None,
        dimensions: Sequence[str] | None = None,
        unscored: str = "raise",
    ):
        if [scorer, service, base_url].count(None) != 2 or base_url == "":
            raise ValueError("give exactly one of: a scorer, the address of a service, the base_url of a vLLM server")
        if unscored not in ON_UNSCORED:
            raise ValueError(f"unscored must be one of {', '.join(ON_UNSCORED)}, not {unscored!r}")
        unknown = set(dimensions or ()) - set(facts.DIMENSIONS)
        if isinstance(dimensions, str) or unknown:
            raise ValueError(f"dimensions must be a list out of {', '.join(facts.DIMENSIONS)}, not {dimensions!r}")
        if base_url:
            from saiqa import Scorer

            scorer = Scorer(model_path or os.environ.get(MODEL_VARIABLE), engine="vllm", base_url=base_url)
        self.source: Source = Client(service or "", token=token) if scorer is None else scorer
        self.dimensions = tuple(name for name in facts.DIMENSIONS if not dimensions or name in dimensions)
        self.unscored = unscored
        self._turn = _turn_of(self.source)

    def __getstate__(self) -> dict:
        """Everything but the lock, which belongs to one process."""
        return {name: value for name, value in vars(self).items() if name != "_turn"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._turn = _turn_of(self.source)

    @classmethod
    def from_environment(cls, **options: Unpack[Options]) -> Reward:
        """The reward described by environment variables, for trainers whose configuration has no place for it.

        ``SAIQA_SERVICE`` is the address of a service (with ``SAIQA_TOKEN``). Without it the model is loaded in this process:
        ``SAIQA_MODEL_PATH``, or the demo's with ``SAIQA_DEMO=1``.
        """
        if service := os.environ.get(SERVICE_VARIABLE):
            return cls(service=service, **options)
        from saiqa import Scorer

        demo = os.environ.get(DEMO_VARIABLE, "") not in ("", "0")
        return cls(Scorer(os.environ.get(MODEL_VARIABLE), demo=demo), **options)

    def __call__(
        self, images: Iterable[ImageLike], prompts: Sequence[str] | None = None, metadata: Sequence[Mapping] | None = None
    ) -> tuple[list[float], dict[str, list]]:
        """Reward images.

        Args:
            images: a torch tensor [N, 3, height, width] or an array [N, height, width, 3], float from 0 to 1 or uint8; or a
                list of PIL images, paths, bytes of image files, arrays [height, width, 3] or tensors [3, height, width].
            prompts: ignored: the score judges the picture as a room, not how well it follows a prompt.
            metadata: ignored.

        Returns:
            The rewards, one float per image in order, and the parts: dimension -> one score per image, ``overall`` (the
            rewards again) and ``errors`` (None, or why an image has no score).

        Raises:
            UnscoredError: an image has no score, and ``unscored`` is ``raise``.
            ValueError: images of another shape, type or range.
            Failed: the service does not answer.
        """
        pictures = [_picture(image) for image in images]
        asked = [picture for picture in pictures if not isinstance(picture, ImageScore)]
        with self._turn:
            answers = iter(self.source.score(asked, self.dimensions) if asked else ())
        scores = [picture if isinstance(picture, ImageScore) else next(answers) for picture in pictures]
        failed = [(n, score.error) for n, score in enumerate(scores) if score.overall is None]
        if failed and self.unscored == "raise":
            listed = "; ".join(f"image {n}: {reason}" for n, reason in failed[:5])
            what = f"{len(failed)} of {len(scores)} images have no score ({listed})"
            raise UnscoredError(what, 'Leave them out, or mask them with unscored="nan"')
        rewards = [math.nan if score.overall is None else score.overall for score in scores]
        parts = {name: [score.scores.get(name, math.nan) for score in scores] for name in self.dimensions}
        return rewards, {**parts, "overall": list(rewards), "errors": [score.error for score in scores]}


# ---- pictures --------------------------------------------------------------------------------------------------------


def _without_score(reason: str) -> ImageScore:
    return ImageScore("", {}, {}, None, reason)


def _picture(image: ImageLike) -> ImageLike | ImageScore:
    """An image as ``Scorer.score`` takes it: a tensor becomes a picture; one with NaN has no score."""
    if not is_tensor(image):
        return image
    try:
        return from_tensor(image)
    except NotNumbers as error:
        return _without_score(str(error))


def _file_bytes(image: Any) -> bytes:
    """An image as the bytes of a file; pixels are encoded as PNG, which is lossless. Raises one of ``IMAGE_ERRORS``."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    buffer = io.BytesIO()
    whole = image if image.mode in _PNG_MODES else decode(image, upright=False).image
    whole.save(buffer, format="PNG", compress_level=1, exif=image.getexif())
    return buffer.getvalue()


# ---- through the service ---------------------------------------------------------------------------------------------


def _turn_of(source: Source) -> contextlib.AbstractContextManager:
    """Trainers call from several threads: a local model needs a lock, a service has its own queue."""
    return contextlib.nullcontext() if isinstance(source, Client) else threading.Lock()


class Client:
    """Scores through a service, with ``Scorer.score``'s signature. Safe to use from several threads.

    Args:
        service: its address.
        token: its access token; by default the environment's ``SAIQA_TOKEN``.
        timeout_seconds: how long to retry while the service is busy or restarting, and the longest wait for one answer.
    """

    def __init__(self, service: str, *, token: str | None = None, timeout_seconds: float = 600):
        if not service.startswith(("http://", "https://")):
            raise ValueError(f"the address of a service must start with http:// or https://, not {service!r}")
        self.service, self.timeout_seconds = service, timeout_seconds
        self._token = token or os.environ.get(TOKEN_VARIABLE)
        self._limits: dict[str, int] = {}
        self._connection = self._connected()

    def _connected(self) -> Connection:
        from saiqa.files.connection import Connection

        return Connection(self.service, self._token, self.timeout_seconds, busy=(503,), starts_with="tools/serve.py")

    def __getstate__(self) -> dict:
        """Everything but the connections, which belong to one process."""
        return {name: value for name, value in vars(self).items() if name != "_connection"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._connection = self._connected()

    def score(self, images: Sequence[ImageLike], dimensions: Sequence[str] | None = None) -> list[ImageScore]:
        """Score images, in as many requests as the service's limits require.

        Raises:
            InputError: the service rejects the request.
            Failed: the service cannot be reached, or stays busy for longer than ``timeout_seconds``.
        """
        self._limits = self._limits or self._send("GET", "/health")
        files = [_file_or_reason(image) for image in images]
        sent = [file for file in files if isinstance(file, bytes)]
        answers = iter(self._score_files(sent, list(dimensions or ())))
        results = [next(answers) if isinstance(file, bytes) else _without_score(file) for file in files]
        return [replace(result, name=f"image {n}") for n, result in enumerate(results, 1)]

    def _score_files(self, files: Sequence[bytes], dimensions: list[str]) -> Iterator[ImageScore]:
        most_bytes = int(self._limits["max_request_bytes"] * _SHARE_OF_BODY)
        for chunk in _chunks(files, self._limits["max_images"], most_bytes):
            form: Body = {"files": [("images", ("image", file)) for file in chunk], "data": {"dimensions": dimensions}}
            results = self._send("POST", "/score", **form)["results"]
            yield from (_as_sent(result) for result in results)

    def _send(self, method: str, path: str, **body: Unpack[Body]) -> dict[str, Any]:
        """The answer as JSON; retries while the service is busy or unreachable."""
        answer = self._connection.send(method, path, **body)
        if not answer.is_success:
            raise self._connection.refusal(answer, TOKEN_VARIABLE, "Change the request")
        return answer.json()


def _as_sent(result: dict) -> ImageScore:
    """A result of a service, which may have fields that this version does not know."""
    known = {field.name: result[field.name] for field in fields(ImageScore) if field.name in result}
    unsure = f"the service is not sure of {', '.join(result['unsure'])}" if result.get("unsure") else None
    return ImageScore(**{**known, "error": known["error"] or unsure, "notes": tuple(result.get("notes", ()))})


def _file_or_reason(image: Any) -> bytes | str:
    """The bytes to send, or why there are none. Raises ``ValueError`` for an array that is not a picture."""
    if hasattr(image, "__array_interface__") and not hasattr(image, "convert"):
        image = from_array(image)
    try:
        return _file_bytes(image)
    except IMAGE_ERRORS as error:
        return unreadable(error)


def _chunks(files: Sequence[bytes], most: int, most_bytes: int) -> Iterator[list[bytes]]:
    """The files in order, in lists of at most ``most`` files and ``most_bytes`` bytes; a larger file is a list of its own."""
    chunk: list[bytes] = []
    size = 0
    for file in files:
        if chunk and (len(chunk) == most or size + len(file) > most_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(file)
        size += len(file)
    if chunk:
        yield chunk
