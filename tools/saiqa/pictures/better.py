"""The probability that one picture is better than another, from the probabilities of their rating words. Pure.

A picture's score is treated as a draw from its distribution over the five words, independent of the other picture's: the
probability that A is better is P(A > B) + P(A = B) / 2. It does not depend on the order of the two:
``better(a, b) == 1 - better(b, a)``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from saiqa.facts import WORDS

_ROUNDING = 1e-3  # by how much the sum of five probabilities may differ from 1


class NoDistribution(ValueError):
    """Five numbers that are not a probability distribution, and why."""


def better(a: Mapping[str, float], b: Mapping[str, float], temperature: float = 1.0) -> float:
    """The probability that A is better than B, 0..1; equal pictures have 0.5.

    Args:
        a, b: word -> probability, all five words.
        temperature: the log-odds are divided by it: above 1 less confident, below 1 more (Guo et al., On Calibration of
            Modern Neural Networks, 2017).

    Raises:
        NoDistribution: a word is missing, a number is not a probability, or they do not sum to 1.
        ValueError: the temperature is not above 0.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"the temperature is {temperature}, not a number above 0")
    # Written so that swapping a and b flips the sign exactly. The words are ordered best first.
    p, q = _distribution(a), _distribution(b)
    wins = math.fsum(p[i] * q[j] for i in range(len(WORDS)) for j in range(i + 1, len(WORDS)))
    losses = math.fsum(q[i] * p[j] for i in range(len(WORDS)) for j in range(i + 1, len(WORDS)))
    margin = wins - losses  # 2 P - 1, and the log-odds of P are 2 atanh of it
    if temperature != 1 and abs(margin) < 1:
        margin = math.tanh(math.atanh(margin) / temperature)
    return 0.5 + margin / 2


def _distribution(words: Mapping[str, float]) -> list[float]:
    """Five probabilities that sum to 1, in the order of ``facts.WORDS``. Raises ``NoDistribution``."""
    missing = [word for word in WORDS if word not in words]
    if missing:
        raise NoDistribution(f"no probability for {', '.join(missing)}")
    values = [words[word] for word in WORDS]
    if not all(0 <= value <= 1 + _ROUNDING for value in values):
        raise NoDistribution("a probability is not from 0 to 1")
    total = math.fsum(values)
    if abs(total - 1) > _ROUNDING:
        raise NoDistribution(f"the probabilities sum to {total:.3f}, not 1")
    return [value / total for value in values]


def reliability(said: Sequence[float], happened: Sequence[bool], bins: int = 10) -> list[tuple[float, float, int]]:
    """The non-empty bins of a reliability table: (mean predicted probability, observed frequency, n), lowest first."""
    found: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for p, truth in zip(said, happened, strict=True):
        found[min(bins - 1, int(p * bins))].append((p, truth))
    return [
        (math.fsum(p for p, _ in part) / len(part), sum(t for _, t in part) / len(part), len(part)) for part in found if part
    ]


def calibration_error(table: Sequence[tuple[float, float, int]]) -> float:
    """The expected calibration error of a reliability table: the mean of |predicted - observed|, weighted by n; 0..1."""
    total = sum(n for *_, n in table)
    return math.fsum(abs(said - happened) * n for said, happened, n in table) / total
