"""What a score means among others: how many of a set of scored pictures lie below it. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """A set of scored pictures.

    Attributes:
        name: what people call it.
        scores: dimension or ``overall`` -> scores, ascending.
        checked: whether it is known to be of the checkpoint in use.
    """

    name: str
    scores: Mapping[str, Sequence[float]]
    checked: bool

    @property
    def n(self) -> int:
        """Scores of the dimension that has the fewest."""
        return min(map(len, self.scores.values()))

    def percentile(self, name: str, score: float) -> float:
        """How many in a hundred of the set are lower; of equal ones half."""
        scores = self.scores[name]
        return 50 * (bisect.bisect_left(scores, score) + bisect.bisect_right(scores, score)) / len(scores)
