"""What an engine is: images and prompts in, the five words' log-probabilities out.

Everything that scores goes through the three small types here. To add an engine, copy the smallest file beside this one,
give its class a ``rate`` method and a line in ``ENGINES``; nothing else needs to know.
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

DTYPES = ("auto", "float32", "bfloat16", "int8")  # that an engine takes; int8 is the prefill engine's alone

# How long OpenMP's threads wait awake for each other, about 0.15 ms instead of 15 ms; read when torch is imported. They share
# the cores with other programs, and a thread that waits awake for one that is not running keeps it from running.
_TURNS_AWAKE = 3000


@dataclass(frozen=True)
class Request:
    """One question about one image.

    Attributes:
        image: a file, one in memory, or a picture.
        prompt: the user turn; ``<image>`` marks where the picture stands (in front when it is absent).
        answer_prefix: the answer up to, and without, the blank before the rating word.
    """

    image: str | Path | io.BytesIO | Image.Image
    prompt: str
    answer_prefix: str


@dataclass(frozen=True)
class Rating:
    """An engine's answer.

    Attributes:
        logprobs: rating word -> natural log of its probability among the whole vocabulary, all five words present.
        text: what the model wrote, where the engine let it write.
        notes: what was decided about the picture (``decoding.Decoded.notes``).
        look: what the picture looks like to the model (``looks.looks_of``), where the engine can tell.
    """

    logprobs: dict[str, float]
    text: str | None = None
    notes: tuple[str, ...] = ()
    look: tuple[float, ...] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Failure:
    """A request without a rating, and why in one line. Never turned into a number."""

    reason: str


# How far the sum of five probabilities may be above one: float32 and bfloat16 round.
_SUM_TOLERANCE = 1e-3


def checked_rating(
    logprobs: Sequence[float],
    text: str | None = None,
    notes: tuple[str, ...] = (),
    look: tuple[float, ...] | None = None,
) -> Rating | Failure:
    """The rating of five log-probabilities in the order of ``WORDS``; a ``Failure`` where they can be none.

    Every engine's numbers come through here.
    """
    if len(logprobs) != len(WORDS) or not all(map(math.isfinite, logprobs)):
        return Failure("the model's answer is no number: its weights or the picture's features overflow")
    total = sum(map(math.exp, (min(value, 1.0) for value in logprobs)))
    if total > 1 + _SUM_TOLERANCE:
        return Failure(f"the five words' probabilities sum to {total:.3g}")
    return Rating(dict(zip(WORDS, logprobs, strict=True)), text, notes, look)


class Engine(Protocol):
    """Rates requests; holds one loaded checkpoint."""

    name: str

    def rate(self, requests: Sequence[Request]) -> list[Rating | Failure]:
        """Answer every request, in order. One bad image fails alone; the order and the size of a batch change no score."""
        ...

    def describe(self) -> dict:
        """What a result depends on (engine, dtype, device, pixels, system prompt, library versions), as plain JSON values."""
        ...


def describe_input(system: str, bounds: PixelBounds, preprocessing: Preprocessing, upright: bool) -> dict:
    """What the model is shown and told beside the question, as ``Engine.describe`` and a run's identity have it."""
    shown = {**asdict(bounds), "preprocessing": preprocessing.describe(), "upright": upright}
    return {"system": system or None, **shown}


def load_engine(name: str, model_path: str | Path, **options: object) -> Engine:
    """Import and construct one engine of ``ENGINES``.

    Args:
        name: a key of ``ENGINES``, or "module:Class".
        model_path: a checkpoint folder in the released format.
        options: ``device`` ("auto", "cpu", "cuda", "cuda:1"), ``dtype`` (one of ``DTYPES``), ``batch_size`` (most images a
            model pass), ``system`` (system prompt; None for the checkpoint's own, "" for none), ``bounds`` (``PixelBounds``;
            None for the checkpoint's), ``upright`` (turn images as their EXIF orientation says), ``compile`` (prefill and
            vllm engines), ``trust_remote_code`` (swift engine only).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", str(_TURNS_AWAKE))
    module, _, cls = ENGINES.get(name, name).partition(":")
    with contextlib.redirect_stdout(sys.stderr):  # libraries log to the stdout they find when imported; ours is for results
        return getattr(importlib.import_module(module), cls)(model_path, **options)
