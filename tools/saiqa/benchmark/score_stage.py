"""The score stage of ``infer.py``: ratings -> the table of people's ratings with ``score_pred``."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from saiqa import facts, scoring
from saiqa.errors import InputError
from saiqa.files import csv_files, folders, ids
from saiqa.files.csv_files import Cells
from saiqa.files.job_files import Job, JobFiles
from saiqa.files.question_files import QuestionFile
from saiqa.notes import Notes
from saiqa.run.record import Failures, failed_list, read_run_record, write_run_record


def check_people(people: Cells, rated: Iterable[str], dimension: str) -> None:
    """Refuse a table of people's ratings for other images.

    Args:
        rated: ids that have, or will have, a rating of the model.

    Raises:
        InputError: the table has none of the rated ids.
    """
    if not _meet(set(people.column(facts.ID_COLUMN)), rated):
        what = f"{folders.shown(people.path)} has none of the ids of the {dimension} images to score"
        raise InputError(what, "Give the --input_csv that belongs to the images")


def _meet(people: set[str], rated: Iterable[str]) -> bool:
    """Whether the two share an id, as text or as the same number."""
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
        ratings: the ratings of the result, under the ids of the table.
        people: the table of people's ratings.
        questions: the questions, to which a limit refers.
        met: ids of the table -> ids of the result that are the same number but not the same text.
    """

    job: Job
    ratings: Ratings
    people: Cells
    questions: QuestionFile
    met: dict[str, str]


def prepare(files: JobFiles) -> Scoring:
    """Validate the inputs of the score stage.

    Args:
        files: with questions, ratings and people.

    Raises:
        InputError: the ratings are broken, or the two files have no id in common.
    """
    assert files.questions is not None and files.ratings is not None and files.people is not None
    job, people = files.job, files.people
    ratings = scored_ratings(files.ratings, folders.shown(job.output_jsonl))
    check_people(people, ratings.scores, job.dimension)
    met = ids.same_number(people.column(facts.ID_COLUMN), ratings.scores)
    for image_id, rated in met.items():
        ratings.rename(rated, image_id)
    return Scoring(job, ratings, people, files.questions, met)


def score(scoring_job: Scoring, out: Notes) -> tuple[int, Failures]:
    """Write the input CSV with ``score_pred``; return how many rows have a score, and the ids without one."""
    job, scores = scoring_job.job, scoring_job.ratings.scores
    known = set(scoring_job.people.column(facts.ID_COLUMN))
    failures = {image_id: f"not in {folders.shown(job.input_csv)}" for image_id in scores if image_id not in known}
    table = _limited(scoring_job)
    image_ids = table.column(facts.ID_COLUMN)
    values = scoring_job.ratings.in_turn(image_ids, f"no rating in {folders.shown(job.output_jsonl)}")
    failures |= {i: value for i, value in zip(image_ids, values, strict=True) if isinstance(value, str)}
    _write_scored(job.output_csv, table, ["" if isinstance(value, str) else repr(value) for value in values])
    scored = sum(not isinstance(value, str) for value in values)
    irregular = _irregular(scoring_job, image_ids)
    for count, what in irregular.values():
        if count:
            out.note(f"{job.dimension}: {count} {what}")
    counts = {name: count for name, (count, _) in irregular.items()}
    record = read_run_record(job.output_jsonl) | {"score": _score_record(job, scored, counts, failures)}
    write_run_record(job.output_csv, record)
    return scored, failures


def _write_scored(path: Path, table: Cells, predictions: Sequence[str]) -> None:
    """Write the table with the predictions as its last column, replacing any existing predictions."""
    columns, rows = table.columns, table.rows
    kept = [place for place, name in enumerate(columns) if name != facts.PREDICTION_COLUMN]
    if len(kept) < len(columns):
        columns, *rows = ([row[place] for place in kept] for row in (columns, *rows))
    cells = ([*row, prediction] for row, prediction in zip(rows, predictions, strict=True))
    csv_files.write_cells(path, [*columns, facts.PREDICTION_COLUMN], cells)


@dataclass
class Ratings:
    """The ratings in a result, as scores.

    Attributes:
        scores: image id -> score from 1 to 5, or why there is none; for duplicate ids the first.
        later: id -> the others in the order of the file, for duplicate ids.
        lacking_words: how many lines are scored from fewer than five words, as the release writes them.
    """

    scores: dict[str, float | str] = field(default_factory=dict)
    later: dict[str, list[float | str]] = field(default_factory=dict)
    lacking_words: int = 0

    def count(self, image_id: str) -> int:
        """How many ratings an id has."""
        return (image_id in self.scores) + len(self.later.get(image_id, ()))

    def rename(self, old: str, new: str) -> None:
        """Move the ratings of an id to another id, which has none."""
        if old in self.scores:
            self.scores[new] = self.scores.pop(old)
        if old in self.later:
            self.later[new] = self.later.pop(old)

    def in_turn(self, image_ids: Iterable[str], otherwise: str) -> list[float | str]:
        """The ratings of rows with these ids: the n-th row of an id gets its n-th rating, or its last if there are fewer.

        Args:
            otherwise: the value for rows without a rating.
        """
        turns = {i: itertools.chain([self.scores[i]], more, itertools.repeat(more[-1])) for i, more in self.later.items()}
        return [next(turns[i]) if i in turns else self.scores.get(i, otherwise) for i in image_ids]


def scored_ratings(lines: Iterable[tuple[str, dict]], source: str) -> Ratings:
    """Scores of a result's (image path, line) pairs; ``source`` names it in messages. Raises what ``lines`` raises."""
    ratings = Ratings()
    for image, line in lines:
        image_id = folders.image_id(image)
        value = _score_or_reason(line.get("logits"), source, ratings)
        if image_id in ratings.scores:
            ratings.later.setdefault(image_id, []).append(value)
        else:
            ratings.scores[image_id] = value
    return ratings


def _irregular(scoring_job: Scoring, image_ids: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Irregularities that do not prevent scoring: name in the run record -> how often, and a description."""
    job, ratings = scoring_job.job, scoring_job.ratings
    table, result = folders.shown(job.input_csv), folders.shown(job.output_jsonl)
    counts = Counter(image_ids)
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


def _limited(scoring_job: Scoring) -> Cells:
    """The rows of the first ``job.limit`` images of the questions; all rows without a limit."""
    limit, people = scoring_job.job.limit, scoring_job.people
    if limit is None:
        return people
    asked = [record.image_id for record in scoring_job.questions]
    first, whole = Counter(asked[:limit]), Counter(asked)
    image_ids = people.column(facts.ID_COLUMN)
    met = ids.same_number(image_ids, whole)
    # Of an id whose questions come again behind the limit, so many rows as come before it.
    wanted = {i: count if count < whole[i] else len(image_ids) for i, count in first.items()}
    placed = zip(people.rows, ids.numbered(image_ids), strict=True)
    rows = [row for row, (image_id, before) in placed if before < wanted.get(met.get(image_id, image_id), 0)]
    return replace(people, rows=rows)


def _score_or_reason(logits: object, source: str, ratings: Ratings) -> float | str:
    """A score from 1 to 5, or why there is none; scores from fewer than five words are counted."""
    if not isinstance(logits, dict):
        return f"no rating in {source}"
    try:
        value, complete = scoring.score_of_known(logits)
    except scoring.ScoringError as error:
        return f"{error} in {source}"
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
