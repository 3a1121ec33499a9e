"""Calibrated intervals: each contains the mean opinion score with a stated probability. ``calibrate.py`` fits them.

The interval is conformal (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005), with normalised residuals
(Lei and others, 2018), and fitted separately for low and high scores and for each end (Mondrian, in the same book). If a
picture is exchangeable with the calibration pictures, the interval has the stated coverage of the MOS, however good or bad the
model is. Pure except for reading the file.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saiqa.errors import InputError
from saiqa.facts import WORD_VALUES
from saiqa.files import folders

CONFIDENCE = 0.9
SHARE_FLAGGED = 0.01  # of pictures that are similar to the calibration pictures
UNLIKE = "the like was not among the pictures of the calibration"  # logs keep it, and a resumed run compares it
LOWEST, HIGHEST = 1.0, 5.0
_AGAIN = "Make it again with tools/calibrate.py"


def prompt_digest(query: str, answer_prefix: str) -> str:
    """SHA-256 digest of a dimension's prompt: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps([query, answer_prefix]).encode()).hexdigest()


def spread(probabilities: Mapping[str, float]) -> float:
    """Standard deviation of the word distribution, in points on the scale."""
    mean = sum(WORD_VALUES[word] * p for word, p in probabilities.items())
    return math.sqrt(max(0.0, sum((WORD_VALUES[word] - mean) ** 2 * p for word, p in probabilities.items())))


@dataclass(frozen=True)
class Fit:
    """The calibration of one dimension.

    Attributes:
        n: number of pictures it was fitted on.
        slope, intercept: of the regression of the mean opinion score on the score.
        size: expected error, in points, per point of ``spread``.
        least: lower bound of the expected error, in points.
        edges: the scores that separate the groups of low and high scores, ascending, [groups - 1].
        residuals: MOS minus the regression line, divided by the expected error, ascending, [groups, pictures].
        prompt: digest of the prompt.
    """

    n: int
    slope: float
    intercept: float
    size: float
    least: float
    edges: tuple[float, ...]
    residuals: tuple[tuple[float, ...], ...]
    prompt: str

    def mean(self, score: float) -> float:
        """The mean opinion score that a score corresponds to."""
        return _on_scale(self.intercept + self.slope * score)

    def error(self, probabilities: Mapping[str, float]) -> float:
        """The expected absolute difference from the mean opinion score, in points."""
        return max(self.least, self.size * spread(probabilities))

    def interval(self, score: float, probabilities: Mapping[str, float], confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Low and high end; the MOS lies outside each equally often.

        Uses the calibration pictures with similar scores; all of them if those are too few for the confidence; and the whole
        scale if all are still too few.
        """
        middle, error = self.intercept + self.slope * score, self.error(probabilities)
        known = self.residuals[bisect.bisect_right(self.edges, score)]
        if _place(known, confidence) > len(known):
            known = tuple(sorted(one for group in self.residuals for one in group))
        place = _place(known, confidence)
        if place > len(known):
            return LOWEST, HIGHEST
        return _on_scale(middle + known[-place] * error), _on_scale(middle + known[place - 1] * error)


def _place(residuals: Sequence[float], confidence: float) -> int:
    """The 1-based rank of the residual that gives the upper end; above their number if they are too few."""
    return math.ceil((len(residuals) + 1) * (1 + confidence) / 2)


def _on_scale(value: float) -> float:
    return min(HIGHEST, max(LOWEST, value))


@dataclass(frozen=True)
class Familiar:
    """What the calibration pictures look like to the model.

    Attributes:
        n: number of pictures it was fitted on.
        mean: mean of their features (``looks.looks_of``).
        whitening: whitening matrix for differences from the mean, as the rows of a lower triangle.
        furthest: the distance beyond which a picture is unlike them.
    """

    n: int
    mean: tuple[float, ...]
    whitening: tuple[tuple[float, ...], ...]
    furthest: float

    def distance(self, look: Sequence[float]) -> float:
        """How far a picture is from the calibration pictures: the Mahalanobis distance."""
        off = [one - usual for one, usual in zip(look, self.mean, strict=True)]
        return math.hypot(*(sum(map(operator.mul, row, off)) for row in self.whitening))  # each row up to its diagonal

    def knows(self, look: Sequence[float]) -> bool:
        """Whether the picture is like the calibration pictures."""
        return self.distance(look) <= self.furthest


def is_of_another_kind(flagged: int, pictures: int) -> bool:
    """Whether the whole set differs: at least two are flagged, more than three standard deviations above chance."""
    expected = pictures * SHARE_FLAGGED
    return flagged >= 2 and flagged > expected + 3 * math.sqrt(expected * (1 - SHARE_FLAGGED))


@dataclass(frozen=True)
class Calibration:
    """The fits of the dimensions, and the checkpoint and engine whose scores they calibrate.

    Attributes:
        familiar: what the calibration pictures look like; None if that was not fitted.
    """

    model: str
    engine: str
    dimensions: Mapping[str, Fit]
    familiar: Familiar | None = None

    def check(self, model: str, engine: str, prompts: Mapping[str, str]) -> None:
        """Refuse scores that this calibration does not apply to.

        Args:
            model: fingerprint of the checkpoint.
            prompts: dimension -> digest of its prompt.

        Raises:
            InputError: another checkpoint, engine or prompt, or a dimension without a fit.
        """
        for what, ours, theirs in (("checkpoint", self.model, model), ("engine", self.engine, engine)):
            if ours != theirs:
                raise InputError(f"the calibration is for another {what} ({ours[:12]}, not {theirs[:12]})", _AGAIN)
        for dimension, digest in prompts.items():
            if dimension not in self.dimensions:
                raise InputError(f"the calibration has no {dimension}", _AGAIN)
            if self.dimensions[dimension].prompt != digest:
                raise InputError(f"the calibration is for another {dimension} prompt", _AGAIN)

    def intervals(
        self, scores: Mapping[str, float], probabilities: Mapping[str, Mapping[str, float]], confidence: float = CONFIDENCE
    ) -> dict[str, tuple[float, float]]:
        """Low and high end for every dimension that has a score, a word distribution and a fit."""
        known = (name for name in scores if name in self.dimensions and name in probabilities)
        return {name: self.dimensions[name].interval(scores[name], probabilities[name], confidence) for name in known}

    def to_json(self) -> dict[str, Any]:
        """As plain values, in the format that ``read`` reads."""
        return asdict(self)


def read(path: Path) -> Calibration:
    """Read a file written by ``calibrate.py``. Raises ``InputError`` if it is missing or broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        fits = {name: _fit(fit) for name, fit in value["dimensions"].items()}
        return Calibration(str(value["model"]), str(value["engine"]), fits, _familiar(value.get("familiar")))
    except FileNotFoundError:
        raise InputError(f"{folders.shown(path)} is not there", "Make it with tools/calibrate.py") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{folders.shown(path)} is not a calibration: {error}", _AGAIN) from None


def _familiar(value: Mapping[str, Any] | None) -> Familiar | None:
    if value is None:
        return None
    mean, furthest = tuple(map(float, value["mean"])), float(value["furthest"])
    whitening = tuple(tuple(map(float, row)) for row in value["whitening"])
    if [len(row) for row in whitening] != list(range(1, len(mean) + 1)):
        raise ValueError("its whitening is not a lower triangle")
    if not all(map(math.isfinite, (*mean, furthest, *(number for row in whitening for number in row)))):
        raise ValueError("its numbers are not finite")
    return Familiar(int(value["n"]), mean, whitening, furthest)


def _fit(value: Mapping[str, Any]) -> Fit:
    edges, *groups = (tuple(map(float, row)) for row in (value["edges"], *value["residuals"]))
    numbers = [float(value[name]) for name in ("slope", "intercept", "size", "least")]
    every = [one for row in (edges, *groups) for one in row]
    if not all(map(math.isfinite, (*every, *numbers))) or any(list(row) != sorted(row) for row in (edges, *groups)):
        raise ValueError("its numbers are not finite or not ascending")
    if len(groups) != len(edges) + 1:
        raise ValueError(f"{len(groups)} groups of scores with {len(edges)} edges between them")
    n = sum(map(len, groups))
    if n != value["n"]:
        raise ValueError(f"{n} residuals for {value['n']} pictures")
    slope, intercept, size, least = numbers
    return Fit(n, slope, intercept, size, least, edges, tuple(groups), str(value["prompt"]))
