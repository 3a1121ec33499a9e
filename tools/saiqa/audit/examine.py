"""The audit: a few dozen modified pictures show whether a checkpoint works as a scorer at all.

Scores must be repeatable and independent of batch and order; small changes must move them little; degradations must lower the
right dimension, more so at higher strength; a picture of no room must score low; the dimensions must differ; the word
distributions must be unimodal; and the scores must not be constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from saiqa.audit import changes, ratings, weights
from saiqa.audit.check import Check
from saiqa.calibration import prompt_digest
from saiqa.scorer import Scorer

_TOLERANCE = {"float32": 1e-3}  # for log-probabilities that should be equal
_WIDE_TOLERANCE = 0.15  # in bfloat16 and int8, whose products depend on the batch size
_LEAST_KNOWN = 0.5  # probability that the next word is one of the five
_LEAST_UNIMODAL = 0.9  # share of the distributions
_LEAST_DEVIATION = 0.1  # standard deviation between pictures, in points
_MOST_ALIKE = 0.98  # correlation of two dimensions
_MOST_NOISE = 0.5  # change of a score by small changes, root mean square, in points
_LEAST_FALL = 0.5  # points by which a picture of nothing must score below rooms


@dataclass(frozen=True)
class Audit:
    """The checks, and the modified pictures with their scores, for a page.

    Attributes:
        checks: the checks, in the order in which they were made.
        detectable: dimension -> smallest difference of two scores above the noise of small changes (95%), in points.
        shown: (what was done, picture, dimension -> score) for one room.
    """

    checks: list[Check]
    detectable: dict[str, float]
    shown: list[tuple[str, Image.Image, dict[str, float]]]

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]


class Examination:
    """One audit of a scorer on a few rooms [pictures]."""

    def __init__(self, scorer: Scorer, rooms: Sequence[Image.Image]):
        self.scorer, self.rooms = scorer, list(rooms)
        self.base = ratings.rate(scorer, self.rooms)
        self.shown: list[tuple[str, Image.Image, dict[str, float]]] = []
        self._show("as it is", self.rooms[0], self.base)

    def run(self) -> Audit:
        """Make all checks. Raises ``Failed`` if a picture has no rating."""
        checkpoint = self.scorer.model.checkpoint
        asked = {name: prompt_digest(one.query, one.before) for name, one in self.scorer.sentences.items()}
        checks = [weights.dead_weights(checkpoint), weights.merged(checkpoint), weights.trained_prompt(checkpoint, asked)]
        checks += [self._repeatable(), self._independent(), self._knows_words()]
        noise, small = self._small_changes()
        harmed = {name: self._harmed(name, harm) for name, harm in changes.HARMS.items()}
        everything = np.concatenate([self.base, *(logprobs for found in harmed.values() for logprobs in found)])
        checks += [self._ordered(everything), self._varies(everything), self._apart(everything), small]
        checks += [self._falls(name, changes.HARMS[name], found, noise) for name, found in harmed.items()]
        checks += [self._no_room(name, picture) for name, picture in changes.no_rooms(self.rooms[0].size).items()]
        detectable = dict(zip(self.scorer.dimensions, (1.96 * np.sqrt(2) * noise).tolist(), strict=True))
        return Audit(checks, detectable, self.shown)

    # ---- the same again ---------------------------------------------------------------------------------------------

    def _repeatable(self) -> Check:
        difference = float(abs(ratings.rate(self.scorer, self.rooms) - self.base).max())
        return Check("repeatable", difference <= 1e-5, f"the same pictures again: log-probabilities within {difference:.1e}")

    def _independent(self) -> Check:
        backwards = ratings.rate(self.scorer, self.rooms[::-1])[::-1]
        alone = np.concatenate([ratings.rate(self.scorer, [room]) for room in self.rooms])
        difference = float(max(abs(backwards - self.base).max(), abs(alone - self.base).max()))
        tolerance = _TOLERANCE.get(self.scorer.engine.describe()["dtype"], _WIDE_TOLERANCE)
        said = f"in another order and one by one: log-probabilities within {difference:.1e}"
        return Check("batch and order", difference <= tolerance, said)

    # ---- the distributions ------------------------------------------------------------------------------------------

    def _knows_words(self) -> Check:
        known = np.exp(self.base).sum(-1).mean(0)
        worst = int(known.argmin())
        said = f"the next word is one of the five with probability of at least {known[worst]:.3f}, on average"
        return Check("answers", bool(known[worst] >= _LEAST_KNOWN), f"{said} ({self.scorer.dimensions[worst]})")

    def _ordered(self, everything: ratings.Array) -> Check:
        share = ratings.unimodal(everything).mean(0)
        worst = int(share.argmin())
        said = f"of {len(everything)} distributions per dimension at least {share[worst]:.0%} have one peak"
        return Check("order of the words", bool(share[worst] >= _LEAST_UNIMODAL), f"{said} ({self.scorer.dimensions[worst]})")

    def _varies(self, everything: ratings.Array) -> Check:
        deviation = ratings.scores(everything).std(0)
        worst = int(deviation.argmin())
        said = f"scores differ by at least {deviation[worst]:.2f} points ({self.scorer.dimensions[worst]})"
        return Check("no constant", bool(deviation[worst] >= _LEAST_DEVIATION), said)

    def _apart(self, everything: ratings.Array) -> Check:
        scores = ratings.scores(everything)
        if scores.std(0).min() == 0:
            return Check("dimensions", False, "a dimension is the same for every picture")
        alike = np.corrcoef(scores.T) - np.eye(len(self.scorer.dimensions))
        first, second = np.unravel_index(alike.argmax(), alike.shape)
        names = f"{self.scorer.dimensions[first]} and {self.scorer.dimensions[second]}"
        return Check("dimensions", bool(alike.max() < _MOST_ALIKE), f"most similar: {names}, correlation {alike.max():.2f}")

    # ---- changed pictures -------------------------------------------------------------------------------------------

    def _changed(self, said: str, pictures: list[Image.Image]) -> ratings.Array:
        logprobs = ratings.rate(self.scorer, pictures)
        self._show(said, pictures[0], logprobs)
        return logprobs

    def _show(self, said: str, picture: Image.Image, logprobs: ratings.Array) -> None:
        found = dict(zip(self.scorer.dimensions, ratings.scores(logprobs)[0].tolist(), strict=True))
        self.shown.append((said, picture, found))

    def _small_changes(self) -> tuple[ratings.Array, Check]:
        before = ratings.scores(self.base)
        moved = [
            ratings.scores(self._changed(name, [change(room) for room in self.rooms])) - before
            for name, change in changes.SMALL.items()
        ]
        noise = np.sqrt((np.stack(moved) ** 2).mean((0, 1)))
        worst = int(noise.argmax())
        said = f"{', '.join(changes.SMALL)} move a score by at most {noise[worst]:.2f} points ({self.scorer.dimensions[worst]})"
        return noise, Check("small changes", bool(noise[worst] <= _MOST_NOISE), said)

    def _harmed(self, name: str, harm: changes.Harm) -> list[ratings.Array]:
        return [
            self._changed(f"{name} {strength:g}", [harm.apply(room, strength) for room in self.rooms])
            for strength in harm.strengths
        ]

    def _falls(self, name: str, harm: changes.Harm, harmed: Sequence[ratings.Array], noise: ratings.Array) -> Check:
        places = [self.scorer.dimensions.index(dimension) for dimension in harm.lowers if dimension in self.scorer.dimensions]
        means = np.stack([ratings.scores(logprobs).mean(0) for logprobs in (self.base, *harmed)])
        fall = means[0] - means[-1]
        falls = [place for place in places if (np.diff(means[:, place]) < 0).all() and fall[place] > noise[place]]
        best = max(falls or places, key=lambda place: fall[place])
        said = " -> ".join(f"{value:.2f}" for value in means[:, best])
        return Check(name, bool(falls), f"{self.scorer.dimensions[best]} {said}")

    def _no_room(self, name: str, picture: Image.Image) -> Check:
        overall = float(ratings.scores(self._changed(name, [picture])).mean())
        rooms = float(ratings.scores(self.base).mean())
        return Check(f"a picture of {name}", overall < rooms - _LEAST_FALL, f"{overall:.2f} overall, rooms {rooms:.2f}")
