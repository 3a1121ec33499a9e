"""The score stage of ``infer.py``: ratings -> the table of people's ratings with ``score_pred``."""

from __future__ import annotations

import itertools
import operator
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from saiqa import facts, scoring
from saiqa.benchmark.jobs import Job
from saiqa.errors import InputError
from saiqa.files import csv_files, folders, ids, jsonl, question_files
from saiqa.notes import Notes
from saiqa.run.record import Failures, failed_list, read_run_record, write_run_record


def read_people(job: Job, rated: Iterable[str], columns: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """The table of people's ratings, as ``csv_files.read_cells`` returns it, for the images that are rated.

    Args:
        rated: ids that have, or will have, a rating of the model.
        columns: columns that must be there besides the id.

    Raises:
        InputError: the table is missing or broken, or it has none of the rated ids.
    """
    folders.require_data(job.input_csv)
    names, rows = csv_files.read_cells(job.input_csv, required=(facts.ID_COLUMN, *columns))
    if not _meet(set(_ids(names, rows)), rated):
        what = f"{folders.shown(job.input_csv)} has none of the ids of the {job.dimension} images to score"
        raise InputError(what, "Give the --input_csv that belongs to the images")
    return names, rows


def _meet(people: set[str], rated: Iterable[str]) -> bool:
    """Whether an id is on both sides, as text or as the same number."""
    strangers = set()
    for image_id in rated:
        if image_id in people:
            return True
        strangers.add(image_id)
    return bool(ids.same_number(people, strangers))


@dataclass(frozen=True)
class Scoring:
    """The score stage of one job, checked and ready to run.

    Attributes:
        ratings: what the result holds, under the ids of the table.
        columns, rows: the table of people's ratings, cell by cell.
        met: ids of the table -> those of the result that are the same number, and are not there as text.
    """

    job: Job
    ratings: Ratings
    columns: list[str]
    rows: list[list[str]]
    met: dict[str, str]


def prepare_scoring(job: Job) -> Scoring:
    """Read what the score stage needs.

    Raises:
        InputError: a file is missing or broken, or the two files have no id in common.
    """
    ratings = read_ratings(job.output_jsonl)
    columns, rows = read_people(job, ratings.scores)
    met = ids.same_number(_ids(columns, rows), ratings.scores)
    for image_id, rated in met.items():
        ratings.rename(rated, image_id)
    return Scoring(job, ratings, columns, rows, met)


def score(scoring_job: Scoring, out: Notes) -> tuple[int, Failures]:
    """Write the input CSV with ``score_pred``; return how many rows have one, and the ids that go without."""
    job, scores, columns = scoring_job.job, scoring_job.ratings.scores, scoring_job.columns
    known = set(_ids(columns, scoring_job.rows))
    failures = {image_id: f"not in {folders.shown(job.input_csv)}" for image_id in scores if image_id not in known}
    rows = _limited_rows(scoring_job)
    not_rated = f"no rating in {folders.shown(job.output_jsonl)}"
    values = scoring_job.ratings.in_turn(_ids(columns, rows), not_rated)
    reasons = {i: value for i, value in zip(_ids(columns, rows), values, strict=True) if isinstance(value, str)}
    failures |= reasons
    predictions = ["" if isinstance(value, str) else repr(value) for value in values]
    _write_scored(job.output_csv, columns, rows, predictions)
    scored = sum(not isinstance(value, str) for value in values)
    irregular = _irregular(scoring_job, rows)
    for count, what in irregular.values():
        if count:
            out.note(f"{job.dimension}: {count} {what}")
    counts = {name: count for name, (count, _) in irregular.items()}
    record = read_run_record(job.output_jsonl) | {"score": _score_record(job, scored, counts, failures)}
    write_run_record(job.output_csv, record)
    return scored, failures


def _write_scored(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], predictions: Sequence[str]) -> None:
    """The table with the predictions as its last column, in place of one that it may have."""
    kept = [place for place, name in enumerate(columns) if name != facts.PREDICTION_COLUMN]
    if len(kept) < len(columns):
        columns, *rows = ([row[place] for place in kept] for row in (columns, *rows))
    cells = ([*row, prediction] for row, prediction in zip(rows, predictions, strict=True))
    csv_files.write_cells(path, [*columns, facts.PREDICTION_COLUMN], cells)


@dataclass
class Ratings:
    """The ratings in a result, as scores.

    Attributes:
        scores: image id -> score from 1 to 5, or why there is none; of an id that comes more than once the first.
        later: id -> the others, in the order of the file, of the ids that come more than once.
        lacking_words: how many lines have a score of fewer than the five words, as the release writes them.
    """

    scores: dict[str, float | str] = field(default_factory=dict)
    later: dict[str, list[float | str]] = field(default_factory=dict)
    lacking_words: int = 0

    def count(self, image_id: str) -> int:
        """How many ratings an id has."""
        return (image_id in self.scores) + len(self.later.get(image_id, ()))

    def rename(self, old: str, new: str) -> None:
        """Put the ratings of an id under another one, which has none."""
        if old in self.scores:
            self.scores[new] = self.scores.pop(old)
        if old in self.later:
            self.later[new] = self.later.pop(old)

    def in_turn(self, image_ids: Iterable[str], otherwise: str) -> list[float | str]:
        """The ratings of rows with these ids: a row's is the one at its place among those of its id, else the last of them.

        Args:
            otherwise: what a row without any has.
        """
        turns = {i: itertools.chain([self.scores[i]], more, itertools.repeat(more[-1])) for i, more in self.later.items()}
        return [next(turns[i]) if i in turns else self.scores.get(i, otherwise) for i in image_ids]


def read_ratings(path: Path) -> Ratings:
    """What a result holds.

    Raises:
        InputError: the file is broken.
    """
    ratings = Ratings()
    for number, line in jsonl.stream_jsonl(path):
        image_id = folders.image_id(jsonl.only_image(path, number, line))
        value = _score_or_reason(line.get("logits"), path, ratings)
        if image_id in ratings.scores:
            ratings.later.setdefault(image_id, []).append(value)
        else:
            ratings.scores[image_id] = value
    return ratings


def _irregular(scoring_job: Scoring, rows: Sequence[Sequence[str]]) -> dict[str, tuple[int, str]]:
    """What is out of the ordinary and still gives scores: name in the run record -> how often, and what it is."""
    job, ratings = scoring_job.job, scoring_job.ratings
    table, result = folders.shown(job.input_csv), folders.shown(job.output_jsonl)
    counts = Counter(_ids(scoring_job.columns, rows))
    twins = [image_id for image_id, count in counts.items() if count > 1]
    sharing = sum(max(0, counts[i] - ratings.count(i)) for i in twins if i in ratings.scores)
    left_over = sum(max(0, ratings.count(i) - counts[i]) for i in ratings.later if i in counts)
    met = (f"{image_id} and {other}" for image_id, other in scoring_job.met.items())
    of_table, of_result = ids.few(twins, len(twins)), ids.few(ratings.later, len(ratings.later))
    return {
        "lines_lacking_words": (ratings.lacking_words, f"lines of {result} scored over fewer than the five words"),
        "twin_ids_of_people": (len(twins), f"ids that come more than once in {table}, each row scored ({of_table})"),
        "twin_ids_of_model": (len(ratings.later), f"ids that come more than once in {result} ({of_result})"),
        "rows_sharing_a_rating": (sharing, "rows scored by the rating of an earlier row of their id, which has no more"),
        "ids_met_as_numbers": (
            len(scoring_job.met),
            f"ids of {table} that are in {result} as the same number only ({ids.few(met, len(scoring_job.met))})",
        ),
        "ratings_left_over": (left_over, "ratings that no row takes: their ids have fewer rows"),
    }


def _ids(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    return map(operator.itemgetter(columns.index(facts.ID_COLUMN)), rows)


def _limited_rows(scoring_job: Scoring) -> list[list[str]]:
    """The rows of the first ``job.limit`` images of the questions; all rows without a limit."""
    job, columns, rows = scoring_job.job, scoring_job.columns, scoring_job.rows
    if job.limit is None:
        return rows
    folders.require_data(job.test_jsonl)
    asked = [folders.image_id(record.image) for record in question_files.stream_records(job.test_jsonl)]
    first, whole = Counter(asked[: job.limit]), Counter(asked)
    met = ids.same_number(_ids(columns, rows), whole)
    # Of an id whose questions come again behind the limit, so many rows as come before it.
    wanted = {i: count if count < whole[i] else len(rows) for i, count in first.items()}
    placed = zip(rows, ids.numbered(_ids(columns, rows)), strict=True)
    return [row for row, (image_id, before) in placed if before < wanted.get(met.get(image_id, image_id), 0)]


def _score_or_reason(logits: object, path: Path, ratings: Ratings) -> float | str:
    """A score from 1 to 5, or why there is none; where it is of fewer than the five words that is counted."""
    if not isinstance(logits, dict):
        return f"no rating in {folders.shown(path)}"
    try:
        value, complete = scoring.score_of_known(logits)
    except scoring.ScoringError as error:
        return f"{error} in {folders.shown(path)}"
    ratings.lacking_words += not complete
    return value


def _score_record(job: Job, scored: int, irregular: dict[str, int], failures: Failures) -> dict:
    return {
        "input_csv": str(job.input_csv.resolve()),
        "ratings": str(job.output_jsonl.resolve()),
        "n": scored,
        **irregular,
        "failed": failed_list(failures),
        "command": shlex.join(sys.argv),
    }
