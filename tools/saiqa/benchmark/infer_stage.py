"""The infer stage of ``infer.py``: questions -> ratings.

It returns the images without a rating, as id -> reason; the command lists them and exits with code 3.
"""

from __future__ import annotations

import itertools
import shlex
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from saiqa import facts, scoring
from saiqa.benchmark.questions import Question, Questions, missing_reason
from saiqa.engines import Engine, Failure, Rating, Request
from saiqa.files import folders, stamps
from saiqa.files.job_files import Job, JobFiles
from saiqa.notes import Notes
from saiqa.progress import Progress
from saiqa.run.log import failure_line
from saiqa.run.rate import Answers
from saiqa.run.ray_workers import Workers, rate_batches
from saiqa.run.record import Failures, failed_list, package_versions, write_run_record
from saiqa.run.run import Kept, Run, changed_note
from saiqa.run.spec import Model

# ---- what is known already -------------------------------------------------------------------------------------------


@dataclass
class Inference:
    """The infer stage of one job, checked and ready to run."""

    job: Job
    questions: Questions
    run: Run
    with_digests: bool = False


def prepare(files: JobFiles, model: Model, resume: bool, with_digests: bool, out: Notes) -> Inference:
    """Validate the inputs of the infer stage; with ``resume``, take over the ratings of an earlier run.

    Args:
        files: with the questions.
        with_digests: store the digest of every picture, and use it to tell whether a picture has changed.

    Raises:
        InputError: as ``Questions``, or the earlier run had another identity.
    """
    assert files.questions is not None
    job = files.job
    kept = Kept.beside([job.output_jsonl], resume, out.note)
    questions = Questions(files.questions, job.limit, out, kept.earlier, with_digests)
    run = Run(kept, model, model.identity(questions.prompt_hash), questions.images)
    if run.earlier:
        out.note(f"{job.dimension}: {questions.rated} of {len(questions)} images are rated already")
    if questions.changed:
        out.note(f"{job.dimension}: {changed_note(questions.changed)}")
    return Inference(job, questions, run, with_digests)


# ---- asking ----------------------------------------------------------------------------------------------------------


def infer(inference: Inference, engine: Engine | Workers | None, chunk: int, out: Notes) -> Failures:
    """Rate what is left, write the result and its run record; return the images without a rating.

    An earlier result stays until the new one is complete, and if no image could be rated.

    Args:
        engine: None if no question can be asked.
        chunk: images per batch, which is given to the engine and then saved. The boundaries of batches depend only on the
            question file, not on what is known or missing or on the number of workers: the last digits of a
            log-probability depend on what shares its pass.
    """
    job, questions, run = inference.job, inference.questions, inference.run
    if not questions.askable and (run.finished or not questions.rated):
        if run.finished:
            out.note(f"{folders.shown(job.output_jsonl)} is complete as far as the images are there; nothing to infer")
        return questions.missing
    started = time.monotonic()
    with run.keeping(out.note):
        log = run.begin(out.note)
        failures = _rate(inference, engine, chunk, out) if engine else questions.missing
        if log.count or log.others:
            rated = log.finish(job.output_jsonl, run.images)
            record = _run_record(inference, failures, time.monotonic() - started)
            write_run_record(job.output_jsonl, record | {"workers": getattr(engine, "count", 1)})
            out.note(f"{job.dimension}: {rated} images rated, {folders.shown(job.output_jsonl)}")
        log.remove()
    return failures


@dataclass(frozen=True)
class _Batch:
    """Questions that go to the engine together; ``open`` are those without a rating, with stamps taken before asking."""

    asked: list[Question]
    open: dict[str, dict | None]

    def requests(self) -> list[Request]:
        # What lies behind a URL is fetched on the way to the engine (``run.rate``).
        return [Request(q.file, q.prompt, q.answer_prefix) for q in self.asked]  # type: ignore[arg-type]


def _rate(inference: Inference, engine: Engine | Workers, chunk: int, out: Notes) -> Failures:
    """Ask the engine what is open, batch by batch; ratings go to the log, reasons of failures are returned."""
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

    A batch in which an earlier run was interrupted is asked again as a whole, so that its ratings are those of an
    uninterrupted run. Images that failed before are asked by themselves.
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
    """Lines for what was open; the reason of an answer that is not a complete rating also goes to ``failures``.

    Notes on a picture are in its line and are counted in ``notes``.
    """
    for question, answer in zip(batch.asked, answers, strict=True):
        if question.image not in batch.open:
            continue
        rated = _rating_or_reason(answer)
        if isinstance(rated, str):
            failures[question.id] = rated
            yield failure_line(question.image, rated)
            continue
        line = {"images": [question.image], "logits": {word: rated.logprobs[word] for word in facts.WORDS}}
        notes.update(rated.notes)
        yield line | _more(rated, batch.open[question.image])


def _more(answer: Rating, stamp: dict | None) -> dict:
    """What a line has in addition to the release's keys."""
    text = {} if answer.text is None else {"text": answer.text}
    noted = {"notes": list(answer.notes)} if answer.notes else {}
    return text | noted | ({stamps.PICTURE_KEY: stamp} if stamp else {})


def _rating_or_reason(answer: Rating | Failure) -> Rating | str:
    """The answer if it is a complete rating, else the reason why not."""
    if not isinstance(answer, Rating):
        return answer.reason
    try:
        scoring.check_complete(answer.logprobs)
    except scoring.ScoringError as error:
        return str(error)
    return answer


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
        "packages": package_versions(),
        "test_jsonl": str(job.test_jsonl.resolve()),
        "limit": job.limit,
        "n": len(inference.questions) - inference.questions.among(failures),
        "twin_ids": inference.questions.twins,
        "resumed_from": inference.questions.rated,
        "failed": failed_list(failures),
        "seconds": round(seconds, 3),
        "command": shlex.join(sys.argv),
    }
