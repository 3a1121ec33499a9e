"""What an engine is: images and prompts in, the five words' log-probabilities out.

Everything that scores goes through the three small types here. To add an engine, copy ``example.py``, write its class's
``rate`` and ``describe``, and add a line to ``ENGINES``; nothing else has to change.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from saiqa.facts import WORDS

if TYPE_CHECKING:
    from PIL import Image

    from saiqa.model.pixels import PixelBounds, Preprocessing

ENGINES = {
    "prefill": "saiqa.engines.prefill_engine:PrefillEngine",
    "swift": "saiqa.engines.swift_engine:SwiftEngine",
    "vllm": "saiqa.engines.vllm_engine:VllmEngine",
}

DTYPES = ("auto", "float32", "bfloat16", "int8")  # int8 works only with the prefill engine

# How long OpenMP's threads spin while they wait for each other, about 0.15 ms instead of 15 ms; read when torch is imported.
# They share the cores with other programs, and a spinning thread can keep the one that it waits for from running.
_TURNS_AWAKE = 3000


@dataclass(frozen=True)
class Request:
    """One question about one image.

    Attributes:
        image: a path, a file in memory, or a picture.
        prompt: the user turn; ``<image>`` marks the position of the picture (by default the beginning).
        answer_prefix: the answer up to the space before the rating word, without that space.
    """

    image: str | Path | io.BytesIO | Image.Image
    prompt: str
    answer_prefix: str


@dataclass(frozen=True)
class Rating:
    """An engine's answer.

    Attributes:
        logprobs: rating word -> natural log of its probability over the whole vocabulary, all five words present.
        text: the generated text, if the engine generates.
        notes: what was decided while decoding the picture (``decoding.Decoded.notes``).
        look: the picture's features (``looks.looks_of``), if the engine provides them.
    """

    logprobs: dict[str, float]
    text: str | None = None
    notes: tuple[str, ...] = ()
    look: tuple[float, ...] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Failure:
    """A request without a rating, and the reason in one line. Never turned into a number."""

    reason: str


# By how much the sum of five probabilities may exceed one, because of rounding in float32 and bfloat16.
_SUM_TOLERANCE = 1e-3


def checked_rating(
    logprobs: Sequence[float],
    text: str | None = None,
    notes: tuple[str, ...] = (),
    look: tuple[float, ...] | None = None,
) -> Rating | Failure:
    """The rating for five log-probabilities in the order of ``WORDS``, or a ``Failure`` if they are invalid.

    Every engine's numbers pass through here.
    """
    if len(logprobs) != len(WORDS) or not all(map(math.isfinite, logprobs)):
        return Failure("the model's answer is not a number: its weights or the picture's features overflow")
    total = sum(map(math.exp, (min(value, 1.0) for value in logprobs)))
    if total > 1 + _SUM_TOLERANCE:
        return Failure(f"the five words' probabilities sum to {total:.3g}")
    return Rating(dict(zip(WORDS, logprobs, strict=True)), text, notes, look)


class Engine(Protocol):
    """Rates requests; holds one loaded checkpoint."""

    name: str

    def rate(self, requests: Sequence[Request]) -> list[Rating | Failure]:
        """Answer every request, in order. A bad image fails alone; scores do not depend on batch order or size."""
        ...

    def describe(self) -> dict:
        """Everything a result depends on (engine, dtype, device, pixels, system prompt, versions), as plain JSON values."""
        ...


def describe_input(system: str, bounds: PixelBounds, preprocessing: Preprocessing, upright: bool) -> dict:
    """The model's input other than the question, as it appears in ``Engine.describe`` and in a run's identity."""
    shown = {**asdict(bounds), "preprocessing": preprocessing.describe(), "upright": upright}
    return {"system": system or None, **shown}


def load_engine(name: str, model_path: str | Path, **options: object) -> Engine:
    """Import and construct one engine of ``ENGINES``.

    Args:
        name: a key of ``ENGINES``, or "module:Class".
        model_path: a checkpoint folder in the released format.
        options: ``device`` ("auto", "cpu", "cuda", "cuda:1"), ``dtype`` (one of ``DTYPES``), ``batch_size`` (at most this many
            images per pass), ``system`` (system prompt; None for the checkpoint's own, "" for none), ``bounds``
            (``PixelBounds``; None for the checkpoint's), ``upright`` (turn images as their EXIF orientation says), ``compile``
            (prefill and vllm engines), ``trust_remote_code`` (swift engine only).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", str(_TURNS_AWAKE))
    module, _, cls = ENGINES.get(name, name).partition(":")
    with contextlib.redirect_stdout(sys.stderr):  # libraries log to the stdout present at import; ours is for results
        return getattr(importlib.import_module(module), cls)(model_path, **options)
