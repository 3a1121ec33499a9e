"""The checkpoint's answers for many pictures as one array, and what is computed from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from saiqa.engines import Failure, Request
from saiqa.errors import Failed
from saiqa.facts import WORD_VALUES, WORDS
from saiqa.scorer import Scorer

Array = Any  # a numpy array; numpy's types do not express shapes

VALUES = np.array([WORD_VALUES[word] for word in WORDS], float)


def rate(scorer: Scorer, pictures: Sequence[Image.Image]) -> Array:
    """Log-probabilities [pictures, dimensions, 5] of the words, best first. Raises ``Failed`` if a picture has none."""
    asked = [scorer.sentences[name] for name in scorer.dimensions]
    requests = [Request(picture, one.query, one.before) for picture in pictures for one in asked]
    rows = []
    for answer in scorer.engine.rate(requests):
        if isinstance(answer, Failure):
            raise Failed(f"a picture of the audit has no rating: {answer.reason}", "Check whether the checkpoint is complete")
        rows.append([answer.logprobs[word] for word in WORDS])
    return np.array(rows).reshape(len(pictures), len(asked), len(WORDS))


def shares(logprobs: Array) -> Array:
    """Probabilities among the five words, in the same shape."""
    weights = np.exp(logprobs - logprobs.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def scores(logprobs: Array) -> Array:
    """Scores [pictures, dimensions]."""
    return shares(logprobs) @ VALUES


def unimodal(logprobs: Array, slack: float = 0.02) -> Array:
    """Whether each distribution [..., 5] rises to one word and falls after it, up to ``slack`` in probability."""
    probabilities = shares(logprobs)
    steps = np.diff(probabilities, axis=-1)
    falling = np.maximum.accumulate(steps < -slack, axis=-1)
    return ~(falling & (steps > slack)).any(-1)
