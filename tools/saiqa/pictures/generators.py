"""Mean scores per generator, if a list names the pictures' generators. pandas is imported on first use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from saiqa import facts
from saiqa.evaluate import intervals, tables
from saiqa.pictures.listed import LISTED_KEY, cell
from saiqa.pictures.results import OVERALL_COLUMN, Layout

if TYPE_CHECKING:
    from pandas import DataFrame

HOW = (
    f"Mean scores by {facts.GENERATOR_COLUMN}, best overall first; brackets: {intervals.CONFIDENCE:.0%} intervals, "
    f"percentile bootstrap over images, {intervals.RESAMPLES} resamples, seed {intervals.SEED}; none for fewer than "
    f"{intervals.FEWEST_FOR_INTERVAL} images."
)


@dataclass(frozen=True)
class Generator:
    """The pictures of one generator.

    Attributes:
        n: number of pictures with a score.
        unscored: number of pictures without.
        means: dimension or "overall" -> mean score, 1..5; empty if n is 0.
        intervals: the 95% intervals of the means that have one.
    """

    name: str
    n: int
    unscored: int
    means: dict[str, float]
    intervals: dict[str, intervals.Interval]


@dataclass
class ByGenerator:
    """Collects scored lines and computes each generator's means; lines without a generator are ignored."""

    layout: Layout
    _rows: list[tuple] = field(default_factory=list)

    def add(self, line: dict) -> None:
        """Count a line of the log."""
        name = cell(line.get(LISTED_KEY, {}).get(facts.GENERATOR_COLUMN))
        if name:
            overall = self.layout.judged(line).overall
            scores = [None if overall is None else line["scores"][dimension] for dimension in self.layout.dimensions]
            self._rows.append((name, *scores, overall))

    def generators(self) -> list[Generator]:
        """All generators, best overall score first."""
        if not self._rows:
            return []
        import pandas

        names = [*self.layout.dimensions, OVERALL_COLUMN]
        table = pandas.DataFrame(self._rows, columns=[facts.GENERATOR_COLUMN, *names])
        table[names] = table[names].astype(float)
        found = [_generator(str(name), part[names]) for name, part in table.groupby(facts.GENERATOR_COLUMN)]
        return sorted(found, key=lambda one: -one.means.get(OVERALL_COLUMN, 0))


def _generator(name: str, scores: DataFrame) -> Generator:
    """The means of a frame of scores [images, dimensions and overall]; NaN for a missing score."""
    import numpy

    whole = scores.dropna()
    n = len(whole)
    means = whole.mean().to_dict() if n else {}
    found = {}
    if n >= intervals.FEWEST_FOR_INTERVAL:
        columns = [whole[column].to_numpy() for column in whole]
        resampled = intervals.resample(lambda *c, axis=-1: numpy.stack([one.mean(axis) for one in c]), *columns)
        spans = zip(whole.columns, map(intervals.percentile_interval, resampled), strict=True)
        found = {column: span for column, span in spans if span is not None}
    return Generator(name, n, len(scores) - n, means, found)


def table(generators: Sequence[Generator], layout: Layout) -> list[str]:
    """The lines of the table, one per generator."""
    names = [*layout.dimensions, OVERALL_COLUMN]
    header = [facts.GENERATOR_COLUMN, "n", "unscored", *names]
    rows = [
        [one.name, str(one.n), str(one.unscored), *(tables.figure(one.means.get(n), one.intervals.get(n)) for n in names)]
        for one in generators
    ]
    return tables.lines(tables.TEXT, header, rows, [HOW], labels=1)
