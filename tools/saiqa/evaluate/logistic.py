"""The 4-parameter logistic that maps scores to mean opinion scores (VQEG)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from saiqa.evaluate.figures import Floats

FEWEST_FOR_CURVE = 10  # with fewer rows, four parameters overfit
_FEWEST_ON_SLOPE = 0.05  # share of the rows


class CurveError(ValueError):
    """Rows to which no meaningful logistic curve can be fitted."""


@dataclass(frozen=True)
class Curve:
    """The mapping from scores to mean opinion scores that VQEG reports apply before the linear correlation.

    MOS = lower + (upper - lower) / (1 + exp(-(score - centre) / width)), with upper > lower and width > 0. If the relation
    is nearly linear, lower and upper are far outside the scale: only the middle part of the curve is used.
    """

    upper: float
    lower: float
    centre: float
    width: float

    def __call__(self, scores: ArrayLike) -> Floats:
        """The mapped scores, float64 of the same shape."""
        import numpy
        from scipy.special import expit

        scaled = (numpy.asarray(scores, dtype=numpy.float64) - self.centre) / self.width
        return self.lower + (self.upper - self.lower) * expit(scaled)

    def is_step(self, scores: ArrayLike) -> bool:
        """Whether the curve splits the scores into low and high, with hardly any on its slope (10% to 90% of the rise)."""
        import numpy

        scaled = (numpy.asarray(scores, dtype=numpy.float64) - self.centre) / self.width
        on_slope = abs(scaled) < math.log(9)
        return bool(scaled.min() < 0 < scaled.max() and on_slope.mean() < _FEWEST_ON_SLOPE)


def fit_logistic(x: ArrayLike, y: ArrayLike) -> Curve:
    """The least-squares logistic from scores ``x`` to mean opinion scores ``y``, [rows] each.

    For a given centre and width the two levels follow from linear regression, so the search is over two parameters only: a
    grid of starting points, then Levenberg-Marquardt from the best of them.

    Raises:
        CurveError: too few rows, a constant column, or the best curve decreases: scores and MOS are negatively related, and
            the correlation after such a mapping would hide that.
    """
    import numpy

    x, y = numpy.asarray(x, dtype=numpy.float64), numpy.asarray(y, dtype=numpy.float64)
    if len(x) < FEWEST_FOR_CURVE:
        raise CurveError(f"{len(x)} rows, but four parameters need {FEWEST_FOR_CURVE}")
    for name, column in (("predictions", x), ("mean opinion scores", y)):
        if column.min() == column.max():
            raise CurveError(f"all {name} are {column[0]:g}")
    mean, spread = x.mean(), x.std()
    slope, offset = _best_shape((x - mean) / spread, y)
    basis = _basis((x - mean) / spread, slope, offset)
    rise, lower = _regression(basis, y)
    if rise <= 0:
        raise CurveError("the best curve decreases: scores and MOS are negatively related")
    # basis = 1 / (1 + exp(-(slope * (x - mean) / spread + offset)))
    return Curve(float(lower + rise), float(lower), float(mean - offset * spread / slope), float(spread / slope))


def _best_shape(z: Floats, y: Floats) -> tuple[float, float]:
    """Slope and offset of the best logistic of the standardised scores ``z``."""
    import numpy
    from scipy.optimize import least_squares

    def residuals(parameters: Sequence[float] | Floats) -> Floats:
        basis = _basis(z, math.exp(parameters[0]), parameters[1])
        rise, lower = _regression(basis, y)
        return lower + rise * basis - y

    # Steep curves have many local optima, one between any two scores, so the centres of the grid follow the scores.
    centres = [*numpy.quantile(z, numpy.linspace(0, 1, 33)), *numpy.linspace(z.min(), z.max(), 9)]
    grid = [(math.log(a), -a * centre) for a in (0.1, 0.5, 1, 2, 4, 8, 16, 32) for centre in centres]
    starts = sorted(grid, key=lambda start: (residuals(start) ** 2).sum())[:3]
    tight = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14}
    fits = [least_squares(residuals, start, jac="3-point", method="lm", **tight) for start in starts]
    best = min(fits, key=lambda fit: fit.cost).x
    slope = _bounded_slope(math.exp(best[0]))
    return slope, _bounded_offset(z, slope, best[1])


def _basis(z: Floats, slope: float, offset: float) -> Floats:
    """The logistic between 0 and 1. Bounds keep it just short of its limits (a line, an exponential, a step)."""
    from scipy.special import expit

    slope = _bounded_slope(slope)
    return expit(slope * z + _bounded_offset(z, slope, offset))


def _bounded_slope(slope: float) -> float:
    return min(max(slope, 1e-3), 1e3)


def _bounded_offset(z: Floats, slope: float, offset: float) -> float:
    return float(min(max(offset, -slope * z.max() - 20), -slope * z.min() + 20))


def _regression(basis: Floats, y: Floats) -> tuple[float, float]:
    """Slope and intercept of ``y`` on ``basis``; slope 0 if the basis is constant."""
    centred = basis - basis.mean()
    power = centred @ centred
    rise = float(centred @ (y - y.mean()) / power) if power > 0 else 0.0
    return rise, float(y.mean() - rise * basis.mean())
