"""Agreement of predicted scores with people's: PLCC, SRCC, KRCC, RMSE.

Pure; numpy and scipy are imported on first use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

FEWEST_ROWS = 3  # two points always lie on a line


class CorrelationError(ValueError):
    """Columns over which no correlation is defined."""


@dataclass(frozen=True)
class Correlation:
    """How far two columns agree.

    Attributes:
        plcc: Pearson's linear correlation of the raw scores, -1..1.
        srcc: Spearman's rank correlation, -1..1.
        krcc: Kendall's rank correlation (tau-b), -1..1.
        rmse: root mean squared difference, in points of the 1..5 scale.
        n: rows that went in.
        dropped: rows left out because one of the two numbers was missing.
    """

    plcc: float
    srcc: float
    krcc: float
    rmse: float
    n: int
    dropped: int


def correlate(predicted: Sequence[float | None] | Floats, measured: Sequence[float | None] | Floats) -> Correlation:
    """Compare predictions with mean opinion scores, row by row.

    Args:
        predicted: scores, [rows]; None or NaN where there is none.
        measured: mean opinion scores, [rows]; None or NaN where there is none.

    Raises:
        CorrelationError: fewer than three complete rows, or a column that is the same in all of them.
    """
    import numpy
    from scipy import stats

    rows = numpy.array(list(zip(predicted, measured, strict=True)), dtype=numpy.float64).reshape(-1, 2)  # None becomes NaN
    rows = rows[numpy.isfinite(rows).all(axis=1)]
    x, y = numpy.ascontiguousarray(rows.T)
    n = len(rows)
    if n < FEWEST_ROWS:
        raise CorrelationError(f"{n} rows have both a prediction and a MOS, a correlation needs {FEWEST_ROWS}")
    for name, column in (("predictions", x), ("mean opinion scores", y)):
        if column.min() == column.max():
            raise CorrelationError(f"all {n} {name} are {column[0]:g}, so that no correlation is defined")

    values = [float(measure(x, y).statistic) for measure in (stats.pearsonr, stats.spearmanr, stats.kendalltau)]
    if not all(map(math.isfinite, values)):
        raise CorrelationError(f"the {n} rows differ too little for a correlation")
    rmse = float(numpy.sqrt(numpy.mean((x - y) ** 2)))
    plcc, srcc, krcc = values
    return Correlation(plcc, srcc, krcc, rmse=rmse, n=n, dropped=len(predicted) - n)


def is_number(value: float | None) -> bool:
    """Whether a cell takes part in a figure: it is there and finite."""
    return value is not None and math.isfinite(value)
