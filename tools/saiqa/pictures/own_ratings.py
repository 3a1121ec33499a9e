"""Matches scored pictures with the user's own table of ratings, by the names that the table uses for pictures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from saiqa import facts
from saiqa.errors import InputError, UsageError
from saiqa.evaluate.scored_table import ScoredRow, check_scores, number
from saiqa.evaluate.summary import NO_GENERATOR, Scored
from saiqa.files import csv_files, folders, ids, places
from saiqa.files.places import Place
from saiqa.files.table_files import open_table
from saiqa.pictures.lists import resolve
from saiqa.pictures.results import ERROR_COLUMN, IMAGE_COLUMN, OVERALL_COLUMN
from saiqa.pictures.scored_files import ScoredTable, read_table

RATED = (*facts.DIMENSIONS, OVERALL_COLUMN)
# Recognised names of rating columns; {} is the dimension.
_MOS_COLUMNS = (facts.MOS_COLUMN.replace("dimension", ""), "{}_mos", "mos_{}", "{}_rating", "rating_{}", "{}")
_SINGLE_COLUMNS = ("mos", "rating", "score_mos", "mean_opinion_score")  # names for a single rating column


# How a picture may be named, the most reliable form first.
_NAMES: Mapping[str, Callable[[str], str]] = {
    "path": str,
    "file name": places.file_name,
    "file name without suffix": folders.image_id,
}


@dataclass(frozen=True)
class Matched:
    """Scores matched with ratings.

    Attributes:
        tables: one per rated dimension, including ``overall`` if it was rated.
        pictures: number of rated pictures that have a row of scores.
        columns: dimension -> the column of its ratings.
        by: what they were matched by.
        not_rated, not_scored: number of pictures without a rating, and of ratings without a picture.
        failed: (picture, reason) for rated pictures that lack a score.
    """

    tables: list[Scored]
    pictures: int
    columns: dict[str, str]
    by: str
    not_rated: int
    not_scored: int
    failed: list[tuple[str, str]]


def match(scores: Path, ratings: Path, id_column: str | None, columns: Mapping[str, str], data_root: Place) -> Matched:
    """Read both tables and match them.

    Args:
        scores: a file written by ``score_images.py``.
        ratings: a CSV or Parquet with a column that names the picture, and columns of mean opinion scores.
        id_column: the column that names the picture; if None, the one that matches the most pictures.
        columns: dimension or ``overall`` -> column of its ratings; if empty, recognised by name.
        data_root: where the pictures of SA-BENCH are.

    Raises:
        InputError: a file is missing or broken, a column is missing or cannot be recognised, a picture occurs twice, or no
            rating matches a picture.
    """
    table = read_table(scores, [IMAGE_COLUMN])
    there, numbered = open_table(ratings, [*([id_column] if id_column else []), *columns.values()])
    rated = [row for _, row in numbered]
    found = columns or _told(ratings, there, [name for name in RATED if name in table.columns])
    lacking = [name for name in found if name not in table.columns]
    if lacking:
        raise InputError(f"{folders.shown(scores)} has no scores of {', '.join(lacking)}", "Score the pictures for them")
    by, pairs = _paired(table, scores, rated, [id_column] if id_column else there, ratings)
    matched = [(table.rows[one], rated[other]) for one, other in pairs]
    files = [places.place(resolve(row[IMAGE_COLUMN], scores, data_root)) for row, _ in matched]
    tables = [_scored(name, column, matched, files, scores) for name, column in found.items()]
    without = [row for row, _ in matched if any(number(row[name]) is None for name in found)]
    failed = [(row[IMAGE_COLUMN], row.get(ERROR_COLUMN) or "no score") for row in without]
    return Matched(tables, len(pairs), dict(found), by, len(table.rows) - len(pairs), len(rated) - len(pairs), failed)


def _told(ratings: Path, there: Sequence[str], scored: Sequence[str]) -> dict[str, str]:
    """Dimension -> column of its ratings, recognised by name."""
    lower = {name.lower(): name for name in there}
    found = {}
    for dimension in scored:
        fitting = (form.format(dimension) for form in _MOS_COLUMNS)
        if column := next((lower[name] for name in fitting if name in lower), None):
            found[dimension] = column
    dimensions = [name for name in scored if name != OVERALL_COLUMN]
    single = next((lower[name] for name in _SINGLE_COLUMNS if name in lower), None)
    if not found and single:
        return {dimensions[0] if len(dimensions) == 1 else OVERALL_COLUMN: single}
    if not found:
        what = f"{folders.shown(ratings)}: which columns have ratings? Its columns are {ids.few(there, len(there))}"
        raise InputError(what, "Name them, e.g. --mos_column layout=COLUMN")
    return found


def _paired(
    table: ScoredTable, scores: Path, rated: Sequence[Mapping[str, str]], columns: Sequence[str], ratings: Path
) -> tuple[str, list[tuple[int, int]]]:
    """What matches the most pictures, and the (row of the scores, row of the ratings) pairs."""
    images = [row[IMAGE_COLUMN] for row in table.rows]
    called = {by: list(map(name, images)) for by, name in _NAMES.items()}
    best: tuple[str, str, list[tuple[int, int]]] = ("", "", [])
    for column, by in itertools.product(columns, called):
        places_of = {_NAMES[by](row[column]): number for number, row in enumerate(rated)}
        pairs = [(number, places_of[name]) for number, name in enumerate(called[by]) if name in places_of]
        if len(pairs) > len(best[2]):
            best = column, by, pairs
    column, by, pairs = best
    if not pairs:
        what = f"no picture of {folders.shown(scores)} is rated in {folders.shown(ratings)}"
        first = ", ".join(rated[0][column] for column in columns)[:200]
        raise InputError(what, f"The first picture is {images[0]}; the first row of ratings has {first}")
    paired = {called[by][one] for one, _ in pairs}
    for path, names in ((scores, called[by]), (ratings, [_NAMES[by](row[column]) for row in rated])):
        csv_files.check_unique(path, "picture", (name for name in names if name in paired))
    return f"the {by} in {column}", pairs


def _scored(
    dimension: str,
    column: str,
    matched: Sequence[tuple[Mapping[str, str], Mapping[str, str]]],
    files: Sequence[Place],
    path: Path,
) -> Scored:
    rows = [
        ScoredRow(score[IMAGE_COLUMN], rating[column], score[dimension], number(rating[column]), number(score[dimension]))
        for score, rating in matched
    ]
    check_scores(path, rows)
    both = [{**score, **rating} for score, rating in matched]
    made = [row.get(facts.GENERATOR_COLUMN, "") for row in both]
    generators = [text or NO_GENERATOR for text in made] if any(made) else None
    return Scored(dimension, path, None, rows, generators, files)


def column_of(text: str) -> tuple[str, str]:
    """``layout=COLUMN`` as (dimension, column). Raises ``UsageError`` for another form or an unknown dimension."""
    dimension, equals, column = text.partition("=")
    if not equals or not column or dimension not in RATED:
        raise UsageError(f"--mos_column {text} is not of the form layout=COLUMN", f"Start with one of {', '.join(RATED)}")
    return dimension, column
