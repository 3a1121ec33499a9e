"""Fits the intervals that ``calibration`` applies; their width is proportional to the spread of the word distribution.

Cross-conformal with ten folds (Vovk, Cross-conformal predictors, 2015): the expected error of each picture is estimated from
the other folds, so that all pictures serve for the error model and for the quantile. An error proportional to the spread is
the simplest model that helps: on the demo, adding a constant, the position on the scale, or both made no interval narrower.

Quantiles are separate for low and high scores and for errors in either direction: a model takes bad rooms for good ones more
often than the reverse, and with one quantile for all, intervals of high scores had less than the stated coverage. numpy is
imported on first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from saiqa.calibration import Fit, spread

if TYPE_CHECKING:
    from saiqa.evaluate.figures import Floats

FEWEST = 30  # pictures; fewer say little about an error rate of one in ten
_FOLDS = 10
_GROUP = 40  # pictures per group of similar scores, at least: enough for 95% intervals
_MOST_GROUPS = 10
_LEAST_SHARE = 0.3  # lower bound of an expected error, as a share of the mean absolute error


class ConformalError(ValueError):
    """Scores to which no calibration can be fitted."""


def fit(
    scores: Sequence[float], distributions: Sequence[Mapping[str, float]], mos: Sequence[float], prompt: str, seed: int = 0
) -> Fit:
    """The calibration of one dimension.

    Args:
        scores, mos: [pictures], 1..5.
        distributions: the five words' probabilities, [pictures].
        prompt: digest of the prompt.
        seed: for the assignment to folds.

    Raises:
        ConformalError: fewer than ``FEWEST`` pictures, or all scores are the same.
    """
    import numpy

    x, y = numpy.asarray(scores, float), numpy.asarray(mos, float)
    spreads = numpy.array([spread(one) for one in distributions])
    if len(x) < FEWEST:
        raise ConformalError(f"{len(x)} pictures, but a calibration needs {FEWEST}")
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
    """The score edges of groups of about equal size, and the residuals of each group, ascending."""
    import numpy

    many = max(1, min(_MOST_GROUPS, len(x) // _GROUP))
    edges = numpy.unique(numpy.quantile(x, numpy.arange(1, many) / many))
    of = numpy.searchsorted(edges, x, side="right")  # like bisect_right, which ``Fit.interval`` uses
    groups = (residuals[of == group] for group in range(len(edges) + 1))
    return tuple(map(float, edges)), tuple(tuple(sorted(float(f"{value:.6g}") for value in group)) for group in groups)


def _fitted(x: Floats, spreads: Floats, y: Floats) -> tuple[float, float, float, float]:
    """Slope, intercept, expected error per unit of spread, and lower bound of the expected error."""
    import numpy

    slope, intercept = numpy.polyfit(x, y, 1)
    errors = abs(y - intercept - slope * x)
    return float(slope), float(intercept), float(errors @ spreads / (spreads @ spreads)), float(_LEAST_SHARE * errors.mean())
