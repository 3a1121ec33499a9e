"""Fits ``calibration.Familiar``: how far a picture is from the calibration pictures.

Mahalanobis distance (On the generalised distance in statistics, 1936) between the model's features of the pictures, fitted on
one half; the other half gives the distance that only one in a hundred similar pictures exceeds. numpy is imported on first use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from saiqa.calibration import SHARE_FLAGGED, Familiar
from saiqa.evaluate.conformal import ConformalError

FEWEST = 100  # pictures; fewer say nothing about a rate of one in a hundred
_SHRINKAGE = 0.05  # of the covariance towards a multiple of the identity, because there are few pictures


def fit(looks: Sequence[Sequence[float]]) -> Familiar:
    """Fit the distance to these pictures.

    Args:
        looks: the model's features of the pictures (``looks.looks_of``), [pictures, features].

    Raises:
        ConformalError: fewer than ``FEWEST`` pictures, or all look the same.
    """
    import numpy

    seen = numpy.asarray(looks, float)
    if len(seen) < FEWEST:
        raise ConformalError(f"{len(seen)} pictures, but flagging unlike pictures needs {FEWEST}")
    known, asked = seen[::2], seen[1::2]
    covariance = numpy.cov(known.T)
    size = float(numpy.trace(covariance)) / len(covariance)
    if size <= 0:
        raise ConformalError(f"all {len(seen)} pictures look the same")
    shrunk = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * size * numpy.eye(len(covariance))
    whitening = numpy.linalg.inv(numpy.linalg.cholesky(shrunk))
    rows = tuple(tuple(_short(value) for value in row[: number + 1]) for number, row in enumerate(whitening))
    found = Familiar(len(seen), tuple(map(_short, known.mean(0))), rows, 0.0)
    distances = sorted(found.distance(look) for look in asked)
    place = min(len(distances), math.ceil((len(distances) + 1) * (1 - SHARE_FLAGGED)))  # the conformal quantile
    return Familiar(found.n, found.mean, found.whitening, _short(distances[place - 1]))


def _short(value: float) -> float:
    return float(f"{value:.6g}")
