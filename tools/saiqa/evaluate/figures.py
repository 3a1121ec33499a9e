"""Agreement of predicted scores with mean opinion scores: PLCC, SRCC, KRCC, RMSE.

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
    """Columns for which no correlation is defined."""


@dataclass(frozen=True)
class Correlation:
    """How well two columns agree.

    Attributes:
        plcc: Pearson's linear correlation of the raw scores, -1..1.
        srcc: Spearman's rank correlation, -1..1.
        krcc: Kendall's rank correlation (tau-b), -1..1.
        rmse: root mean squared difference, in points on the 1..5 scale.
        n: number of rows used.
        dropped: number of rows left out because one of the two values was missing.
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
        predicted: scores, [rows]; None or NaN if missing.
        measured: mean opinion scores, [rows]; None or NaN if missing.

    Raises:
        CorrelationError: fewer than three complete rows, or a constant column.
    """
    import numpy
    from scipy import stats

    rows = numpy.array(list(zip(predicted, measured, strict=True)), dtype=numpy.float64).reshape(-1, 2)  # None becomes NaN
    rows = rows[numpy.isfinite(rows).all(axis=1)]
    x, y = numpy.ascontiguousarray(rows.T)
    n = len(rows)
    if n < FEWEST_ROWS:
        raise CorrelationError(f"{n} rows have both a prediction and a MOS, but a correlation needs {FEWEST_ROWS}")
    for name, column in (("predictions", x), ("mean opinion scores", y)):
        if column.min() == column.max():
            raise CorrelationError(f"all {n} {name} are {column[0]:g}, so no correlation is defined")

    values = [float(measure(x, y).statistic) for measure in (stats.pearsonr, stats.spearmanr, stats.kendalltau)]
    if not all(map(math.isfinite, values)):
        raise CorrelationError(f"the {n} rows differ too little for a correlation")
    rmse = float(numpy.sqrt(numpy.mean((x - y) ** 2)))
    plcc, srcc, krcc = values
    return Correlation(plcc, srcc, krcc, rmse=rmse, n=n, dropped=len(predicted) - n)


def is_number(value: float | None) -> bool:
    """Whether a cell counts: it is present and finite."""
    return value is not None and math.isfinite(value)
