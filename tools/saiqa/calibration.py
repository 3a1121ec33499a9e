"""How sure a score is: an interval that holds people's mean with a stated probability, as ``calibrate.py`` has fitted it.

The interval is conformal (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; with residuals divided by
an estimate of their size: Lei and others, 2018): where a picture and those of the calibration are drawn alike, it holds the
mean opinion score as often as it says, whatever the model is like. Pure but for reading the file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saiqa.errors import InputError
from saiqa.facts import WORD_VALUES
from saiqa.files import folders

CONFIDENCE = 0.9
LOWEST, HIGHEST = 1.0, 5.0
_AGAIN = "Make it again with tools/calibrate.py"


def prompt_digest(query: str, answer_prefix: str) -> str:
    """What tells a dimension's question from others: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps([query, answer_prefix]).encode()).hexdigest()


def spread(probabilities: Mapping[str, float]) -> float:
    """Standard deviation of the word distribution, in points of the scale."""
    mean = sum(WORD_VALUES[word] * p for word, p in probabilities.items())
    return math.sqrt(max(0.0, sum((WORD_VALUES[word] - mean) ** 2 * p for word, p in probabilities.items())))


@dataclass(frozen=True)
class Fit:
    """The calibration of one dimension.

    Attributes:
        n: pictures it was fitted on.
        slope, intercept: of the mean opinion score over the score.
        size: of an error, in points, for a ``spread`` of one point.
        least: below which no expected size goes.
        residuals: errors divided by their expected size, ascending, [n].
        prompt: digest of the question that was asked.
    """

    n: int
    slope: float
    intercept: float
    size: float
    least: float
    residuals: tuple[float, ...]
    prompt: str

    def mean(self, score: float) -> float:
        """The mean opinion score that a score stands for."""
        return _on_scale(self.intercept + self.slope * score)

    def error(self, probabilities: Mapping[str, float]) -> float:
        """The expected size of the difference to people's mean, in points."""
        return max(self.least, self.size * spread(probabilities))

    def interval(self, score: float, probabilities: Mapping[str, float], confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Low and high; the whole scale where the calibration has too few pictures for the confidence."""
        place = math.ceil((self.n + 1) * confidence)
        if place > self.n:
            return LOWEST, HIGHEST
        half = self.residuals[place - 1] * self.error(probabilities)
        middle = self.intercept + self.slope * score
        return _on_scale(middle - half), _on_scale(middle + half)


def _on_scale(value: float) -> float:
    return min(HIGHEST, max(LOWEST, value))


@dataclass(frozen=True)
class Calibration:
    """The fits of the dimensions, and the checkpoint and engine whose scores they are of."""

    model: str
    engine: str
    dimensions: Mapping[str, Fit]

    def check(self, model: str, engine: str, prompts: Mapping[str, str]) -> None:
        """Refuse scores that this is no calibration of.

        Args:
            model: fingerprint of the checkpoint.
            prompts: dimension -> digest of its question.

        Raises:
            InputError: another checkpoint, engine or question, or a dimension without a fit.
        """
        for what, ours, theirs in (("checkpoint", self.model, model), ("engine", self.engine, engine)):
            if ours != theirs:
                raise InputError(f"the calibration is of another {what} ({ours[:12]}, not {theirs[:12]})", _AGAIN)
        for dimension, digest in prompts.items():
            if dimension not in self.dimensions:
                raise InputError(f"the calibration has no {dimension}", _AGAIN)
            if self.dimensions[dimension].prompt != digest:
                raise InputError(f"the calibration is of another prompt of {dimension}", _AGAIN)

    def intervals(
        self, scores: Mapping[str, float], probabilities: Mapping[str, Mapping[str, float]], confidence: float = CONFIDENCE
    ) -> dict[str, tuple[float, float]]:
        """Low and high of every dimension that has a score, its word distribution and a fit."""
        known = (name for name in scores if name in self.dimensions and name in probabilities)
        return {name: self.dimensions[name].interval(scores[name], probabilities[name], confidence) for name in known}

    def to_json(self) -> dict[str, Any]:
        """As plain values, which ``read`` reads."""
        return asdict(self)


def read(path: Path) -> Calibration:
    """A file of ``calibrate.py``. Raises ``InputError`` for one that is missing or broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        fits = {name: _fit(fit) for name, fit in value["dimensions"].items()}
        return Calibration(str(value["model"]), str(value["engine"]), fits)
    except FileNotFoundError:
        raise InputError(f"{folders.shown(path)} is not there", "Make it with tools/calibrate.py") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{folders.shown(path)} is no calibration: {error}", _AGAIN) from None


def _fit(value: Mapping[str, Any]) -> Fit:
    residuals = tuple(map(float, value["residuals"]))
    numbers = [float(value[name]) for name in ("slope", "intercept", "size", "least")]
    if not all(map(math.isfinite, (*residuals, *numbers))) or list(residuals) != sorted(residuals):
        raise ValueError("its numbers cannot be")
    if len(residuals) != value["n"]:
        raise ValueError(f"{len(residuals)} residuals of {value['n']} pictures")
    slope, intercept, size, least = numbers
    return Fit(len(residuals), slope, intercept, size, least, residuals, str(value["prompt"]))
