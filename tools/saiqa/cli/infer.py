"""Rate the test images of SA-BENCH, turn the ratings into scores, and compare these with people's."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from saiqa import prompts
from saiqa.benchmark import infer_stage, score_stage
from saiqa.cli import evaluation, jobs, model_flags, worker_flags
from saiqa.cli.console import ArgumentParser, Output, add_output, positive_int
from saiqa.engines import Engine
from saiqa.errors import Incomplete, InputError, UsageError
from saiqa.evaluate import scored_table, summary
from saiqa.files import checkpoint_folders, folders, job_files, locks
from saiqa.files.job_files import EVAL, INFER, SCORE, STAGES, Job, JobFiles
from saiqa.files.places import Place
from saiqa.run import record
from saiqa.run.ray_workers import Workers
from saiqa.run.spec import Model

ALL = "all"

EXAMPLES = """
python tools/infer.py --demo                                   try everything on the small bundle in demo/
python tools/infer.py                                          the four dimensions of SA-BENCH, one model load
python tools/infer.py --dimension lighting --prompt_version 4
python tools/infer.py --dimension layout --mode infer --limit 20
python tools/infer.py --dimension layout --mode infer --resume
python tools/infer.py --mode eval --dimension harmony --json
python tools/infer.py --mode eval --full --report report.html  every figure with its interval, and a page
"""


def parser() -> ArgumentParser:
    """The flags of the command."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument_group("what to do").add_argument
    add("--mode", choices=(*STAGES, ALL), default=ALL, help="one stage, or all three in turn (default: all)")
    jobs.add_dimension(add, "by the input file's name, else all")
    add("--split", choices=jobs.SPLITS, default=jobs.TEST, help="default: test; results of another go to results/SPLIT")
    add("--demo", action="store_true", help="data, model and results of the demo instead of the release's")
    add(
        "--limit",
        type=positive_int,
        metavar="N",
        help="the first N images only; default names of outputs end in _limitN",
    )
    add("--resume", action="store_true", help="continue an interrupted run, or retry the failures of a finished one")
    add("--digests", action="store_true", help="keep each picture's SHA-256; --resume tells by it what has changed")
    add("--dry_run", action="store_true", help="check files, columns, ids, images and checkpoint, and load nothing")
    add_output(add)

    add = flags.add_argument_group("files (N is the prompt version)").add_argument
    add("--data_root", metavar="DIR", help="default: ./SA-BENCH")
    add("--results_dir", metavar="DIR", help="default: ./results")
    add("--test_jsonl", metavar="FILE", help="questions; default: the test JSONL of the data root")
    add("--input_csv", metavar="FILE", help="people's ratings; default: the test CSV of the data root")
    add("--output_jsonl", metavar="FILE", help="default: {dimension}_promptN_{model_name}.jsonl in the results folder")
    add("--output_csv", metavar="FILE", help="default: {dimension}_promptN_{model_name}.csv in the results folder")
    add("--gt_column", metavar="NAME", help="column of the mean opinion score; default: {dimension}_score_mos")

    model_flags.add_flags(flags, exif=model_flags.OFF)
    add = flags.add_argument_group("speed").add_argument
    add("--max_batch_size", type=positive_int, default=64, metavar="N", help="images between two savings (default: 64)")
    worker_flags.add_flags(add)
    evaluation.add_flags(flags)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises ``errors.UserError``."""
    args = parser().parse_args(argv)
    model_flags.check(args)
    stages = STAGES if args.mode == ALL else (args.mode,)
    if evaluation.wanted(args) and EVAL not in stages:
        raise UsageError("--full, --table and --report are of an evaluation", "Use --mode eval or all")
    evaluation.check(args)
    worker_flags.check(args)
    out = Output(args.json, args.quiet)
    todo = jobs.make_jobs(args)
    with locks.exclusive([] if args.dry_run else [path for job in todo for path in job_files.outputs(job, stages)]):
        run_jobs(todo, stages, args, out)


def run_jobs(todo: Sequence[Job], stages: Collection[str], args: argparse.Namespace, out: Output) -> None:
    """Validate all inputs, then run the requested stages, dimension by dimension."""
    checked = check(todo, stages, args, out)
    if args.dry_run:
        dry_run(todo, checked, stages, args, out)
        return
    outcomes: dict[str, dict] = {}
    problems: list[InputError] = []
    with loaded([c.inference for c in checked.values() if c.inference], args, out) as engine:
        for job in todo:
            outcomes[job.dimension] = run_stages(job, stages, checked[job.dimension], engine, problems, args, out)
    full = evaluate_fully(todo, outcomes, args, out) if evaluation.wanted(args) else {}
    out.finish({"mode": args.mode, "dimensions": outcomes, **full})
    finish(outcomes, problems, args, out)


@dataclass
class Checked:
    """The validated inputs of one dimension's first stage; later stages read what it writes."""

    inference: infer_stage.Inference | None = None
    scoring: score_stage.Scoring | None = None
    scored: list[scored_table.ScoredRow] | None = None


def check(todo: Sequence[Job], stages: Collection[str], args: argparse.Namespace, out: Output) -> dict[str, Checked]:
    """Validate all inputs, of all dimensions, before loading the model."""
    model = model_of(args, out) if INFER in stages else None
    for job in todo:
        require_results(job, args)
    return {files.job.dimension: check_job(files, model, args, out) for files in job_files.open_all(todo, stages, out.warn)}


def check_job(files: JobFiles, model: Model | None, args: argparse.Namespace, out: Output) -> Checked:
    """Validate the inputs of a job's first stage. Raises ``InputError``."""
    job = files.job
    if model:
        inference = infer_stage.prepare(files, model, args.resume, args.digests, out)
        if files.people:
            score_stage.check_people(files.people, (question.id for question in inference.questions), job.dimension)
        return Checked(inference=inference)
    if files.scored:
        return Checked(scored=scored_table.scored_rows(files.scored, job.gt_column))
    return Checked(scoring=score_stage.prepare(files))


def model_of(args: argparse.Namespace, out: Output) -> Model:
    """The requested checkpoint and how to run it. Raises ``InputError`` if there is none."""
    checkpoint = checkpoint_folders.find_checkpoint(jobs.model_path(args), out.note)
    options = model_flags.options(args) | {"batch_size": min(args.batch_size, args.max_batch_size)}
    return Model.of(checkpoint, **options)


def require_results(job: Job, args: argparse.Namespace) -> None:
    """Raise ``InputError`` for a missing result that is to be scored or evaluated, naming the command that makes it."""
    if args.mode == SCORE:
        path, mode = job.output_jsonl, INFER
    elif args.mode == EVAL:
        path, mode = job.output_csv, SCORE if job.output_jsonl.is_file() else ALL
    else:
        return
    if path.is_file():
        return
    flags = ["--mode", mode, "--dimension", job.dimension, "--prompt_version", str(job.version)]
    for name in ("data_root", "model_path", "results_dir", "limit", *jobs.FILE_FLAGS):
        if getattr(args, name):
            flags += [f"--{name}", str(getattr(args, name))]
    command = shlex.join(["python", "tools/infer.py", *flags, *(["--demo"] if args.demo else [])])
    raise InputError(f"{folders.shown(path)} is not there", f"Make it with `{command}`")


@contextmanager
def loaded(
    inferences: Sequence[infer_stage.Inference], args: argparse.Namespace, out: Output
) -> Iterator[Engine | Workers | None]:
    """The engine or the workers; None if nothing is left to ask."""
    if not any(inference.questions.askable for inference in inferences):
        yield None
        return
    model = inferences[0].run.model
    out.note(f"loading {checkpoint_folders.model_name(model.checkpoint)}; system prompt: {prompts.shown(model.system)}")
    with ExitStack() as closing:
        engine = worker_flags.start(model, args, out.note) if worker_flags.wanted(args) else model.load()
        if isinstance(engine, Workers):
            closing.callback(engine.close)
        for inference in inferences:
            inference.run.settle(engine.describe())
        yield engine


def run_stages(
    job: Job,
    stages: Collection[str],
    checked: Checked,
    engine: Engine | Workers | None,
    problems: list[InputError],
    args: argparse.Namespace,
    out: Output,
) -> dict:
    """Run the requested stages on one dimension; return their results as JSON values.

    An undefined correlation goes to ``problems``, so that the other dimensions still get theirs.
    """
    outcome: dict = {}
    failures: record.Failures = {}
    if checked.inference:
        failures = infer_stage.infer(checked.inference, engine, args.max_batch_size, out)
        questions = checked.inference.questions
        outcome = {"n": len(questions) - questions.among(failures), "output_jsonl": job.output_jsonl}
        if not outcome["n"]:
            out.warn(f"{job.dimension}: no image could be rated, so nothing was written")
            return {**outcome, "failed": record.failed_list(failures)}
    if SCORE in stages:
        ready = checked.scoring or score_stage.prepare(job_files.open_one(job, [SCORE]))
        outcome["n"], unscored = score_stage.score(ready, out)
        failures = unscored | failures  # where both know a reason, inference's is the cause
        outcome["output_csv"] = job.output_csv
        out.note(f"{job.dimension}: {outcome['n']} images scored, {folders.shown(job.output_csv)}")
    if EVAL in stages:
        rows = checked.scored or scored_table.read_scored(job.output_csv, job.gt_column)
        failures = scored_table.unscored(rows, folders.shown(job.output_csv)) | failures
        outcome |= evaluate(job, rows, problems, args, out)
    return {**outcome, "failed": record.failed_list(failures)}


def evaluate(
    job: Job,
    rows: Sequence[scored_table.ScoredRow],
    problems: list[InputError],
    args: argparse.Namespace,
    out: Output,
) -> dict:
    """Print the correlation of one dimension; return it as JSON values, empty if undefined."""
    try:
        correlation = scored_table.evaluate(rows, folders.shown(job.output_csv))
    except InputError as error:
        problems.append(error)
        return {}
    if wants_all(args):
        out.result(f"{job.dimension} (n {correlation.n})")
    evaluation.say_correlation(correlation, job.dimension, out)
    return asdict(correlation)


def evaluate_fully(todo: Sequence[Job], outcomes: dict[str, dict], args: argparse.Namespace, out: Output) -> dict:
    """What ``--full``, ``--table`` and ``--report`` add, for the tables that this run has scored or was given."""
    done = [job for job in todo if args.mode == EVAL or "output_csv" in outcomes[job.dimension]]
    scored = [summary.read(job.dimension, job.output_csv, job.output_jsonl, job.gt_column) for job in done]
    return evaluation.finish(scored, todo[0].data_root, args, out)


def wants_all(args: argparse.Namespace) -> bool:
    """Whether the command covers several dimensions, so that each result is printed with its name."""
    return len(jobs.dimensions(args)) > 1


def finish(outcomes: dict[str, dict], problems: Sequence[InputError], args: argparse.Namespace, out: Output) -> None:
    """Raise the error that the outcome deserves, if any."""
    failed = [(f"{dimension} {f['id']}", f["reason"]) for dimension, o in outcomes.items() for f in o["failed"]]
    undefined = [("no correlation", str(problem)) for problem in problems]
    if failed:
        again = "Correct them, then add --resume to try them again" if args.mode in (INFER, ALL) else ""
        raise Incomplete(f"{len(failed)} images have no score", failed + undefined, again)
    for problem in problems[1:]:
        out.warn(str(problem))
    if problems:
        raise problems[0]


def dry_run(
    todo: Sequence[Job], checked: dict[str, Checked], stages: Collection[str], args: argparse.Namespace, out: Output
) -> None:
    """Print what a run would read and write."""
    plan, items = {}, []
    for job in todo:
        inference = checked[job.dimension].inference
        plan[job.dimension] = plan_of(job, inference, stages, args)
        out.result(f"{job.dimension}:")
        for key, value in plan[job.dimension].items():
            out.result(f"  {key}: {folders.shown(value) if isinstance(value, Path) else value}")
        items += [(f"{job.dimension} {i}", why) for i, why in inference.questions.missing.items()] if inference else []
    out.finish({"mode": args.mode, "dry_run": True, "dimensions": plan})
    if items:
        raise Incomplete(f"{len(items)} images are missing", items)


def plan_of(
    job: Job, inference: infer_stage.Inference | None, stages: Collection[str], args: argparse.Namespace
) -> dict[str, Place | str | int]:
    """What a run of one dimension would read and write."""
    plan: dict[str, Place | str | int] = {}
    if inference:
        plan |= {"model": inference.run.model.checkpoint, "engine": args.engine, "questions": job.test_jsonl}
        plan |= {"images": len(inference.questions), "to rate": inference.questions.askable}
        plan |= {"missing": inference.questions.among(inference.questions.missing), "writes ratings": job.output_jsonl}
    if args.mode == SCORE:
        plan["ratings"] = job.output_jsonl
    if SCORE in stages:
        plan |= {"table": job.input_csv, "writes scores": job.output_csv}
    if args.mode == EVAL:
        plan["scores"] = job.output_csv
    return plan
