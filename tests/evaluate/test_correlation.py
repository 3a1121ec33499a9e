"""PLCC, SRCC, KRCC and RMSE against values computed by hand, and columns without any."""

import math

import pytest

from saiqa.evaluate.figures import CorrelationError, correlate


def test_figures_worked_out_by_hand():
    found = correlate([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0])
    assert found.plcc == pytest.approx(0.8)  # covariance 1, variances 1.25
    assert found.srcc == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert found.krcc == pytest.approx(4 / 6)  # 5 concordant pairs, 1 discordant
    assert found.rmse == pytest.approx(math.sqrt(0.5))
    assert (found.n, found.dropped) == (4, 0)


def test_plcc_is_of_the_raw_scores_and_srcc_of_the_ranks():
    found = correlate([1.0, 2.0, 3.0, 4.0], [1.0, 1.1, 1.2, 5.0])
    assert found.srcc == pytest.approx(1)
    assert found.plcc < 0.85


def test_rows_without_a_number_are_dropped_and_counted():
    found = correlate([1.0, None, 3.0, 4.0, math.nan, 2.0], [1.0, 2.0, 3.0, 5.0, 2.0, None])
    assert (found.n, found.dropped) == (3, 3)


def test_fewer_than_three_rows_have_no_correlation():
    with pytest.raises(CorrelationError, match="2 rows"):
        correlate([1.0, 2.0, None], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(("column", "name"), [(0, "predictions"), (1, "opinion scores")])
def test_constant_columns_have_no_correlation(column, name):
    columns = [[1.0, 2.0, 3.0], [2.0, 1.0, 4.0]]
    columns[column] = [3.0, 3.0, 3.0]
    with pytest.raises(CorrelationError, match=name):
        correlate(*columns)


def test_columns_of_two_lengths_are_a_mistake():
    with pytest.raises(ValueError, match="shorter"):
        correlate([1.0, 2.0, 3.0], [1.0, 2.0])
