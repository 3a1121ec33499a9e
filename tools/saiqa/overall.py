"""The overall score: how the four dimensions become one number. Pure except for reading the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saiqa import facts
from saiqa.errors import InputError
from saiqa.files import folders
from saiqa.numbers import is_finite

_SUM_TOLERANCE = 1e-6


def overall_score(scores: Mapping[str, float], weights: Mapping[str, float] | None = None) -> float:
    """The weighted mean of the dimensions in ``scores``.

    Args:
        scores: dimension -> score from 1 to 5, at least one dimension.
        weights: dimension -> weight, not negative; None for equal weights. If ``scores`` has fewer dimensions than there
            are weights, the weights used are rescaled to sum to 1.

    Returns:
        A score from 1 to 5.

    Raises:
        ValueError: no scores, a dimension without a weight, or only weights of 0.
    """
    if not scores:
        raise ValueError("no dimension has a score")
    missing = [] if weights is None else [dimension for dimension in scores if weights.get(dimension) is None]
    if missing:
        raise ValueError(f"no weight for {', '.join(missing)}")
    used = {dimension: 1.0 if weights is None else weights[dimension] for dimension in scores}
    total = math.fsum(used.values())
    if not total > 0:
        raise ValueError(f"the weights of {', '.join(scores)} are all 0")
    return math.fsum(scores[dimension] * weight for dimension, weight in used.items()) / total


def read_weights(path: Path) -> dict[str, float]:
    """The weights in a file written by ``fuse_scores.py fit``: ``{"weights": {"distortion": 0.25, ...}, ...}``.

    Returns:
        dimension -> weight, for the four dimensions in their order.

    Raises:
        InputError: the file is missing or not JSON, or its weights do not cover exactly the four dimensions, are negative,
            or do not sum to 1.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folders.shown(path)} is not there", "Make it with tools/fuse_scores.py fit") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {folders.shown(path)}: {error}", _REMEDY) from None
    weights: Any = value.get("weights") if isinstance(value, dict) else None
    reason = _why_no_weights(weights)
    if reason:
        raise InputError(f"{folders.shown(path)}: {reason}", _REMEDY)
    return {dimension: float(weights[dimension]) for dimension in facts.DIMENSIONS}


_REMEDY = 'It must look like {"weights": {"distortion": 0.25, "harmony": 0.25, "layout": 0.25, "lighting": 0.25}}'


def _why_no_weights(weights: object) -> str | None:
    if not isinstance(weights, dict):
        return 'no "weights"'
    if set(weights) != set(facts.DIMENSIONS):
        return f"the weights are for {', '.join(map(str, weights)) or 'nothing'}, not for the four dimensions"
    numbers = list(weights.values())
    if not all(is_finite(value) and value >= 0 for value in numbers):
        return "a weight is not a number of at least 0"
    if abs(math.fsum(numbers) - 1) > _SUM_TOLERANCE:
        return f"the weights sum to {math.fsum(numbers):g}, not 1"
    return None
