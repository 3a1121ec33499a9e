"""Intervals, logistic fit and paired comparison against scipy, an independent fit, and simulated samples."""

from __future__ import annotations

import math

import numpy
import pytest
from scipy import optimize, stats

from saiqa.evaluate import intervals, logistic
from saiqa.evaluate.figures import CorrelationError


def sample(rows: int, seed: int = 0, rho: float = 0.8, digits: int = 12):
    """Scores and mean opinion scores with correlation ``rho``, with ties if there are few digits."""
    draw = numpy.random.default_rng(seed)
    x, noise = draw.normal(size=(2, rows))
    y = rho * x + math.sqrt(1 - rho**2) * noise
    return numpy.round(3 + 0.7 * x, digits), numpy.round(3 + 0.9 * y, digits)


# ---- resamples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", [12, 1, 0])
def test_intervals_are_those_of_rows_drawn_one_by_one(digits):
    """The same rows for every metric, and metrics of tied rows by scipy's own functions."""
    x, y = sample(150, digits=digits)
    drawn = intervals.resample(lambda rows, axis: numpy.moveaxis(rows, axis, 0), numpy.arange(150.0)).T.astype(int)
    found = intervals.assess(x, y).intervals
    for name, measure in {"plcc": stats.pearsonr, "srcc": stats.spearmanr, "krcc": stats.kendalltau}.items():
        values = [measure(x[rows], y[rows]).statistic for rows in drawn]
        assert found[name] == pytest.approx(numpy.quantile(values, [0.025, 0.975]), abs=1e-10), name


def test_an_assessment_is_repeatable_and_its_intervals_hold_the_figures():
    x, y = sample(200)
    found = intervals.assess(x, y)
    assert found == intervals.assess(x, y)
    assert set(found.intervals) == {"plcc", "srcc", "krcc", "rmse", "plcc_logistic"}
    assert found.statements == []
    for name, (low, high) in found.intervals.items():
        assert low < found.value(name) < high, name


def test_the_plcc_interval_is_scipys_bootstrap():
    x, y = sample(120)
    low, high = intervals.assess(x, y).intervals["plcc"]
    theirs = stats.bootstrap(
        (x, y), lambda a, b: stats.pearsonr(a, b).statistic, paired=True, vectorized=False, method="percentile",
        n_resamples=2000, rng=1,
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_rows_without_a_number_are_dropped_and_counted():
    x, y = map(list, sample(50))
    whole = intervals.assess(x, y)
    x, y = [*x, None, 2.0, math.nan], [*y, 3.0, None, 1.0]
    dropped = intervals.assess(x, y)
    assert dropped.figures.dropped == 3
    assert dropped.intervals == whole.intervals


@pytest.mark.slow
def test_intervals_cover_the_true_correlation():
    """For a bivariate normal: Pearson rho, Spearman 6/pi asin(rho/2), Kendall 2/pi asin(rho)."""
    rho, samples = 0.7, 100
    true = {"plcc": rho, "srcc": 6 / math.pi * math.asin(rho / 2), "krcc": 2 / math.pi * math.asin(rho)}
    covered = dict.fromkeys(true, 0)
    for seed in range(samples):
        found = intervals.assess(*sample(150, seed=1000 + seed, rho=rho))
        for name, value in true.items():
            low, high = found.intervals[name]
            covered[name] += low <= value <= high
    fewest, most = stats.binom.interval(0.999, samples, 0.95)
    assert all(fewest <= count <= most for count in covered.values()), covered


def test_few_rows_have_figures_and_no_intervals():
    found = intervals.assess([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0])
    assert found.figures.plcc == pytest.approx(0.8)
    assert (found.intervals, found.curve) == ({}, None)
    assert any("4 rows" in statement for statement in found.statements)


def test_no_interval_where_resamples_are_constant():
    found = intervals.assess([3.0] * 11 + [4.0], list(numpy.linspace(1, 5, 12)))
    assert "srcc" not in found.intervals
    assert "no interval for srcc: it is undefined in some resamples" in found.statements


# ---- the logistic ----------------------------------------------------------------------------------------------------


def vqeg(score, b1, b2, b3, b4):
    return b2 + (b1 - b2) / (1 + numpy.exp(-(score - b3) / abs(b4)))


@pytest.mark.parametrize("width", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_logistic_fit_is_that_of_an_independent_least_squares(seed, width):
    draw = numpy.random.default_rng(seed)
    x = draw.normal(3, 0.7, 400)
    y = vqeg(x, 4.6, 1.4, 3.2, width) + draw.normal(0, 0.3, 400)
    start = [y.max(), y.min(), x.mean(), x.std()]
    theirs, _ = optimize.curve_fit(vqeg, x, y, p0=start, maxfev=100_000, xtol=1e-14, ftol=1e-14)
    ours = logistic.fit_logistic(x, y)
    numpy.testing.assert_allclose(ours(x), vqeg(x, *theirs), rtol=0, atol=1e-6)
    found = intervals.assess(x, y)
    assert found.plcc_logistic == pytest.approx(stats.pearsonr(vqeg(x, *theirs), y).statistic, abs=1e-6)
    assert (ours.upper, ours.lower, ours.centre) == pytest.approx(tuple(theirs[:3]), abs=1e-4)


def test_a_line_is_a_limit_of_the_logistic():
    x, y = sample(300)
    line = numpy.polynomial.Polynomial.fit(x, y, 1)
    curve = logistic.fit_logistic(x, line(x))
    numpy.testing.assert_allclose(curve(x), line(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "y", "why"),
    [
        (numpy.linspace(1, 5, 50), numpy.linspace(5, 1, 50), "the best curve decreases"),
        (numpy.linspace(1, 5, 50), numpy.full(50, 2.5), "all mean opinion scores are 2.5"),
        (numpy.full(50, 2.5), numpy.linspace(1, 5, 50), "all predictions are 2.5"),
        (numpy.linspace(1, 5, 9), numpy.linspace(1, 5, 9), "9 rows"),
    ],
)
def test_columns_that_have_no_curve(x, y, why):
    with pytest.raises(logistic.CurveError, match=why):
        logistic.fit_logistic(x, y)


def test_reversed_scores_have_no_logistic_plcc():
    x, y = sample(100)
    found = intervals.assess(-x, y)
    assert found.figures.plcc < -0.5
    assert found.plcc_logistic is None and "plcc_logistic" not in found.intervals
    assert found.statements == ["no logistic fit: the best curve decreases: scores and MOS are negatively related"]


def test_a_step_is_called_one():
    x = numpy.linspace(1, 5, 100)
    y = numpy.where(x < 3.2, 2.0, 4.0) + numpy.random.default_rng(0).normal(0, 0.1, 100)
    assert intervals.assess(x, y).statements == ["the logistic fit is a step at 3.20, which inflates its PLCC"]


# ---- two runs --------------------------------------------------------------------------------------------------------


def test_a_better_run_is_told_and_the_other_way_round_alike():
    good, y = sample(300, rho=0.9)
    bad = good + numpy.random.default_rng(5).normal(0, 0.7, 300)
    found, turned = intervals.compare(good, bad, y), intervals.compare(bad, good, y)
    for name in ("plcc", "srcc"):
        one, other = getattr(found, name), getattr(turned, name)
        assert one.low > 0 and one.p < 0.01
        assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
        assert one.p == other.p
    assert found.plcc.first == pytest.approx(stats.pearsonr(good, y).statistic)


def test_a_run_does_not_differ_from_itself():
    x, y = sample(50)
    same = intervals.compare(x, x, y).plcc
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


@pytest.mark.slow
def test_the_test_keeps_its_level():
    """Of 150 pairs of equally good runs about one in twenty differs at p < 0.05, and the interval misses 0 as often."""
    rejected = missed = 0
    for seed in range(150):
        draw = numpy.random.default_rng(seed)
        y, first, second = draw.normal(size=(3, 120))
        found = intervals.compare(y + first, y + second, y).srcc
        rejected += found.p < 0.05
        missed += not found.low <= 0 <= found.high
    fewest, most = stats.binom.interval(0.999, 150, 0.05)
    assert fewest <= rejected <= most
    assert fewest <= missed <= most


def test_only_rows_complete_in_both_are_compared():
    x, y = map(list, sample(40))
    found = intervals.compare([None, *x[1:]], [*x[:-1], None], y)
    assert (found.n, found.dropped) == (38, 2)
    with pytest.raises(CorrelationError, match="5 rows are complete in both runs"):
        intervals.compare(x[:5], x[:5], y[:5])
