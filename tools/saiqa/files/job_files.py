"""A benchmark job, that is, one dimension with all its files; and opening what its stages read, before the work starts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from saiqa import facts
from saiqa.files import csv_files, folders, jsonl, text_files
from saiqa.files.csv_files import Cells
from saiqa.files.places import Place
from saiqa.files.question_files import QuestionFile

STAGES = INFER, SCORE, EVAL = "infer", "score", "eval"


@dataclass(frozen=True)
class Job:
    """One dimension and its files.

    Attributes:
        test_jsonl: questions, read by infer.
        output_jsonl: ratings, written by infer and read by score.
        input_csv: ratings of people, read by score.
        output_csv: ``input_csv`` with the scores, written by score and read by eval.
        gt_column: column with the mean opinion score.
        limit: use only the first ``limit`` questions; None for all.
    """

    dimension: str
    version: int
    data_root: Place
    test_jsonl: Place
    output_jsonl: Path
    input_csv: Place
    output_csv: Path
    gt_column: str
    limit: int | None

    @property
    def questions(self) -> QuestionFile:
        return QuestionFile(self.test_jsonl, self.dimension, self.version, self.data_root)


@dataclass(frozen=True)
class JobFiles:
    """The opened input files of a job's stages. What one stage writes for the next does not exist yet.

    Attributes:
        questions: for infer, or for score as the first stage; not read yet.
        ratings: for score as the first stage: image path and line of each rating, read lazily.
        people: for score: the table of people's ratings.
        scored: for eval as the first stage: the scored table.
    """

    job: Job
    questions: QuestionFile | None = None
    ratings: Iterator[tuple[str, dict]] | None = None
    people: Cells | None = None
    scored: Cells | None = None


def open_all(jobs: Sequence[Job], stages: Collection[str], warn: Callable[[str], None]) -> Iterator[JobFiles]:
    """The input files of each job in turn, after a check of everything that all of them read and write.

    Args:
        stages: which of ``STAGES`` will run.
        warn: called if a question file is named after another dimension or prompt version.

    Raises:
        InputError: a benchmark file is missing, or a table is broken or lacks a column.
        Failed: a result cannot be written.
    """
    if INFER in stages:
        folders.require_data(*(job.test_jsonl for job in jobs))
    for job in jobs:
        for output in outputs(job, stages):
            text_files.check_writable(output)
        for warning in _named_otherwise(job) if INFER in stages else ():
            warn(warning)
    return (open_one(job, stages) for job in jobs)


def outputs(job: Job, stages: Collection[str]) -> list[Path]:
    """The files that the stages write."""
    return [path for stage, path in ((INFER, job.output_jsonl), (SCORE, job.output_csv)) if stage in stages]


def open_one(job: Job, stages: Collection[str]) -> JobFiles:
    """The files of one job. Raises ``InputError`` as ``open_all``."""
    first = next(stage for stage in STAGES if stage in stages)
    if first == EVAL:
        return JobFiles(job, scored=csv_files.read_cells(job.output_csv, required=facts.scored_columns(job.gt_column)))
    people = _people(job, with_mos=EVAL in stages) if SCORE in stages else None
    if first == INFER:
        return JobFiles(job, questions=job.questions, people=people)
    if job.limit is not None:
        folders.require_data(job.test_jsonl)
    return JobFiles(job, questions=job.questions, ratings=jsonl.stream_images(job.output_jsonl), people=people)


def _people(job: Job, with_mos: bool) -> Cells:
    folders.require_data(job.input_csv)
    return csv_files.read_cells(job.input_csv, required=[facts.ID_COLUMN, *([job.gt_column] if with_mos else [])])


def _named_otherwise(job: Job) -> Iterator[str]:
    """Warnings for a question file whose name contradicts the job."""
    name = job.test_jsonl.name
    version, dimension = folders.version_in_name(job.test_jsonl), folders.dimension_in_name(job.test_jsonl)
    if version not in (None, job.version):
        what = f"{name} holds prompt {version} while --prompt_version is {job.version}"
        yield f"{what}. The prompts in the file are the ones used"
    if dimension not in (None, job.dimension):
        yield f"{name} is named after {dimension} while the dimension is {job.dimension}"
