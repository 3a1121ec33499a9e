"""Uncertainty of the agreement with people: bootstrap intervals, a logistic mapping, the difference between two runs.

Intervals are percentile intervals over resampled rows (``scipy.stats.bootstrap``; Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13). numpy and scipy are imported on first use.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saiqa.evaluate.figures import Correlation, CorrelationError, correlate, is_number
from saiqa.evaluate.logistic import Curve, CurveError, fit_logistic

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from saiqa.evaluate.figures import Floats

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 0
FEWEST_FOR_INTERVAL = 10  # with fewer rows the resamples repeat each other

_BATCH_CELLS = 4_000_000  # resamples x rows per batch: 32 MB in float64

Interval = tuple[float, float]


# ---- one run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """The metrics of one set of rows, with their uncertainty.

    Attributes:
        figures: PLCC, SRCC, KRCC, RMSE, n and dropped.
        plcc_logistic: PLCC between the MOS and the scores mapped by ``curve``; None if there is no curve.
        curve: the 4-parameter logistic fitted to the rows.
        intervals: "plcc", "srcc", "krcc", "rmse", "plcc_logistic" -> its interval; metrics without one are left out.
        statements: why a curve or an interval is missing, one clause each.
    """

    figures: Correlation
    plcc_logistic: float | None
    curve: Curve | None
    intervals: dict[str, Interval]
    statements: list[str]

    def value(self, name: str) -> float | None:
        """A metric by its name in ``intervals``."""
        return self.plcc_logistic if name == "plcc_logistic" else getattr(self.figures, name)


def assess(predicted: Sequence[float | None], measured: Sequence[float | None]) -> Agreement:
    """Compare predictions with mean opinion scores, with intervals.

    Args:
        predicted: scores, [rows]; None or NaN if missing.
        measured: mean opinion scores, [rows]; None or NaN if missing.

    Raises:
        CorrelationError: as ``figures.correlate``.
    """
    figures = correlate(predicted, measured)
    x, y = complete(predicted, measured)
    statements = []
    curve: Curve | None = None
    mapped: float | None = None
    try:
        curve = fit_logistic(x, y)
        mapped = float(_pearson(curve(x), y))
        if curve.is_step(x):
            statements.append(f"the logistic fit is a step at {curve.centre:.2f}, which inflates its PLCC")
    except CurveError as error:
        statements.append(f"no logistic fit: {error}")
    intervals = {}
    if figures.n < FEWEST_FOR_INTERVAL:
        statements.append(f"no intervals: {figures.n} rows, but at least {FEWEST_FOR_INTERVAL} are needed")
    else:
        for name, values in _resampled(x, y, curve).items():
            interval = percentile_interval(values)
            if interval is None:
                statements.append(f"no interval for {name}: it is undefined in some resamples")
            else:
                intervals[name] = interval
    return Agreement(figures, mapped, curve, intervals, statements)


def complete(*columns: Sequence[float | None]) -> Floats:
    """The rows in which every column has a number, as one float64 array [columns, rows]."""
    import numpy

    rows = [row for row in zip(*columns, strict=True) if all(map(is_number, row))]
    return numpy.asarray(rows, dtype=numpy.float64).reshape(len(rows), len(columns)).T


def _resampled(x: Floats, y: Floats, curve: Curve | None) -> dict[str, Floats]:
    """The metrics in every resample, name -> [resamples]; NaN where one is undefined.

    The curve is not refitted in the resamples. To first order refitting gives the same: at the best fit the correlation does
    not change with the parameters.
    """
    import numpy
    from scipy import stats

    def figures(x: Floats, y: Floats, axis: int = -1) -> Floats:
        found = [_pearson(x, y), _spearman(x, y), numpy.sqrt(((x - y) ** 2).mean(axis))]
        mapped = [] if curve is None else [_pearson(curve(x), y)]
        return numpy.stack([*found, *mapped, stats.kendalltau(x, y, axis=axis).statistic])

    names = ["plcc", "srcc", "rmse", *([] if curve is None else ["plcc_logistic"]), "krcc"]
    return dict(zip(names, resample(figures, x, y), strict=True))


def resample(figures: Callable[..., Floats], *columns: NDArray[numpy.number]) -> Floats:
    """The results of ``figures`` on resampled rows, [figures, RESAMPLES]; it takes columns [..., rows] and their axis."""
    from scipy import stats

    batch = max(1, _BATCH_CELLS // len(columns[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about resamples in which a metric is undefined: they are NaN
        found = stats.bootstrap(
            columns, figures, paired=True, vectorized=True, method="percentile", n_resamples=RESAMPLES, batch=batch, rng=SEED
        )
    return found.bootstrap_distribution


def _pearson(x: Floats, y: Floats) -> Floats:
    from scipy import stats

    return stats.pearsonr(x, y, axis=-1).statistic


def _spearman(x: Floats, y: Floats) -> Floats:
    from scipy import stats

    return _pearson(stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1))


def percentile_interval(values: Floats) -> Interval | None:
    """The percentile interval; None if a resample has no value."""
    import numpy

    if not numpy.isfinite(values).all():
        return None
    low, high = numpy.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


# ---- two runs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """One metric of two runs over the same rows.

    Attributes:
        first, second: the metric of each run.
        low, high: 95% interval of first - second; None if undefined.
        p: two-sided p-value of "there is no difference": twice the smaller share of resamples on either side of 0,
            counting the sample itself, so that it is never 0; None if undefined.
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


def compare(first: Sequence[float | None], second: Sequence[float | None], measured: Sequence[float | None]) -> Comparison:
    """Test the difference between two runs with a paired bootstrap: both use the same resamples.

    Args:
        first, second: the scores of the two runs, [rows]; None if missing.
        measured: mean opinion scores, [rows].

    Raises:
        CorrelationError: as ``figures.correlate``, or too few rows.
    """
    import numpy

    a, b, y = complete(first, second, measured)
    if len(y) < FEWEST_FOR_INTERVAL:
        raise CorrelationError(f"{len(y)} rows are complete in both runs, but a comparison needs {FEWEST_FOR_INTERVAL}")
    of_first, of_second = correlate(a, y), correlate(b, y)

    def differences(a: Floats, b: Floats, y: Floats, axis: int = -1) -> Floats:
        return numpy.stack([measure(a, y) - measure(b, y) for measure in (_pearson, _spearman)])

    plcc, srcc = resample(differences, a, b, y)
    return Comparison(
        n=len(y),
        dropped=len(measured) - len(y),
        plcc=_difference(of_first.plcc, of_second.plcc, plcc),
        srcc=_difference(of_first.srcc, of_second.srcc, srcc),
    )


def _difference(first: float, second: float, resampled: Floats) -> Difference:
    interval = percentile_interval(resampled)
    if interval is None:
        return Difference(first, second, None, None, None)
    side = min((resampled <= 0).sum(), (resampled >= 0).sum())
    return Difference(first, second, *interval, p=min(1.0, 2 * (int(side) + 1) / (len(resampled) + 1)))
