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
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import prompt_configs as facts
from local_progress import Progress
from saiqa import bundle, records, runs, scoring
from saiqa.console import Failed, InputError, Output
from saiqa.correlation import Correlation, CorrelationError, correlate
from saiqa.engines import Engine, Failure, Rating, Request
from saiqa.jobs import Job
from saiqa.models import Model
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


def prepare(job: Job, model: Model, resume: bool, out: Output) -> Inference:
    """Check everything cheap of the infer stage; with ``resume``, take over what an earlier run has done.

    Raises:
        InputError: as ``Questions``, or the earlier run was another one.
    """
    log = bundle.partial_path(job.output_jsonl)
    earlier = runs.find_earlier(log, [job.output_jsonl], records.Partial.of_result, out.note) if resume else None
    questions = Questions(job, out, earlier.log if earlier else None)
    run = Run(log, model, model.identity(questions.prompt_hash), questions.images, earlier)
    if earlier:
        out.note(f"{job.dimension}: {questions.rated} of {len(questions)} images are rated already")
    return Inference(job, questions, run)


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
    """Questions that go to the engine together, and which of them are open; the others' ratings are known."""

    asked: list[Question]
    open: frozenset[str]

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
            yield _Batch(there if torn else open_ones, frozenset(question.image for question in open_ones))


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
        yield line | _more(answer)


def _more(answer: Rating) -> dict:
    """What a line has behind the release's keys."""
    text = {} if answer.text is None else {"text": answer.text}
    return text | ({"notes": list(answer.notes)} if answer.notes else {})


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
        "n": len(inference.questions) - len(failures),
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
        InputError: the table is missing or broken, an id comes twice, or it has none of the rated ids.
    """
    bundle.require_data(job.input_csv)
    names, rows = records.read_cells(job.input_csv, required=(facts.ID_COLUMN, *columns), unique=facts.ID_COLUMN)
    if set(_ids(names, rows)).isdisjoint(rated):
        what = f"{bundle.shown(job.input_csv)} has none of the ids of the {job.dimension} images to score"
        raise InputError(what, "Give the --input_csv that belongs to the images")
    return names, rows


@dataclass(frozen=True)
class Scoring:
    """The score stage of one job, checked and ready to run.

    Attributes:
        scores: of the rated images by id, each from 1 to 5, or why there is none.
        columns, rows: the table of people's ratings, cell by cell.
    """

    job: Job
    scores: dict[str, float | str]
    columns: list[str]
    rows: list[list[str]]


def prepare_scoring(job: Job) -> Scoring:
    """Read what the score stage needs.

    Raises:
        InputError: a file is missing or broken, an id comes twice, or the two files have no id in common.
    """
    scores = read_scores(job.output_jsonl)
    return Scoring(job, scores, *read_people(job, scores))


def score(scoring_job: Scoring) -> tuple[int, Failures]:
    """Write the input CSV with ``score_pred``; return how many rows have one, and the ids that go without."""
    job, scores, columns = scoring_job.job, scoring_job.scores, scoring_job.columns
    known = set(_ids(columns, scoring_job.rows))
    failures = {image_id: f"not in {bundle.shown(job.input_csv)}" for image_id in scores if image_id not in known}
    rows = _limited_rows(scoring_job)
    not_rated = _score_or_reason(None, job.output_jsonl)
    values = [scores.get(image_id, not_rated) for image_id in _ids(columns, rows)]
    reasons = {i: value for i, value in zip(_ids(columns, rows), values, strict=True) if isinstance(value, str)}
    failures |= reasons
    predictions = ["" if isinstance(value, str) else repr(value) for value in values]
    _write_scored(job.output_csv, columns, rows, predictions)
    scored = len(rows) - len(reasons)
    record = runs.read_run_record(job.output_jsonl) | {"score": _score_record(job, scored, failures)}
    runs.write_run_record(job.output_csv, record)
    return scored, failures


def _write_scored(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], predictions: Sequence[str]) -> None:
    """The table with the predictions as its last column, in place of one that it may have."""
    kept = [place for place, name in enumerate(columns) if name != facts.PREDICTION_COLUMN]
    if len(kept) < len(columns):
        columns, *rows = ([row[place] for place in kept] for row in (columns, *rows))
    cells = ([*row, prediction] for row, prediction in zip(rows, predictions, strict=True))
    records.write_cells(path, [*columns, facts.PREDICTION_COLUMN], cells)


def read_scores(path: Path) -> dict[str, float | str]:
    """Image id -> score from 1 to 5, or why there is none, of the ratings in a result.

    Raises:
        InputError: the file is broken, or an id comes twice.
    """
    ids, scores = [], {}
    for number, line in records.stream_jsonl(path):
        ids.append(bundle.image_id(records.only_image(path, number, line)))
        scores[ids[-1]] = _score_or_reason(line.get("logits"), path)
    if len(scores) < len(ids):
        records.check_unique(path, records.IMAGE_ID, ids)
    return scores


def _ids(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    return map(operator.itemgetter(columns.index(facts.ID_COLUMN)), rows)


def _limited_rows(scoring_job: Scoring) -> list[list[str]]:
    """The rows of the first ``job.limit`` images of the questions; all rows without a limit."""
    job, columns, rows = scoring_job.job, scoring_job.columns, scoring_job.rows
    if job.limit is None:
        return rows
    bundle.require_data(job.test_jsonl)
    first = records.read_records(job.test_jsonl)[: job.limit]
    wanted = {bundle.image_id(record.image) for record in first}
    return [row for row, image_id in zip(rows, _ids(columns, rows), strict=True) if image_id in wanted]


def _score_or_reason(logits: object, ratings: Path) -> float | str:
    """A score from 1 to 5, or why there is none."""
    if not isinstance(logits, dict):
        return f"no rating in {bundle.shown(ratings)}"
    try:
        return scoring.score_of(scoring.by_word(logits))
    except scoring.ScoringError as error:
        return f"{error} in {bundle.shown(ratings)}"


def _score_record(job: Job, scored: int, failures: Failures) -> dict:
    return {
        "input_csv": str(job.input_csv.resolve()),
        "ratings": str(job.output_jsonl.resolve()),
        "n": scored,
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
    """The rows of a scored CSV. Raises ``InputError`` for missing files and columns."""
    columns = (facts.ID_COLUMN, gt_column, facts.PREDICTION_COLUMN)
    there, rows = records.read_cells(path, required=columns)
    cells = map(operator.itemgetter(*map(there.index, columns)), rows)
    return [ScoredRow(i, mos, prediction, _number(mos), _number(prediction)) for i, mos, prediction in cells]


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
        raise Failed(f"correlations need {error.name}, which is not installed", "Run `make setup`") from None


def unscored(rows: Sequence[ScoredRow], source: str) -> Failures:
    """The rows without a prediction."""
    return {row.id: f"no {facts.PREDICTION_COLUMN} in {source}" for row in rows if row.prediction is None}


def say_correlation(correlation: Correlation, label: str, out: Output) -> None:
    """PLCC and SRCC on stdout, what they were computed over on stderr."""
    out.result(f"PLCC: {correlation.plcc:.3f}")
    out.result(f"SRCC: {correlation.srcc:.3f}")
    more = f"KRCC {correlation.krcc:.3f}, RMSE {correlation.rmse:.3f}"
    out.note(f"{label}: n {correlation.n}, dropped {correlation.dropped}, {more}")
