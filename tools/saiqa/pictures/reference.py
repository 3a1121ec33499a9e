"""Percentiles: the rank of a score among a reference set of scored pictures. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """A set of scored pictures.

    Attributes:
        name: its name for display.
        scores: dimension or ``overall`` -> scores, ascending.
        checked: whether it is known to have been scored by the checkpoint in use.
    """

    name: str
    scores: Mapping[str, Sequence[float]]
    checked: bool

    @property
    def n(self) -> int:
        """Number of scores in the dimension that has the fewest."""
        return min(map(len, self.scores.values()))

    def percentile(self, name: str, score: float) -> float:
        """The percentage of the set with a lower score; equal scores count half."""
        scores = self.scores[name]
        return 50 * (bisect.bisect_left(scores, score) + bisect.bisect_right(scores, score)) / len(scores)
