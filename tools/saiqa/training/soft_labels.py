"""The targets of an example for the losses of ``--loss``, and the ms-swift options that select them. Imports no torch."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from saiqa.facts import WORD_VALUES, WORDS

if TYPE_CHECKING:
    from saiqa.training.examples import Example

LOSSES = ("answer", "word", "raters", "gaussian", "mse")
WORD_SCALE = "saiqa_word"  # masks all labels except the rating word
_SPREAD = 0.5  # standard deviation of the normal distribution, in points: about the spread of five raters


def loss_type(loss: str) -> str:
    """ms-swift's name for one of the ``LOSSES``."""
    return f"saiqa_{loss}"


def options(loss: str) -> dict[str, list[str]]:
    """The options of ``swift sft`` that a loss needs; none for the release's."""
    if loss == "answer":
        return {}
    scale = {"loss_scale": [WORD_SCALE]}
    return scale if loss == "word" else scale | {"loss_type": [loss_type(loss)]}


def target(example: Example, loss: str) -> str:
    """The shares of the five words and the MOS, as one text, which ms-swift passes along with an example."""
    shares = of_marks(example.marks) if loss == "raters" else of_mos(example.mos)
    return " ".join(f"{number:.6g}" for number in (*shares, example.mos))


def of_marks(marks: tuple[float, ...]) -> list[float]:
    """The distribution of the raters' scores over the words, in the order of ``WORDS``."""
    counted = Counter(round(mark) for mark in marks)
    return [counted[WORD_VALUES[word]] / len(marks) for word in WORDS]


def of_mos(mos: float) -> list[float]:
    """A normal distribution around a MOS, discretised at the words' values, in the order of ``WORDS``."""
    weights = [math.exp(-((WORD_VALUES[word] - mos) ** 2) / (2 * _SPREAD**2)) for word in WORDS]
    return [weight / sum(weights) for weight in weights]
