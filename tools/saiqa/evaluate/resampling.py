"""Correlations of bootstrap resamples, from how often each row is drawn."""

from __future__ import annotations

from collections.abc import Iterator

RESAMPLES = 2000
SEED = 0

_BLOCK_CELLS = 4_000_000  # resamples x rows that are in work at once: 32 MB in float64
_PAIR_BLOCK = 512  # rows whose pairs with all others are in work at once


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
