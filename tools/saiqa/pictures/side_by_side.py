"""Two sets of scored pictures, matched by file name: for each pair, the probability that the one in A is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from saiqa import facts
from saiqa.errors import InputError
from saiqa.evaluate import intervals, tables
from saiqa.files import csv_files, folders, jsonl, places
from saiqa.files.places import Place
from saiqa.pictures.better import NoDistribution, better
from saiqa.pictures.lists import resolve
from saiqa.pictures.results import ERROR_COLUMN, IMAGE_COLUMN, word_column
from saiqa.pictures.scored_files import read_table

if TYPE_CHECKING:
    from saiqa.evaluate.figures import Floats

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")
HOW = (
    "Probability that A is better: P(A > B) + P(A = B) / 2 over the pictures' words, treated as independent. Several pairs: "
    f"the mean with its {intervals.CONFIDENCE:.0%} interval (percentile bootstrap over pairs, {intervals.RESAMPLES} resamples, "
    f"seed {intervals.SEED}; at least {intervals.FEWEST_FOR_INTERVAL} pairs), and the number of pairs in which A is above 0.5."
)

Words = Mapping[str, float]


@dataclass(frozen=True)
class Picture:
    """A scored picture: its path in the table, its file, dimension -> word -> probability, and its error, if any."""

    image: str
    file: str | Place
    words: Mapping[str, Words]
    error: str | None


@dataclass(frozen=True)
class Pair:
    """Two pictures with the same file name, and dimension -> probability that A is better, if both have probabilities."""

    name: str
    a: Picture
    b: Picture
    better: dict[str, float]


def read_pictures(path: Path, data_root: Place) -> list[Picture]:
    """The pictures of a scored table with probabilities. Raises ``InputError``."""
    table = read_table(path, [IMAGE_COLUMN])
    there = [d for d in facts.DIMENSIONS if all(word_column(d, word) in table.columns for word in facts.WORDS)]
    if not there:
        what = f"{folders.shown(path)} has no probabilities of the five words"
        raise InputError(what, "Score the pictures with --probabilities")
    found = []
    for number, row in zip(table.numbers, table.rows, strict=True):
        cells = {d: {w: row[word_column(d, w)] for w in facts.WORDS} for d in there}
        try:
            words = {d: {w: float(cell) for w, cell in part.items()} for d, part in cells.items() if all(part.values())}
        except ValueError as error:
            raise jsonl.line_error(path, number, f"not a row of probabilities ({error})") from None
        image = row[IMAGE_COLUMN]
        found.append(Picture(image, resolve(image, path, data_root), words, row.get(ERROR_COLUMN) or None))
    return found


def match(a: Sequence[Picture], b: Sequence[Picture], names: tuple[str, str], temperature: float) -> list[Pair]:
    """The pairs, in the order of A; two single pictures are a pair whatever their names.

    Args:
        names: names of the two sets, for messages.
        temperature: as in ``better.better``.

    Raises:
        InputError: a file name occurs twice in one set, there is no pair, or numbers are not probabilities.
    """
    if len(a) == len(b) == 1:
        return [_pair(_name(a[0]), a[0], b[0], temperature)]
    by_name = []
    for pictures, name in ((a, names[0]), (b, names[1])):
        csv_files.check_unique(Path(name), "file name", map(_name, pictures))
        by_name.append({_name(picture): picture for picture in pictures})
    pairs = [_pair(name, one, by_name[1][name], temperature) for name, one in by_name[0].items() if name in by_name[1]]
    if not pairs:
        raise InputError(f"{names[0]} and {names[1]} have no file name in common", "Pairs are matched by file name")
    return pairs


def _name(picture: Picture) -> str:
    return places.file_name(picture.image)


def _pair(name: str, a: Picture, b: Picture, temperature: float) -> Pair:
    try:
        found = {d: better(a.words[d], b.words[d], temperature) for d in facts.DIMENSIONS if d in a.words and d in b.words}
    except NoDistribution as error:
        raise InputError(f"{name}: {error}", "Score the pictures again") from None
    return Pair(name, a, b, found)


# ---- over all pairs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mean:
    """The pairs in one dimension: their number, the mean probability that A is better with its interval, and A's wins."""

    n: int
    mean: float
    interval: intervals.Interval | None
    wins: int


def means(pairs: Iterable[Pair]) -> dict[str, Mean]:
    """Dimension -> summary of its pairs; only for dimensions that a pair has."""
    import pandas

    table = pandas.DataFrame([pair.better for pair in pairs], columns=list(facts.DIMENSIONS), dtype=float)
    return {str(name): _mean(column.dropna().to_numpy()) for name, column in table.items() if column.notna().any()}


def _mean(values: Floats) -> Mean:
    interval = None
    if len(values) >= intervals.FEWEST_FOR_INTERVAL:
        interval = intervals.percentile_interval(intervals.resample(lambda x, axis=-1: x.mean(axis), values))
    return Mean(len(values), float(values.mean()), interval, int((values > 0.5).sum()))


SUMMARY_HEADER = ["dimension", "pairs", "A is better", "A above 0.5"]


def summary(found: Mapping[str, Mean]) -> list[list[str]]:
    """The cells under ``SUMMARY_HEADER``, one row per dimension."""
    return [[d, str(m.n), tables.figure(m.mean, m.interval), str(m.wins)] for d, m in found.items()]


def pair_table(pairs: Sequence[Pair]) -> list[str]:
    """The lines of the table of pairs, one per pair."""
    dimensions = [d for d in facts.DIMENSIONS if any(d in pair.better for pair in pairs)]
    rows = [[pair.name, *(tables.figure(pair.better.get(d)) for d in dimensions)] for pair in pairs]
    return tables.lines(tables.TEXT, ["A is better", *dimensions], rows, [], labels=1)
