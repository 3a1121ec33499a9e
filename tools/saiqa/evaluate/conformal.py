"""Fitting what ``calibration`` applies: intervals whose width follows the spread of the word distribution.

Cross-conformal in ten folds (Vovk, Cross-conformal predictors, 2015): the size of an error is estimated for every picture by
the others, so that all of them count for the size and for the quantile. That the size is the spread times a number is the
simplest that helps: on the demo a constant, the place on the scale, or both besides made no interval narrower.

Low and high scores are told apart, and too low from too high: a model takes bad rooms for good ones more often than the other
way round, and one quantile for all held the mean of high scores less often than it said. numpy is imported on first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from saiqa.calibration import Fit, spread

if TYPE_CHECKING:
    from saiqa.evaluate.figures import Floats

FEWEST = 30  # pictures; fewer say little about one in ten
_FOLDS = 10
_GROUP = 40  # pictures at least that tell of scores like theirs: enough for intervals of 95%
_MOST_GROUPS = 10
_LEAST_SHARE = 0.3  # of the mean size of an error, below which no estimate goes


class ConformalError(ValueError):
    """Scores that no calibration can be fitted to."""


def fit(
    scores: Sequence[float], distributions: Sequence[Mapping[str, float]], mos: Sequence[float], prompt: str, seed: int = 0
) -> Fit:
    """The calibration of one dimension.

    Args:
        scores, mos: [pictures], 1..5.
        distributions: the five words' probabilities, [pictures].
        prompt: digest of what was asked.
        seed: of the folds.

    Raises:
        ConformalError: fewer than ``FEWEST`` pictures, or all scores the same.
    """
    import numpy

    x, y = numpy.asarray(scores, float), numpy.asarray(mos, float)
    spreads = numpy.array([spread(one) for one in distributions])
    if len(x) < FEWEST:
        raise ConformalError(f"{len(x)} pictures, a calibration needs {FEWEST}")
    if x.min() == x.max():
        raise ConformalError(f"all {len(x)} scores are {x[0]:g}")
    folds = numpy.random.default_rng(seed).permutation(len(x)) % _FOLDS
    residuals = numpy.empty(len(x))
    for fold in range(_FOLDS):
        known, asked = folds != fold, folds == fold
        slope, intercept, size, least = _fitted(x[known], spreads[known], y[known])
        expected = numpy.maximum(least, size * spreads[asked])
        residuals[asked] = (y[asked] - intercept - slope * x[asked]) / expected
    slope, intercept, size, least = _fitted(x, spreads, y)
    edges, groups = _grouped(x, residuals)
    return Fit(len(x), slope, intercept, size, least, edges, groups, prompt)


def _grouped(x: Floats, residuals: Floats) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
    """The scores between groups of about as many pictures, and the residuals of each, ascending."""
    import numpy

    many = max(1, min(_MOST_GROUPS, len(x) // _GROUP))
    edges = numpy.unique(numpy.quantile(x, numpy.arange(1, many) / many))
    of = numpy.searchsorted(edges, x, side="right")  # as bisect_right, which reads them
    groups = (residuals[of == group] for group in range(len(edges) + 1))
    return tuple(map(float, edges)), tuple(tuple(sorted(float(f"{value:.6g}") for value in group)) for group in groups)


def _fitted(x: Floats, spreads: Floats, y: Floats) -> tuple[float, float, float, float]:
    """Slope, intercept, the size of an error for a spread of one, and its least."""
    import numpy

    slope, intercept = numpy.polyfit(x, y, 1)
    errors = abs(y - intercept - slope * x)
    return float(slope), float(intercept), float(errors @ spreads / (spreads @ spreads)), float(_LEAST_SHARE * errors.mean())
