"""The scores of one image, as a Python object."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saiqa import facts, scoring
from saiqa.engines import Failure, Rating
from saiqa.overall import overall_score

ENDS = ("low", "high")  # of an interval
_GOOD, _FAIR, _WEAK = 4, 3.5, 2.5  # at least, below, at most
_FALL = 0.75  # a dimension that pulls a picture down lies more than so many points below the mean of the rest
_THUMBNAIL = 160  # longer side, in pixels


@dataclass(frozen=True)
class ImageScore:
    """The scores of one image.

    Attributes:
        name: the path as given; for an image without a path its number, e.g. ``image 3``.
        scores: dimension -> score from 1 (bad) to 5 (excellent); only the dimensions that have one.
        probabilities: dimension -> word -> probability of that word among the five; they sum to 1.
        overall: the weighted mean of the dimensions asked for; None unless every one of them has a score.
        error: why a score is missing; None if none is.
        notes: what was done to the picture before it was scored, e.g. that its transparent parts were put over white.
        intervals: dimension -> (low, high) that contains the MOS with probability ``CONFIDENCE``; only with a calibration.
    """

    name: str
    scores: dict[str, float]
    probabilities: dict[str, dict[str, float]]
    overall: float | None
    error: str | None
    notes: tuple[str, ...] = ()
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, flat: image, dimensions, overall, error, notes, and low and high if there are any."""
        bounds = {f"{name}_{end}": at for name, both in self.intervals.items() for end, at in zip(ENDS, both, strict=True)}
        scores = {name: self.scores.get(name) for name in facts.DIMENSIONS if name in self.scores or self.error}
        noted = {"error": self.error, "notes": list(self.notes)}
        return {"image": self.name, **scores, "overall": self.overall, **bounds, **noted, "probabilities": self.probabilities}

    def _repr_html_(self) -> str:
        """For notebooks: a thumbnail if the name is a file, and a bar for every score."""
        return as_html(self.name, {**self.scores, "overall": self.overall}, self.error)


def image_score(name: str, answers: Mapping[str, Rating | Failure], weights: Mapping[str, float] | None = None) -> ImageScore:
    """The result of one image, from an engine's answers per dimension."""
    probabilities, scores, reasons = {}, {}, {}
    for dimension, answer in answers.items():
        if isinstance(answer, Failure):
            reasons[dimension] = answer.reason
            continue
        try:
            probabilities[dimension] = scoring.probabilities(answer.logprobs)
            scores[dimension] = scoring.score_of(answer.logprobs)
        except scoring.ScoringError as error:
            reasons[dimension] = str(error)
    overall = None if reasons else overall_score(scores, weights)
    notes = dict.fromkeys(note for answer in answers.values() if isinstance(answer, Rating) for note in answer.notes)
    return ImageScore(name, scores, probabilities, overall, _error(reasons, len(answers)), tuple(notes))


def _error(reasons: Mapping[str, str], asked: int) -> str | None:
    """One line; a reason shared by all dimensions appears once."""
    if len(reasons) == asked and len(set(reasons.values())) == 1:
        return next(iter(reasons.values()))
    return "; ".join(f"{dimension}: {reason}" for dimension, reason in reasons.items()) or None


def verdict(scores: Mapping[str, float]) -> str:
    """The scores of one picture in words: which one or two dimensions pull it down. Empty for fewer than two scores."""
    ranked = sorted(scores, key=lambda name: scores[name])
    if len(ranked) < 2:
        return ""
    for count in (2, 1):
        low, rest = ranked[:count], [scores[name] for name in ranked[count:]]
        highest = scores[low[-1]]
        if len(rest) >= count and highest < _FAIR and sum(rest) / len(rest) - highest > _FALL:
            names = " and ".join(name for name in scores if name in low)
            return f"{names} {'is' if count == 1 else 'are'} what {'pulls' if count == 1 else 'pull'} it down"
    if scores[ranked[0]] >= _GOOD:
        return "good throughout"
    return "weak throughout" if scores[ranked[-1]] <= _WEAK else "no dimension stands out"


# ---- for notebooks ---------------------------------------------------------------------------------------------------


def as_html(name: str, scores: Mapping[str, float | None], error: str | None) -> str:
    """A thumbnail beside a bar for every score, as self-contained HTML."""
    rows = "".join(_bar(label, score) for label, score in scores.items() if score is not None)
    said = f"<p>{html.escape(error)}</p>" if error else ""
    return (
        f'<div style="display:flex;gap:1em;align-items:center">{_thumbnail(name)}'
        f"<div><strong>{html.escape(name)}</strong><table>{rows}</table>{said}</div></div>"
    )


def _bar(label: str, score: float) -> str:
    share = 100 * (score - 1) / 4
    title = html.escape(facts.MEANINGS.get(label, ""))
    bar = f'<div style="width:10em;background:#8883"><div style="width:{share:.0f}%;background:#2b6ca3">&nbsp;</div></div>'
    return f'<tr title="{title}"><td>{html.escape(label)}</td><td>{bar}</td><td>{score:.2f}</td></tr>'


def _thumbnail(name: str) -> str:
    from saiqa.model import thumbnails

    small = thumbnails.of_file(Path(name), _THUMBNAIL) if os.path.isfile(name) else ""
    return f'<img alt="" src="{thumbnails.address(small)}">' if isinstance(small, bytes) else ""
