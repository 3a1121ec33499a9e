"""Fitting what ``calibration`` applies: intervals whose width follows the spread of the word distribution.

Cross-conformal in ten folds (Vovk, Cross-conformal predictors, 2015): the size of an error is estimated for every picture by
the others, so that all of them count for the size and for the quantile. numpy is imported on first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saiqa.calibration import Fit, spread

FEWEST = 30  # pictures; fewer say little about one in ten
_FOLDS = 10
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
        expected = numpy.maximum(least, _features(x[asked], spreads[asked]) @ size)
        residuals[asked] = abs(y[asked] - intercept - slope * x[asked]) / expected
    slope, intercept, size, least = _fitted(x, spreads, y)
    ascending = tuple(float(f"{value:.6g}") for value in numpy.sort(residuals))
    return Fit(len(x), slope, intercept, (size[0], size[1], size[2]), least, tuple(sorted(ascending)), prompt)


def _fitted(x: Any, spreads: Any, y: Any) -> tuple[float, float, list[float], float]:
    """Slope, intercept, coefficients of an error's size, and its least."""
    import numpy
    from scipy.optimize import nnls

    slope, intercept = numpy.polyfit(x, y, 1)
    errors = abs(y - intercept - slope * x)
    size, _ = nnls(_features(x, spreads), errors)  # an error grows with what makes a score unsure
    return float(slope), float(intercept), [float(value) for value in size], float(_LEAST_SHARE * errors.mean())


def _features(x: Any, spreads: Any) -> Any:
    import numpy

    return numpy.stack([numpy.ones_like(x), spreads, (x - 3) ** 2], axis=1)
