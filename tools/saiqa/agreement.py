"""How sure the agreement of scores with people's is: bootstrap intervals, a logistic mapping, the difference of two runs.

Pure; numpy and scipy are imported on first use. Built upon ``correlation``, which has the figures themselves.

Resampling. A resample of n rows is n draws with replacement; all that is kept of it is how often each row was drawn,
its counts. Every figure is a sum over the rows weighted with these counts, also the ranks: the rank of a value is the
number of draws below it. So nothing is sorted per resample, and a block of resamples is a few matrix products.
Intervals are percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from saiqa.correlation import Correlation, CorrelationError, correlate, is_number

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0
FEWEST_FOR_INTERVAL = 10  # resamples of fewer rows repeat each other
FEWEST_FOR_CURVE = 10  # four parameters bend to anything shorter
_FEWEST_ON_SLOPE = 0.05  # share of the rows

_BLOCK_CELLS = 4_000_000  # resamples x rows that are in work at once: 32 MB in float64
_PAIR_BLOCK = 512  # rows whose pairs with all others are in work at once

Interval = tuple[float, float]


# ---- one run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """The figures of one set of rows, and how sure they are.

    Attributes:
        figures: PLCC, SRCC, KRCC, RMSE, n and dropped.
        plcc_logistic: PLCC between the MOS and the scores mapped by ``curve``; None where there is no curve.
        curve: the 4-parameter logistic fitted to the rows.
        intervals: "plcc", "srcc", "krcc", "rmse", "plcc_logistic" -> its interval; a figure without one is not in it.
        statements: why a curve or an interval is missing, one clause each.
    """

    figures: Correlation
    plcc_logistic: float | None
    curve: Curve | None
    intervals: dict[str, Interval]
    statements: list[str]

    def value(self, name: str) -> float | None:
        """A figure by its name in ``intervals``."""
        return self.plcc_logistic if name == "plcc_logistic" else getattr(self.figures, name)


def assess(predicted: Sequence[float | None], measured: Sequence[float | None]) -> Agreement:
    """Compare predictions with mean opinion scores and say how sure the figures are.

    Args:
        predicted: scores, [rows]; None or NaN where there is none.
        measured: mean opinion scores, [rows]; None or NaN where there is none.

    Raises:
        CorrelationError: as ``correlation.correlate``.
    """
    figures = correlate(predicted, measured)
    x, y = complete(predicted, measured)
    statements = []
    try:
        curve = fit_logistic(x, y)
        mapped = float(pearson_of(curve(x), y))
        if curve.is_step(x):
            statements.append(f"the logistic fit is a step at {curve.centre:.2f}, which flatters its PLCC")
    except CurveError as error:
        curve = mapped = None
        statements.append(f"no logistic fit: {error}")
    intervals = {}
    if figures.n < FEWEST_FOR_INTERVAL:
        statements.append(f"no intervals: {figures.n} rows, they need {FEWEST_FOR_INTERVAL}")
    else:
        for name, values in _resampled(x, y, curve).items():
            interval = percentile_interval(values)
            if interval is None:
                statements.append(f"no interval of {name}: it is undefined in some resamples")
            else:
                intervals[name] = interval
    return Agreement(figures, mapped, curve, intervals, statements)


def complete(*columns: Sequence[float | None]):
    """The rows in which every column has a number, as one float64 array [columns, rows]."""
    import numpy

    rows = [row for row in zip(*columns, strict=True) if all(map(is_number, row))]
    return numpy.asarray(rows, dtype=numpy.float64).reshape(len(rows), len(columns)).T


def _resampled(x, y, curve: Curve | None) -> dict:
    """The figures in every resample, name -> [resamples]; NaN where one is undefined.

    The curve is held as fitted to all rows. To first order that is what fitting it anew gives: at the best fit the
    correlation does not change with the parameters.
    """
    import numpy

    counts = resample_counts(len(x))
    rank_x, rank_y = Ranks(x), Ranks(y)
    mapped = None if curve is None else curve(x)
    found: dict[str, list] = {"plcc": [], "srcc": [], "rmse": []} | ({} if curve is None else {"plcc_logistic": []})
    for block in blocks(counts):
        found["plcc"].append(pearson(block, x, y))
        found["srcc"].append(spearman(block, rank_x, rank_y))
        found["rmse"].append(numpy.sqrt(block @ (x - y) ** 2 / len(x)))
        if curve is not None:
            found["plcc_logistic"].append(pearson(block, mapped, y))
    figures = {name: numpy.concatenate(parts) for name, parts in found.items()}
    return {**figures, "krcc": kendall(counts, rank_x, rank_y)}


def percentile_interval(values) -> Interval | None:
    """The percentile interval; None where a resample has no value."""
    import numpy

    if not numpy.isfinite(values).all():
        return None
    low, high = numpy.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


# ---- two runs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """One figure of two runs over the same rows.

    Attributes:
        first, second: the figure of either run.
        low, high: 95% interval of first - second; None where it is undefined.
        p: two-sided p-value of "there is no difference": twice the smaller share of resamples on either side of 0,
            counting the sample itself, so that it is never 0; None where it is undefined.
    """

    first: float
    second: float
    low: float | None
    high: float | None
    p: float | None

    @property
    def value(self) -> float:
        """first - second."""
        return self.first - self.second


@dataclass(frozen=True)
class Comparison:
    """PLCC and SRCC of two runs over the ``n`` rows that are complete in both; ``dropped`` were not."""

    n: int
    dropped: int
    plcc: Difference
    srcc: Difference


def compare(
    first: Sequence[float | None], second: Sequence[float | None], measured: Sequence[float | None]
) -> Comparison:
    """Test the difference of two runs by a paired bootstrap: both are taken over the same resamples.

    Args:
        first, second: the scores of the two runs, [rows]; None where there is none.
        measured: mean opinion scores, [rows].

    Raises:
        CorrelationError: as ``correlation.correlate``, or too few rows.
    """
    import numpy

    a, b, y = complete(first, second, measured)
    if len(y) < FEWEST_FOR_INTERVAL:
        raise CorrelationError(f"{len(y)} rows are complete in both runs, a comparison needs {FEWEST_FOR_INTERVAL}")
    of_first, of_second = correlate(a, y), correlate(b, y)
    ranks = Ranks(a), Ranks(b), Ranks(y)
    plcc, srcc = [], []
    for block in blocks(resample_counts(len(y))):
        plcc.append(pearson(block, a, y) - pearson(block, b, y))
        srcc.append(spearman(block, ranks[0], ranks[2]) - spearman(block, ranks[1], ranks[2]))
    return Comparison(
        n=len(y),
        dropped=len(measured) - len(y),
        plcc=_difference(of_first.plcc, of_second.plcc, numpy.concatenate(plcc)),
        srcc=_difference(of_first.srcc, of_second.srcc, numpy.concatenate(srcc)),
    )


def _difference(first: float, second: float, resampled) -> Difference:
    interval = percentile_interval(resampled)
    if interval is None:
        return Difference(first, second, None, None, None)
    side = min((resampled <= 0).sum(), (resampled >= 0).sum())
    return Difference(first, second, *interval, p=min(1.0, 2 * (int(side) + 1) / (len(resampled) + 1)))


# ---- the 4-parameter logistic ----------------------------------------------------------------------------------------


class CurveError(ValueError):
    """Rows to which no logistic curve can be fitted that means anything."""


@dataclass(frozen=True)
class Curve:
    """The mapping from scores to mean opinion scores that the VQEG's reports put before the linear correlation.

    MOS = lower + (upper - lower) / (1 + exp(-(score - centre) / width)), with upper > lower and width > 0. Where the
    relation is close to a line, lower and upper lie far outside of the scale: only a middle piece of the curve is used.
    """

    upper: float
    lower: float
    centre: float
    width: float

    def __call__(self, scores):
        """The mapped scores, float64 of the same shape."""
        import numpy
        from scipy.special import expit

        scaled = (numpy.asarray(scores, dtype=numpy.float64) - self.centre) / self.width
        return self.lower + (self.upper - self.lower) * expit(scaled)

    def is_step(self, scores) -> bool:
        """Whether the curve parts the scores in low and high with hardly any on its slope, from 10% to 90% of the rise."""
        import numpy

        scaled = (numpy.asarray(scores, dtype=numpy.float64) - self.centre) / self.width
        on_slope = abs(scaled) < math.log(9)
        return bool(scaled.min() < 0 < scaled.max() and on_slope.mean() < _FEWEST_ON_SLOPE)


def fit_logistic(x, y) -> Curve:
    """The least-squares logistic from scores ``x`` to mean opinion scores ``y``, [rows] each.

    For a given centre and width the two levels are a linear regression, so the search is over two parameters only: a
    grid of starts, then Levenberg-Marquardt from the best of them.

    Raises:
        CurveError: too few rows, a constant column, or a best curve that falls: the scores run against the MOS, and a
            correlation after turning them round would hide it.
    """
    import numpy

    x, y = numpy.asarray(x, dtype=numpy.float64), numpy.asarray(y, dtype=numpy.float64)
    if len(x) < FEWEST_FOR_CURVE:
        raise CurveError(f"{len(x)} rows, four parameters need {FEWEST_FOR_CURVE}")
    for name, column in (("predictions", x), ("mean opinion scores", y)):
        if column.min() == column.max():
            raise CurveError(f"all {name} are {column[0]:g}")
    mean, spread = x.mean(), x.std()
    slope, offset = _best_shape((x - mean) / spread, y)
    basis = _basis((x - mean) / spread, slope, offset)
    rise, lower = _regression(basis, y)
    if rise <= 0:
        raise CurveError("the best curve falls, the scores run against the mean opinion scores")
    # basis = 1 / (1 + exp(-(slope * (x - mean) / spread + offset)))
    return Curve(float(lower + rise), float(lower), float(mean - offset * spread / slope), float(spread / slope))


def _best_shape(z, y) -> tuple[float, float]:
    """Slope and offset of the best logistic of the standardised scores ``z``."""
    import numpy
    from scipy.optimize import least_squares

    def residuals(parameters):
        basis = _basis(z, math.exp(parameters[0]), parameters[1])
        rise, lower = _regression(basis, y)
        return lower + rise * basis - y

    # Steep curves have many local optima, one between any two scores: the centres are where the scores are.
    centres = [*numpy.quantile(z, numpy.linspace(0, 1, 33)), *numpy.linspace(z.min(), z.max(), 9)]
    grid = [(math.log(a), -a * centre) for a in (0.1, 0.5, 1, 2, 4, 8, 16, 32) for centre in centres]
    starts = sorted(grid, key=lambda start: (residuals(start) ** 2).sum())[:3]
    tight = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14}
    fits = [least_squares(residuals, start, jac="3-point", method="lm", **tight) for start in starts]
    best = min(fits, key=lambda fit: fit.cost).x
    slope = _bounded_slope(math.exp(best[0]))
    return slope, _bounded_offset(z, slope, best[1])


def _basis(z, slope: float, offset: float):
    """The logistic between 0 and 1. Its limits (a line, an exponential, a step) are approached and not passed."""
    from scipy.special import expit

    slope = _bounded_slope(slope)
    return expit(slope * z + _bounded_offset(z, slope, offset))


def _bounded_slope(slope: float) -> float:
    return min(max(slope, 1e-3), 1e3)


def _bounded_offset(z, slope: float, offset: float) -> float:
    return float(min(max(offset, -slope * z.max() - 20), -slope * z.min() + 20))


def _regression(basis, y) -> tuple[float, float]:
    """Slope and intercept of ``y`` on ``basis``; slope 0 where the basis is flat."""
    centred = basis - basis.mean()
    power = centred @ centred
    rise = float(centred @ (y - y.mean()) / power) if power > 0 else 0.0
    return rise, float(y.mean() - rise * basis.mean())


# ---- figures of resamples, from counts -------------------------------------------------------------------------------


def resample_counts(rows: int, resamples: int = RESAMPLES, seed: int = SEED):
    """How often each row is drawn: uint8 [resamples, rows]; every line adds up to ``rows``."""
    import numpy

    draw = numpy.random.default_rng(seed)
    counts = numpy.empty((resamples, rows), dtype=numpy.uint8)
    height = max(1, _BLOCK_CELLS // rows)
    for start in range(0, resamples, height):
        block = counts[start : start + height]
        drawn = draw.integers(rows, size=block.shape) + rows * numpy.arange(len(block))[:, None]
        block[:] = numpy.bincount(drawn.ravel(), minlength=block.size).reshape(block.shape)
    return counts


def blocks(counts) -> Iterator:
    """The counts in float64, some resamples at a time: [block, rows]."""
    height = max(1, _BLOCK_CELLS // counts.shape[1])
    for start in range(0, len(counts), height):
        yield counts[start : start + height].astype(float)


def pearson_of(x, y):
    import numpy

    return pearson(numpy.ones((1, len(x))), x, y)[0]


def pearson(counts, x, y):
    """PLCC in every resample, [block]; NaN where a column is constant."""
    n = len(x)
    x, y = x - x.mean(), y - y.mean()
    mean_x, mean_y = counts @ x / n, counts @ y / n
    covariance = counts @ (x * y) / n - mean_x * mean_y
    return _ratio(covariance, (counts @ x**2 / n - mean_x**2) * (counts @ y**2 / n - mean_y**2), x.var() * y.var())


def _ratio(covariance, variances, scale: float):
    """covariance / sqrt(variances); NaN where the variances are nothing beside ``scale``, but for rounding."""
    import numpy

    with numpy.errstate(divide="ignore", invalid="ignore"):
        return numpy.where(variances > 1e-12 * scale, covariance / numpy.sqrt(variances), numpy.nan)


class Ranks:
    """The values of one column in order, for its ranks in any resample.

    Attributes:
        group: number of each row's value among the distinct values, ascending, [rows].
    """

    def __init__(self, column):
        import numpy

        self.order = numpy.argsort(column, kind="stable")
        _, self.starts, self.group = numpy.unique(column[self.order], return_index=True, return_inverse=True)
        self.group = self.group[numpy.argsort(self.order)]

    def sizes(self, counts):
        """Draws of each distinct value, [block, values]."""
        import numpy

        return numpy.add.reduceat(counts[:, self.order], self.starts, axis=1)

    def centred(self, sizes):
        """Mid-ranks of the distinct values less the mean rank, [block, values]."""
        rows = len(self.order)
        below = sizes.cumsum(axis=1) - sizes
        return below + (sizes + 1) / 2 - (rows + 1) / 2


def spearman(counts, rank_x: Ranks, rank_y: Ranks):
    """SRCC in every resample, [block]: PLCC of the mid-ranks."""
    sizes_x, sizes_y = rank_x.sizes(counts), rank_y.sizes(counts)
    x, y = rank_x.centred(sizes_x), rank_y.centred(sizes_y)
    covariance = (counts * x[:, rank_x.group] * y[:, rank_y.group]).sum(axis=1)
    return _ratio(covariance, (sizes_x * x**2).sum(axis=1) * (sizes_y * y**2).sum(axis=1), 1.0)


def kendall(counts, rank_x: Ranks, rank_y: Ranks):
    """KRCC (tau-b) in every resample, [resamples]; a row drawn twice is tied with itself."""
    import numpy

    rows = counts.shape[1]
    variances = numpy.concatenate([_tau_variances(block, rank_x, rank_y) for block in blocks(counts)])
    counts = counts[:, rank_x.order]  # so that of two rows the one behind has the larger x, or the same
    x, y = (rank.group[rank_x.order].astype(numpy.float32) for rank in (rank_x, rank_y))
    height = max(1, _BLOCK_CELLS // rows)
    ordered = numpy.zeros(len(counts))
    for start in range(0, rows, _PAIR_BLOCK):
        these, behind = slice(start, min(start + _PAIR_BLOCK, rows)), slice(start, rows)
        signs = _signs(x, y, these, behind)
        for first in range(0, len(counts), height):
            drawn = counts[first : first + height]
            pairs = drawn[:, behind].astype(numpy.float32) @ signs  # whole numbers far below 2**24: exact
            ordered[first : first + height] += (pairs.astype(float) * drawn[:, these]).sum(axis=1)
    return _ratio(ordered, variances, 1.0)


def _tau_variances(counts, rank_x: Ranks, rank_y: Ranks):
    """Pairs not tied in x times pairs not tied in y, [block]."""
    rows = counts.shape[1]
    x, y = ((sizes * (sizes - 1) / 2).sum(axis=1) for sizes in (rank_x.sizes(counts), rank_y.sizes(counts)))
    return (rows * (rows - 1) / 2 - x) * (rows * (rows - 1) / 2 - y)


def _signs(x, y, these: slice, behind: slice):
    """1, 0 or -1 for pairs in order, tied or in disorder: rows ``behind`` by rows ``these``, each pair once, float32."""
    import numpy

    signs = y[behind, None] - y[None, these]
    numpy.sign(signs, out=signs)
    signs *= x[behind, None] != x[None, these]
    width = signs.shape[1]
    signs[:width] = numpy.tril(signs[:width], -1)
    return signs
