"""The stages of ``infer.py``: questions -> ratings -> scores -> correlation. They meet only in files.

Each stage returns the images it has no result for, as id -> reason; the command lists them and leaves exit code 3.
"""

from __future__ import annotations

import itertools
import math
import operator
import shlex
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from saiqa import bundle, facts, ids, records, runs, scoring, stamps
from saiqa.console import InputError, Output, lacking
from saiqa.correlation import Correlation, CorrelationError, correlate
from saiqa.engines import Engine, Failure, Rating, Request
from saiqa.jobs import Job
from saiqa.models import Model
from saiqa.progress import Progress
from saiqa.questions import Question, Questions, missing_reason
from saiqa.runs import Run
from saiqa.workers import Answers, Workers, rate_batches

Failures = dict[str, str]


# ---- infer: what is known already ------------------------------------------------------------------------------------


@dataclass
class Inference:
    """The infer stage of one job, checked and ready to run."""

    job: Job
    questions: Questions
    run: Run
    with_digests: bool = False


def prepare(job: Job, model: Model, resume: bool, with_digests: bool, out: Output) -> Inference:
    """Check everything cheap of the infer stage; with ``resume``, take over what an earlier run has done.

    Args:
        with_digests: keep the digest of every picture, and tell by it whether a picture has changed.

    Raises:
        InputError: as ``Questions``, or the earlier run was another one.
    """
    log = bundle.partial_path(job.output_jsonl)
    earlier = runs.find_earlier(log, [job.output_jsonl], records.Partial.of_result, out.note) if resume else None
    questions = Questions(job, out, earlier.log if earlier else None, with_digests)
    run = Run(log, model, model.identity(questions.prompt_hash), questions.images, earlier)
    if earlier:
        out.note(f"{job.dimension}: {questions.rated} of {len(questions)} images are rated already")
    if questions.changed:
        out.note(f"{job.dimension}: {runs.changed_note(questions.changed)}")
    return Inference(job, questions, run, with_digests)


# ---- infer: asking ---------------------------------------------------------------------------------------------------


def infer(inference: Inference, engine: Engine | Workers | None, chunk: int, out: Output) -> Failures:
    """Rate what is open, write the result and its run record; return the images without a rating.

    An earlier result stays until the new one is whole, and where not one image could be rated.

    Args:
        engine: None where no question is askable.
        chunk: images a batch that is given to the engine and then saved. Batches are cut at the same places of the
            questions' file whatever is known, missing, or done by how many workers: a log-probability depends in its last
            digits on what shares a model pass.
    """
    job, questions, run = inference.job, inference.questions, inference.run
    if not questions.askable and (run.finished or not questions.rated):
        if run.finished:
            out.note(f"{bundle.shown(job.output_jsonl)} is complete as far as the images are there; nothing to infer")
        return questions.missing
    started = time.monotonic()
    with run.kept(out.note):
        log = run.begin(out.note)
        failures = _rate(inference, engine, chunk, out) if engine else questions.missing
        if log.count or log.others:
            rated = log.finish(job.output_jsonl, run.images)
            record = _run_record(inference, failures, time.monotonic() - started)
            runs.write_run_record(job.output_jsonl, record | {"workers": getattr(engine, "count", 1)})
            out.note(f"{job.dimension}: {rated} images rated, {bundle.shown(job.output_jsonl)}")
        log.remove()
    return failures


@dataclass(frozen=True)
class _Batch:
    """Questions that go to the engine together; those that are open, with the stamps of their pictures from before."""

    asked: list[Question]
    open: dict[str, dict | None]

    def requests(self) -> list[Request]:
        return [Request(question.file, question.prompt, question.answer_prefix) for question in self.asked]


def _rate(inference: Inference, engine: Engine | Workers, chunk: int, out: Output) -> Failures:
    """Put what is open to the engine, batch by batch; ratings go to the log, the reasons of failures are returned."""
    missing: Failures = {}
    failures: Failures = {}
    under_way: deque[_Batch] = deque()
    notes: Counter[str] = Counter()

    def requests() -> Iterator[list[Request]]:
        for batch in _batches(inference, chunk, missing):
            under_way.append(batch)
            yield batch.requests()

    with Progress(inference.questions.askable, inference.job.dimension) as progress:
        for answers in rate_batches(engine, requests()):
            batch = under_way.popleft()
            inference.run.log.append(_result_lines(batch, answers, failures, notes))
            progress.advance(len(batch.open))
    for note, count in notes.items():
        out.note(f"{inference.job.dimension}: of {count} images {note}")
    return missing | failures


def _batches(inference: Inference, chunk: int, missing: Failures) -> Iterator[_Batch]:
    """The batches with something to ask; images that are not there go to ``missing``.

    A batch in whose midst an earlier run was stopped is asked as a whole again, so that its ratings come out as they
    would have. Images that were tried in vain are asked by themselves.
    """
    run = inference.run
    for rows in _cut(inference.questions, chunk):
        there, open_ones = [], []
        for question in rows:
            known = run.is_rated(question.image)
            if question.is_there():
                there.append(question)
                if not known:
                    open_ones.append(question)
            elif not known:
                missing[question.id] = missing_reason(question)
        if open_ones:
            torn = run.earlier and not run.finished and not all(run.was_tried(q.image) for q in open_ones)
            yield _Batch(there if torn else open_ones, {q.image: stamps.of(q.file, inference.with_digests) for q in open_ones})


def _cut(questions: Iterable[Question], chunk: int) -> Iterator[list[Question]]:
    questions = iter(questions)
    while rows := list(itertools.islice(questions, chunk)):
        yield rows


def _result_lines(batch: _Batch, answers: Answers, failures: Failures, notes: Counter[str]) -> Iterator[dict]:
    """Lines for what was open; the reason of what is no rating, or no distribution, goes to ``failures`` too.

    What was decided about a picture stands in its line and is counted in ``notes``.
    """
    for question, answer in zip(batch.asked, answers, strict=True):
        if question.image not in batch.open:
            continue
        reason = _why_not(answer)
        if reason is not None:
            failures[question.id] = reason
            yield records.failure_line(question.image, reason)
            continue
        line = {"images": [question.image], "logits": {word: answer.logprobs[word] for word in facts.WORDS}}
        notes.update(answer.notes)
        yield line | _more(answer, batch.open[question.image])


def _more(answer: Rating, stamp: dict | None) -> dict:
    """What a line has behind the release's keys."""
    text = {} if answer.text is None else {"text": answer.text}
    noted = {"notes": list(answer.notes)} if answer.notes else {}
    return text | noted | ({stamps.PICTURE_KEY: stamp} if stamp else {})


def _why_not(answer: Rating | Failure) -> str | None:
    """Why an answer is no rating; None where it is one."""
    if not isinstance(answer, Rating):
        return answer.reason
    try:
        scoring.check_complete(answer.logprobs)
    except scoring.ScoringError as error:
        return str(error)
    return None


# ---- how a result was made -------------------------------------------------------------------------------------------


def _run_record(inference: Inference, failures: Failures, seconds: float) -> dict:
    job, run = inference.job, inference.run
    identity = run.identity
    return {
        "dimension": job.dimension,
        "prompt_version": job.version,
        "model_path": str(run.model.checkpoint.resolve()),
        "model_fingerprint": identity["model"],
        "prompt_hash": identity["prompt"],
        "prompts": [{"query": query, "answer_prefix": prefix} for query, prefix in inference.questions.prompts],
        "system": identity["system"],
        "engine": run.details,
        "identity": identity,
        "packages": runs.package_versions(),
        "test_jsonl": str(job.test_jsonl.resolve()),
        "limit": job.limit,
        "n": len(inference.questions) - inference.questions.among(failures),
        "twin_ids": inference.questions.twins,
        "resumed_from": inference.questions.rated,
        "failed": failed_list(failures),
        "seconds": round(seconds, 3),
        "command": shlex.join(sys.argv),
    }


def failed_list(failures: Failures) -> list[dict]:
    """Failures as they stand in JSON."""
    return [{"id": image_id, "reason": reason} for image_id, reason in failures.items()]


# ---- score -----------------------------------------------------------------------------------------------------------


def read_people(job: Job, rated: Iterable[str], columns: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """The table of people's ratings, as ``records.read_cells`` returns it, for the images that are rated.

    Args:
        rated: ids that have, or will have, a rating of the model.
        columns: columns that must be there besides the id.

    Raises:
        InputError: the table is missing or broken, or it has none of the rated ids.
    """
    bundle.require_data(job.input_csv)
    names, rows = records.read_cells(job.input_csv, required=(facts.ID_COLUMN, *columns))
    if not _meet(set(_ids(names, rows)), rated):
        what = f"{bundle.shown(job.input_csv)} has none of the ids of the {job.dimension} images to score"
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


def score(scoring_job: Scoring, out: Output) -> tuple[int, Failures]:
    """Write the input CSV with ``score_pred``; return how many rows have one, and the ids that go without."""
    job, scores, columns = scoring_job.job, scoring_job.ratings.scores, scoring_job.columns
    known = set(_ids(columns, scoring_job.rows))
    failures = {image_id: f"not in {bundle.shown(job.input_csv)}" for image_id in scores if image_id not in known}
    rows = _limited_rows(scoring_job)
    not_rated = f"no rating in {bundle.shown(job.output_jsonl)}"
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
    record = runs.read_run_record(job.output_jsonl) | {"score": _score_record(job, scored, counts, failures)}
    runs.write_run_record(job.output_csv, record)
    return scored, failures


def _write_scored(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], predictions: Sequence[str]) -> None:
    """The table with the predictions as its last column, in place of one that it may have."""
    kept = [place for place, name in enumerate(columns) if name != facts.PREDICTION_COLUMN]
    if len(kept) < len(columns):
        columns, *rows = ([row[place] for place in kept] for row in (columns, *rows))
    cells = ([*row, prediction] for row, prediction in zip(rows, predictions, strict=True))
    records.write_cells(path, [*columns, facts.PREDICTION_COLUMN], cells)


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
        for ratings in (self.scores, self.later):
            if old in ratings:
                ratings[new] = ratings.pop(old)

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
    for number, line in records.stream_jsonl(path):
        image_id = bundle.image_id(records.only_image(path, number, line))
        value = _score_or_reason(line.get("logits"), path, ratings)
        if image_id in ratings.scores:
            ratings.later.setdefault(image_id, []).append(value)
        else:
            ratings.scores[image_id] = value
    return ratings


def _irregular(scoring_job: Scoring, rows: Sequence[Sequence[str]]) -> dict[str, tuple[int, str]]:
    """What is out of the ordinary and still gives scores: name in the run record -> how often, and what it is."""
    job, ratings = scoring_job.job, scoring_job.ratings
    table, result = bundle.shown(job.input_csv), bundle.shown(job.output_jsonl)
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
    bundle.require_data(job.test_jsonl)
    asked = [bundle.image_id(record.image) for record in records.stream_records(job.test_jsonl)]
    first, whole = Counter(asked[: job.limit]), Counter(asked)
    met = ids.same_number(_ids(columns, rows), whole)
    # Of an id whose questions come again behind the limit, so many rows as come before it.
    wanted = {i: count if count < whole[i] else len(rows) for i, count in first.items()}
    placed = zip(rows, ids.numbered(_ids(columns, rows)), strict=True)
    return [row for row, (image_id, before) in placed if before < wanted.get(met.get(image_id, image_id), 0)]


def _score_or_reason(logits: object, path: Path, ratings: Ratings) -> float | str:
    """A score from 1 to 5, or why there is none; where it is of fewer than the five words that is counted."""
    if not isinstance(logits, dict):
        return f"no rating in {bundle.shown(path)}"
    try:
        value, complete = scoring.score_of_known(logits)
    except scoring.ScoringError as error:
        return f"{error} in {bundle.shown(path)}"
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


# ---- eval ------------------------------------------------------------------------------------------------------------


class ScoredRow(NamedTuple):
    """One image of a scored CSV: the cells as text, the numbers None where a cell is no finite number."""

    id: str
    mos_text: str
    prediction_text: str
    mos: float | None
    prediction: float | None


def read_scored(path: Path, gt_column: str) -> list[ScoredRow]:
    """The rows of a scored CSV. Raises ``InputError`` for missing files and columns, and scores outside 1 to 5."""
    columns = (facts.ID_COLUMN, gt_column, facts.PREDICTION_COLUMN)
    there, rows = records.read_cells(path, required=columns)
    cells = map(operator.itemgetter(*map(there.index, columns)), rows)
    scored = [ScoredRow(i, mos, prediction, _number(mos), _number(prediction)) for i, mos, prediction in cells]
    for row in scored:
        if row.prediction is not None and not scoring.is_score(row.prediction):
            what = f"{facts.PREDICTION_COLUMN} of {row.id[:100]} is {row.prediction_text}, not from 1 to 5"
            raise InputError(f"{bundle.shown(path)}: {what}", "Score the images again")
    return scored


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def evaluate(rows: Sequence[ScoredRow], source: str) -> Correlation:
    """Correlate the predictions with the mean opinion scores.

    Raises:
        InputError: fewer than three complete rows, or constant columns; ``source`` names them in the message.
    """
    try:
        return correlate([row.prediction for row in rows], [row.mos for row in rows])
    except CorrelationError as error:
        raise InputError(f"{source}: {error}", "Check the scores, or score more images") from None
    except ModuleNotFoundError as error:
        raise lacking("a correlation", error.name) from None


def unscored(rows: Sequence[ScoredRow], source: str) -> Failures:
    """The rows without a prediction."""
    return {row.id: f"no {facts.PREDICTION_COLUMN} in {source}" for row in rows if row.prediction is None}


def say_correlation(correlation: Correlation, label: str, out: Output) -> None:
    """PLCC and SRCC on stdout, what they were computed over on stderr."""
    out.result(f"PLCC: {correlation.plcc:.3f}")
    out.result(f"SRCC: {correlation.srcc:.3f}")
    more = f"KRCC {correlation.krcc:.3f}, RMSE {correlation.rmse:.3f}"
    out.note(f"{label}: n {correlation.n}, dropped {correlation.dropped}, {more}")
