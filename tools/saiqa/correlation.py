"""Agreement of predicted scores with people's: PLCC, SRCC, KRCC, RMSE.

Pure. numpy is imported on first use, and scipy not at all: its statistics take longer to import than to compute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


def correlate(predicted: Sequence[float | None], measured: Sequence[float | None]) -> Correlation:
    """Compare predictions with mean opinion scores, row by row.

    Args:
        predicted: scores, [rows]; None or NaN where there is none.
        measured: mean opinion scores, [rows]; None or NaN where there is none.

    Raises:
        CorrelationError: fewer than three complete rows, or a column that is the same in all of them.
    """
    import numpy

    rows = numpy.array(list(zip(predicted, measured, strict=True)), dtype=numpy.float64)  # None becomes NaN
    rows = rows.reshape(-1, 2)[numpy.isfinite(rows.reshape(-1, 2)).all(axis=1)]
    x, y = numpy.ascontiguousarray(rows.T)
    n = len(rows)
    if n < FEWEST_ROWS:
        raise CorrelationError(f"{n} rows have both a prediction and a MOS, a correlation needs {FEWEST_ROWS}")
    for name, column in (("predictions", x), ("mean opinion scores", y)):
        if column.min() == column.max():
            raise CorrelationError(f"all {n} {name} are {column[0]:g}, so that no correlation is defined")

    ranks = [numpy.unique(column, return_inverse=True)[1] for column in (x, y)]  # 0, 1, ..., equal values alike
    values = [float(value) for value in (_pearson(x, y), _spearman(*ranks), _kendall(*ranks))]
    if not all(map(math.isfinite, values)):
        raise CorrelationError(f"the {n} rows differ too little for a correlation")
    rmse = float(numpy.sqrt(numpy.mean((x - y) ** 2)))
    return Correlation(*values, rmse=rmse, n=n, dropped=len(predicted) - n)


def _pearson(x, y) -> float:
    import numpy

    x, y = (_scaled(column - column.mean()) for column in (x, y))
    return min(max(numpy.vecdot(x, y), -1.0), 1.0)


def _scaled(deviations):
    import numpy

    largest = abs(deviations).max()  # squares of the bare deviations could overflow or vanish
    return deviations / (largest * numpy.sqrt(((deviations / largest) ** 2).sum()))


def _spearman(x, y) -> float:
    """Of ranks [rows]: Pearson's correlation of the mid-ranks."""
    import numpy

    return numpy.corrcoef(_mid_ranks(x), _mid_ranks(y))[1, 0]


def _mid_ranks(ranks):
    import numpy

    sizes = numpy.bincount(ranks)
    return (sizes.cumsum() - (sizes - 1) / 2)[ranks]


def _kendall(x, y) -> float:
    """Of ranks [rows], tau-b: pairs in order less those in disorder, over the geometric mean of those untied in x and in y."""
    import numpy

    both = x * (y.max() + 1) + y
    pairs = len(x) * (len(x) - 1) // 2
    tied_x, tied_y = (_pairs_within(numpy.bincount(ranks)) for ranks in (x, y))
    tied_both = _pairs_within(numpy.unique(both, return_counts=True)[1])
    disordered = _inversions(y[numpy.argsort(both)])
    excess = pairs - tied_x - tied_y + tied_both - 2 * disordered
    return min(max(excess / numpy.sqrt(pairs - tied_x) / numpy.sqrt(pairs - tied_y), -1.0), 1.0)


def _pairs_within(sizes) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


def _inversions(ranks) -> int:
    """Pairs whose first is the larger, of whole numbers from 0.

    Two numbers are in the order of the highest bit in which they differ. So bit by bit, from the highest: among those alike
    so far, which lie together and in their first order, the ones that stand in front of each zero are counted.
    """
    import numpy

    found = 0
    ranks = ranks.astype(numpy.min_scalar_type(ranks.max()))  # short numbers are sorted in linear time
    for bit in reversed(range(int(ranks.max()).bit_length())):
        alike, bits = ranks >> (bit + 1), ranks >> bit & 1
        before = bits.cumsum(dtype=numpy.int64) - bits
        is_first = numpy.concatenate([[True], alike[1:] != alike[:-1]])
        before -= numpy.maximum.accumulate(numpy.where(is_first, before, 0))
        found += int(before[bits == 0].sum())
        ranks = ranks[numpy.argsort(ranks >> bit, kind="stable")]
    return found


def is_number(value: float | None) -> bool:
    """Whether a cell takes part in a figure: it is there and finite."""
    return value is not None and math.isfinite(value)
