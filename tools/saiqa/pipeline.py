"""The stages of ``infer.py``: questions -> ratings -> scores -> correlation. They meet only in files.

Each stage returns the images it has no result for, as id -> reason; the command lists them and leaves exit code 3.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import prompt_configs as facts
from local_progress import Progress
from saiqa import bundle, records, scoring
from saiqa.console import Failed, InputError, Output, to_json
from saiqa.correlation import Correlation, CorrelationError, correlate
from saiqa.engines import Engine, Rating, Request, load_engine
from saiqa.jobs import Job

Failures = dict[str, str]

_RECORDED_PACKAGES = ("torch", "torchvision", "transformers", "ms-swift", "numpy", "pillow")


# ---- infer: what to ask ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """One image of a benchmark file: its path as written, its file, the prompt and the answer up to the rating word."""

    image: str
    file: Path
    prompt: str
    answer_prefix: str

    @property
    def id(self) -> str:
        return bundle.image_id(self.image)


def read_questions(job: Job, out: Output) -> list[Question]:
    """The questions of a job, each with its record's own prompt and answer prefix, the first ``job.limit`` of them.

    Raises:
        InputError: the file is missing or broken, an image id comes twice, or not one of the images is there.
    """
    bundle.require_data(job.test_jsonl)
    _warn_of_other_name(job, out)
    benchmark = records.read_records(job.test_jsonl)
    prefixes = _answer_prefixes(benchmark, job, out)
    questions = [
        Question(record.image, bundle.resolve_image(record.image, job.data_root), record.query, prefix)
        for record, prefix in zip(benchmark, prefixes, strict=True)
    ][: job.limit]
    if not any(question.file.is_file() for question in questions):
        first = bundle.shown(questions[0].file)
        what = f"none of the {len(questions)} images of {bundle.shown(job.test_jsonl)} is there, {first} first"
        raise bundle.missing_data(what)
    return questions


def _warn_of_other_name(job: Job, out: Output) -> None:
    version = bundle.version_in_name(job.test_jsonl)
    if version not in (None, job.version):
        what = f"{job.test_jsonl.name} holds prompt {version} while --prompt_version is {job.version}"
        out.warn(f"{what}. The prompts in the file are the ones used")
    dimension = bundle.dimension_in_name(job.test_jsonl)
    if dimension not in (None, job.dimension):
        out.warn(f"{job.test_jsonl.name} is named after {dimension} while the dimension is {job.dimension}")


def _answer_prefixes(benchmark: Sequence[records.Record], job: Job, out: Output) -> list[str]:
    """Each record's answer prefix; for records without an answer, that of the nearest place that has one."""
    answers = [scoring.split_answer(record.response) for record in benchmark]
    lacking = answers.count(None)
    if not lacking:
        return [answer[0] for answer in answers]
    fallback = next((answer[0] for answer in answers if answer), None)
    source = "another record of the file"
    if fallback is None:
        sentences = records.sentences(job.data_root, job.dimension, job.version)
        fallback, source = sentences.before, sentences.source
    where = f"{lacking} of {len(benchmark)} records of {bundle.shown(job.test_jsonl)}"
    out.note(f"{where} have no answer: taking the answer sentence of {source}, {fallback!r}")
    return [answer[0] if answer else fallback for answer in answers]


def prompt_hash(questions: Sequence[Question]) -> str:
    """A digest of what the ratings depend on besides the images: 64 hexadecimal digits.

    Where all images are asked the same, only that counts, so that a file may grow between two runs; where they are not,
    so does which image is asked what.
    """
    asked = sorted({(question.prompt, question.answer_prefix) for question in questions})
    if len(asked) > 1:
        asked = sorted((question.image, question.prompt, question.answer_prefix) for question in questions)
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


# ---- infer: what is known already ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A checkpoint and how to run it; the attributes are those of ``engines.load_engine``."""

    checkpoint: Path
    engine: str
    device: str
    dtype: str
    batch_size: int
    system: str | None
    trust_remote_code: bool
    compile: bool = False

    def load(self) -> Engine:
        """The engine. Raises ``Failed`` where a package it needs is not installed."""
        options = {name: value for name, value in vars(self).items() if name not in ("checkpoint", "engine")}
        try:
            return load_engine(self.engine, self.checkpoint, **options)
        except ModuleNotFoundError as error:
            what = f"--engine {self.engine} needs {error.name}, which is not installed"
            raise Failed(what, "Run `make setup`") from error

    def identity(self, prompt_hash: str) -> dict[str, str | None]:
        """What a rating depends on; ratings of two identities are never mixed. The dtype may still be "auto"."""
        return {
            "model": bundle.fingerprint(self.checkpoint),
            "prompt": prompt_hash,
            "engine": self.engine,
            "system prompt": self.system,
            "dtype": self.dtype,
        }


@dataclass
class Inference:
    """The infer stage of one job, checked and ready to run.

    Attributes:
        identity: of the ratings to be made, see ``Model.identity``.
        earlier: the lines of an interrupted or finished run that this one continues.
        finished: whether ``earlier`` is a finished result.
        engine_details: ``Engine.describe()`` of the engine in use, or of the earlier run's.
    """

    job: Job
    questions: list[Question]
    model: Model
    identity: dict[str, str | None]
    earlier: records.Partial | None = None
    finished: bool = False
    engine_details: dict = field(default_factory=dict)

    @property
    def known(self) -> dict[str, dict]:
        """Ratings that are kept: image path -> result line."""
        lines = self.earlier.lines if self.earlier else {}
        return {question.image: lines[question.image] for question in self.questions if question.image in lines}

    @property
    def open(self) -> list[Question]:
        """Questions without a rating."""
        known = self.known
        return [question for question in self.questions if question.image not in known]

    @property
    def askable(self) -> list[Question]:
        """Questions to put to the engine."""
        return [question for question in self.open if question.file.is_file()]

    @property
    def missing(self) -> Failures:
        """Images without a rating whose file is not there."""
        return {question.id: f"{question.file} is not there" for question in self.open if not question.file.is_file()}


def prepare(job: Job, model: Model, resume: bool, out: Output) -> Inference:
    """Check everything cheap of the infer stage; with ``resume``, take over what an earlier run has done.

    Raises:
        InputError: as ``read_questions``, or the earlier run was another one.
    """
    questions = read_questions(job, out)
    inference = Inference(job, questions, model, model.identity(prompt_hash(questions)))
    partial = bundle.partial_path(job.output_jsonl)
    if resume:
        _take_over(inference, out)
    elif partial.exists():
        out.note(f"{bundle.shown(partial)} of an interrupted run will be replaced; --resume would continue it")
    return inference


def _take_over(inference: Inference, out: Output) -> None:
    """Continue the partial file, else the finished result."""
    output = inference.job.output_jsonl
    earlier = records.Partial.read(bundle.partial_path(output))
    if earlier is None and output.exists():
        earlier, inference.finished = _finished_result(output), True
    if earlier is None:
        out.note(f"{bundle.shown(output)}: nothing to resume, starting from the first image")
        return
    refuse_other(earlier, inference.identity)
    inference.earlier = earlier
    inference.identity = earlier.header["identity"]  # with the dtype that "auto" was then
    inference.engine_details = earlier.header.get("engine", {})
    known, wanted = len(inference.known), len(inference.questions)
    out.note(f"{inference.job.dimension}: {known} of {wanted} images are rated already")


def _finished_result(output: Path) -> records.Partial:
    record = read_run_record(output)
    if "identity" not in record:
        what = f"nothing tells how {bundle.shown(output)} was made: no {bundle.run_record_path(output).name}"
        raise InputError(what, "Run without --resume to make it anew")
    lines = {records.only_image(output, number, line): line for number, line in records.read_jsonl(output)}
    return records.Partial(output, record, lines)


def refuse_other(earlier: records.Partial, now: dict) -> None:
    """Refuse to mix ratings of two identities, saying what differs. A dtype of "auto" is compared after loading."""
    then = earlier.header.get("identity") or {}
    differing = [key for key in now if then.get(key) != now[key] and (key, now[key]) != ("dtype", "auto")]
    if differing:
        said = "; ".join(f"{key} was {_brief(then.get(key))}, is {_brief(now[key])}" for key in differing)
        what = f"{bundle.shown(earlier.path)} is of another run: {said}"
        raise InputError(what, "Use the flags of that run, or start anew without --resume")


def _brief(value: str | None) -> str:
    text = "none" if value is None else value
    return text if len(text) <= 40 else text[:12] + "..."


def settle(inference: Inference, engine: Engine) -> None:
    """Put the loaded engine's real dtype into the identity. Raises ``InputError`` where the earlier run had another."""
    details = engine.describe()
    identity = {**inference.identity, "dtype": details["dtype"]}
    if inference.earlier:
        refuse_other(inference.earlier, identity)
    inference.identity, inference.engine_details = identity, details


# ---- infer: asking ---------------------------------------------------------------------------------------------------


def infer(inference: Inference, engine: Engine | None, chunk: int, out: Output) -> Failures:
    """Rate what is open, write the result and its run record; return the images without a rating.

    An earlier result stays until the new one is whole, and where not one image could be rated.

    Args:
        engine: None where no question is askable.
        chunk: images between two savings of the partial file.
    """
    job = inference.job
    if not inference.askable and (inference.finished or not inference.known):
        if inference.finished:
            out.note(f"{bundle.shown(job.output_jsonl)} is complete as far as the images are there; nothing to infer")
        return inference.missing
    started = time.monotonic()
    header = {"identity": inference.identity, "engine": inference.engine_details}
    partial = records.Partial(bundle.partial_path(job.output_jsonl), header, inference.known)
    failures = inference.missing | _rate(inference.askable, engine, partial, chunk, job.dimension, out)
    lines = [partial.lines[question.image] for question in inference.questions if question.image in partial.lines]
    if lines:
        records.write_jsonl(job.output_jsonl, lines)
        write_run_record(job.output_jsonl, _run_record(inference, failures, time.monotonic() - started))
        out.note(f"{job.dimension}: {len(lines)} images rated, {bundle.shown(job.output_jsonl)}")
    partial.remove()
    return failures


def _rate(
    questions: Sequence[Question], engine: Engine, partial: records.Partial, chunk: int, label: str, out: Output
) -> Failures:
    """Put questions to the engine in chunks; ratings go to the partial file, the reasons of failures are returned."""
    failures: Failures = {}
    if not questions:
        return failures
    partial.start()
    try:
        with Progress(len(questions), label) as progress:
            for start in range(0, len(questions), chunk):
                asked = questions[start : start + chunk]
                answers = engine.rate([Request(q.file, q.prompt, q.answer_prefix) for q in asked])
                partial.append(_result_lines(asked, answers, failures))
                progress.advance(len(asked))
    except BaseException as error:
        kept = f"{len(partial.lines)} rated images are kept in {bundle.shown(partial.path)}; continue with --resume"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(kept) from None
        out.note(kept)
        raise
    return failures


def _result_lines(asked: Sequence[Question], answers: Sequence, failures: Failures) -> Iterable[dict]:
    """Result lines of the ratings; what is no rating, or no distribution, goes to ``failures``."""
    for question, answer in zip(asked, answers, strict=True):
        if not isinstance(answer, Rating):
            failures[question.id] = answer.reason
            continue
        try:
            scoring.probabilities(answer.logprobs)
        except scoring.ScoringError as error:
            failures[question.id] = str(error)
            continue
        line = {"images": [question.image], "logits": {word: answer.logprobs[word] for word in facts.WORDS}}
        yield line if answer.text is None else {**line, "text": answer.text}


# ---- how a result was made -------------------------------------------------------------------------------------------


def _run_record(inference: Inference, failures: Failures, seconds: float) -> dict:
    job, identity = inference.job, inference.identity
    asked = sorted({(question.prompt, question.answer_prefix) for question in inference.questions})
    return {
        "dimension": job.dimension,
        "prompt_version": job.version,
        "model_path": str(inference.model.checkpoint.resolve()),
        "model_fingerprint": identity["model"],
        "prompt_hash": identity["prompt"],
        "prompts": [{"query": query, "answer_prefix": prefix} for query, prefix in asked[:4]],
        "system": identity["system prompt"],
        "engine": inference.engine_details,
        "identity": identity,
        "packages": package_versions(),
        "test_jsonl": str(job.test_jsonl.resolve()),
        "limit": job.limit,
        "n": len(inference.questions) - len(failures),
        "resumed_from": len(inference.known),
        "failed": failed_list(failures),
        "seconds": round(seconds, 3),
        "command": shlex.join(sys.argv),
    }


def failed_list(failures: Failures) -> list[dict]:
    """Failures as they stand in JSON."""
    return [{"id": image_id, "reason": reason} for image_id, reason in failures.items()]


def package_versions() -> dict[str, str]:
    """Versions of Python and of what the scores may depend on, as far as they are installed."""
    from importlib import metadata  # not at the top: it would double the time of --help

    versions = {"python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def read_run_record(output: Path) -> dict:
    """The run record beside a result; empty where there is none."""
    path = bundle.run_record_path(output)
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{bundle.shown(path)} is not JSON", "Delete it") from None
    return record if isinstance(record, dict) else {}


def write_run_record(output: Path, record: dict) -> None:
    """Write the run record beside a result."""
    records.write_text(bundle.run_record_path(output), to_json(record) + "\n")


# ---- score -----------------------------------------------------------------------------------------------------------


def read_people(job: Job, rated: Iterable[str], columns: Sequence[str] = ()) -> records.Table:
    """People's ratings, for the images that are rated.

    Args:
        rated: ids that have, or will have, a rating of the model.
        columns: columns that must be there besides the id.

    Raises:
        InputError: the table is missing or broken, an id comes twice, or it has none of the rated ids.
    """
    bundle.require_data(job.input_csv)
    table = records.read_csv(job.input_csv, required=(facts.ID_COLUMN, *columns), unique=facts.ID_COLUMN)
    if _ids(table.rows).isdisjoint(rated):
        what = f"{bundle.shown(job.input_csv)} has none of the ids of the {job.dimension} images to score"
        raise InputError(what, "Give the --input_csv that belongs to the images")
    return table


def score(job: Job) -> tuple[int, Failures]:
    """Write the input CSV with ``score_pred``; return how many rows have one, and the ids that go without.

    Raises:
        InputError: a file is missing or broken, an id comes twice, or the two files have no id in common.
    """
    ratings = read_ratings(job.output_jsonl)
    table = read_people(job, ratings)
    known = _ids(table.rows)
    failures = {image_id: f"not in {bundle.shown(job.input_csv)}" for image_id in ratings if image_id not in known}
    rows = _limited_rows(job, table)
    for row in rows:
        value = _score_or_reason(ratings.get(row[facts.ID_COLUMN]), job.output_jsonl)
        if isinstance(value, str):
            failures[row[facts.ID_COLUMN]] = value
        row[facts.PREDICTION_COLUMN] = "" if isinstance(value, str) else repr(value)
    columns = [name for name in table.columns if name != facts.PREDICTION_COLUMN] + [facts.PREDICTION_COLUMN]
    records.write_csv(job.output_csv, columns, rows)
    scored = sum(bool(row[facts.PREDICTION_COLUMN]) for row in rows)
    record = read_run_record(job.output_jsonl) | {"score": _score_record(job, scored, failures)}
    write_run_record(job.output_csv, record)
    return scored, failures


def read_ratings(path: Path) -> dict[str, object]:
    """Image id -> its ``logits`` as written in a result, whatever they are. Raises ``InputError`` for a broken file."""
    lines = [(records.only_image(path, number, line), line) for number, line in records.read_jsonl(path)]
    records.check_unique(path, "image id", (bundle.image_id(image) for image, _ in lines))
    return {bundle.image_id(image): line.get("logits") for image, line in lines}


def _ids(rows: Iterable[dict[str, str]]) -> set[str]:
    return {row[facts.ID_COLUMN] for row in rows}


def _limited_rows(job: Job, table: records.Table) -> list[dict[str, str]]:
    """The rows of the first ``job.limit`` images of the questions; all rows without a limit."""
    if job.limit is None:
        return table.rows
    bundle.require_data(job.test_jsonl)
    first = records.read_records(job.test_jsonl)[: job.limit]
    wanted = {bundle.image_id(record.image) for record in first}
    return [row for row in table.rows if row[facts.ID_COLUMN] in wanted]


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


@dataclass(frozen=True)
class ScoredRow:
    """One image of a scored CSV: the cells as text, the numbers None where a cell is no finite number."""

    id: str
    mos_text: str
    prediction_text: str
    mos: float | None
    prediction: float | None


def read_scored(path: Path, gt_column: str) -> list[ScoredRow]:
    """The rows of a scored CSV. Raises ``InputError`` for missing files and columns."""
    columns = (facts.ID_COLUMN, gt_column, facts.PREDICTION_COLUMN)
    table = records.read_csv(path, required=columns)
    cells = zip(*map(table.column, columns), strict=True)
    return [ScoredRow(i, mos, prediction, _number(mos), _number(prediction)) for i, mos, prediction in cells]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


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
