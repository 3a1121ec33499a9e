"""How sure the agreement of scores with people's is: bootstrap intervals, a logistic mapping, the difference of two runs.

Pure; numpy and scipy are imported on first use. Built upon ``correlation``, which has the figures themselves.

Resampling. A resample of n rows is n draws with replacement; all that is kept of it is how often each row was drawn,
its counts. Every figure is a sum over the rows weighted with these counts, also the ranks: the rank of a value is the
number of draws below it. So nothing is sorted per resample, and a block of resamples is a few matrix products.
Intervals are percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saiqa.evaluate.figures import Correlation, CorrelationError, correlate, is_number
from saiqa.evaluate.logistic import Curve, CurveError, fit_logistic
from saiqa.evaluate.resampling import Ranks, blocks, kendall, pearson, pearson_of, resample_counts, spearman

CONFIDENCE = 0.95
FEWEST_FOR_INTERVAL = 10  # resamples of fewer rows repeat each other

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
        CorrelationError: as ``figures.correlate``.
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
        CorrelationError: as ``figures.correlate``, or too few rows.
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
