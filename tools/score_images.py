#!/usr/bin/env python3
"""Score any pictures of rooms: distortion, harmony, layout, lighting and overall, from 1 (bad) to 5 (excellent)."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import prompt_configs as facts
from local_progress import Progress
from saiqa import bundle, jobs, pipeline, records, workers
from saiqa.console import ArgumentParser, Incomplete, InputError, Output, UsageError, positive_int, run
from saiqa.engines import ENGINES
from saiqa.image_lists import Lists
from saiqa.score_files import Layout, line_of
from saiqa.scorer import DEMO_CAVEAT, ImageScore, Scorer
from saiqa.workers import Workers

EXAMPLES = """
python tools/score_images.py --demo demo/SA-BENCH/images/lighting/images
python tools/score_images.py room.jpg renders/ 'photos/**/*.png'
python tools/score_images.py renders/ --output_csv renders.csv
python tools/score_images.py renders/ --output_csv renders.csv --resume
python tools/score_images.py list.csv --image_column path --output_jsonl renders.jsonl --probabilities
find renders -newer yesterday -name '*.png' | python tools/score_images.py - --json
"""


def parser() -> ArgumentParser:
    """The flags of the command."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument_group("what to score").add_argument
    paths = "images, URLs, folders (with all below), patterns, CSV or JSONL lists; - reads one path a line from stdin"
    add("paths", nargs="+", metavar="PATH", help=paths)
    add("--image_column", default="image", metavar="NAME", help="column or key of the path in a list (default: image)")
    add("--dimension", choices=(*facts.DIMENSIONS, jobs.ALL), default=jobs.ALL, help="default: all four")
    add("--weights", metavar="FILE", help="weights of the overall score, of fuse_scores.py; default: the plain mean")
    add("--demo", action="store_true", help="model and sentences of the demo, which knows rendered rooms only")

    add = flags.add_argument_group("what to write (a table goes to stdout in any case)").add_argument
    add("--output_csv", metavar="FILE", help="one row an image")
    add("--output_jsonl", metavar="FILE", help="one object an image")
    add("--probabilities", action="store_true", help="the five words' probabilities too")
    add("--resume", action="store_true", help="continue an interrupted run; of a finished one, do what is new or failed")
    add("--json", action="store_true", help="one JSON object on stdout instead of the table")

    add = flags.add_argument_group("model").add_argument
    add("--model_path", metavar="DIR", help="default: ./SA-IQA-model/sa-iqa-promptN")
    add("--data_root", metavar="DIR", help="where the annotations with the model's sentences are; default: ./SA-BENCH")
    add("--prompt_version", type=int, choices=facts.PROMPT_VERSIONS, default=facts.RECOMMENDED, help="default: 4")
    add("--engine", choices=tuple(ENGINES), default="prefill", help="prefill (default): one exact pass; swift")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="auto: bfloat16 on CUDA, else float32")
    add("--batch_size", type=positive_int, default=8, metavar="N", help="images a model pass (default: 8)")
    workers.add_flags(add)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises ``console.UserError``."""
    args = parser().parse_args(argv)
    workers.check(args)
    out = Output(args.json)
    outputs = output_paths(args)
    scorer, layout = make_scorer(args)
    data_root = bundle.input_path(args.data_root) if args.data_root else bundle.roots(args.demo).data
    images = Lists(args.image_column, data_root, sys.stdin, out.note).expand(args.paths)
    refuse_overwriting(outputs, images, args)
    if scorer.demo:
        out.note(DEMO_CAVEAT)
    with tempfile.TemporaryDirectory(prefix="saiqa-") as temporary:
        log = prepare_log(outputs, Path(temporary), scorer, layout, args.resume, out)
        with kept(log, outputs, out), ExitStack() as closing:
            engine = load(images, log, scorer, args, closing, out)
            log = begun(log, images)
            failed = score(images, log, scorer.stream(still_open(images, log), layout.dimensions, engine), layout, out)
            record = run_record(log, scorer, layout, failed, len(images)) | {"workers": getattr(engine, "count", 1)}
            if len(failed) == len(images) and outputs:
                out.warn("not one image could be scored, so that nothing was written")
                outputs = []
            write(outputs, images, log, layout, record, out)
            summary = {"model": scorer.model_name, "n": record["n"], "failed": record["failed"]}
            summary |= {f"output_{path.suffix[1:]}": path for path in outputs}
            out.finish_with(summary, "images", map(layout.json_value, lines(log, images)))
    if failed:
        again = "Correct them, then add --resume to try them again" if outputs else "Correct them and try again"
        raise Incomplete(f"{len(failed)} of {len(images)} images lack a score", failed, again)


# ---- before the model ------------------------------------------------------------------------------------------------


def output_paths(args: argparse.Namespace) -> list[Path]:
    """The files to write. Raises ``UsageError`` for wrong names and for nothing to resume, ``Failed`` for no access."""
    paths = []
    for suffix, typed in ((".jsonl", args.output_jsonl), (".csv", args.output_csv)):
        if typed:
            path = bundle.output_path(typed)
            if path.suffix != suffix:
                raise UsageError(f"--output_{suffix[1:]} {typed} does not end in {suffix}", "Name it so")
            records.check_writable(path)
            paths.append(path)
    if args.resume and not paths:
        raise UsageError("--resume continues a file", "Give the --output_csv or --output_jsonl of the earlier run")
    return paths


def make_scorer(args: argparse.Namespace) -> tuple[Scorer, Layout]:
    """The checkpoint, not loaded yet, and what to show of each image. Raises ``InputError`` as ``Scorer``."""
    names = ("model_path", "demo", "data_root", "engine", "device", "dtype", "batch_size", "prompt_version", "weights")
    scorer = Scorer(**{name: getattr(args, name) for name in names})
    try:
        asked = scorer.asked(None if args.dimension == jobs.ALL else [args.dimension])
    except ValueError as error:
        raise UsageError(f"{args.weights}: {error}", "Leave out --weights or --dimension") from None
    return scorer, Layout(asked, args.probabilities, scorer.weights)


def refuse_overwriting(outputs: Sequence[Path], images: Sequence[str], args: argparse.Namespace) -> None:
    """Raise ``UsageError`` where an output is also an input."""
    inputs = {*map(str, outputs)}.intersection(str(Path(text)) for text in (*args.paths, *images))
    if inputs:
        raise UsageError(f"{inputs.pop()} is both read and written", "Give the output another name")


def prepare_log(
    outputs: Sequence[Path], temporary: Path, scorer: Scorer, layout: Layout, resume: bool, out: Output
) -> records.Partial:
    """The log to write: beside the first output, or in the temporary folder; with ``resume``, with what is known.

    Raises:
        InputError: the run to be continued was of another model, prompt or engine.
    """
    path = bundle.partial_path(outputs[0]) if outputs else temporary / "log.jsonl"
    identity = scorer.model.identity(prompt_hash(scorer, layout))
    if resume:
        log = records.Partial.read(path) or finished_log(path, outputs, layout, identity)
        if log:
            pipeline.refuse_other(log, identity)
            return log
        out.note(f"{bundle.shown(outputs[0])}: nothing to resume, starting from the first image")
    elif path.exists():
        out.note(f"{bundle.shown(path)} of an interrupted run will be replaced; --resume would continue it")
    return records.Partial(path, {"identity": identity})


def finished_log(path: Path, outputs: Sequence[Path], layout: Layout, identity: dict) -> records.Partial | None:
    """A log of what the first finished result has; None where there is none. Raises as ``prepare_log``."""
    finished = next((output for output in outputs if output.is_file()), None)
    if finished is None:
        return None
    record = pipeline.read_run_record(finished)
    if "identity" not in record:
        what = f"nothing tells how {bundle.shown(finished)} was made: no {bundle.run_record_path(finished).name}"
        raise InputError(what, "Run without --resume to make it anew")
    log = records.Partial(path, {"identity": record["identity"], "engine": record["engine"]})
    pipeline.refuse_other(log, identity)
    log.start()
    for line in layout.finished_lines(finished):
        log.append([line])
    return records.Partial.read(path)


def prompt_hash(scorer: Scorer, layout: Layout) -> str:
    """A digest of what is asked: 64 hexadecimal digits."""
    asked = [(name, scorer.sentences[name].query, scorer.sentences[name].before) for name in layout.dimensions]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


# ---- the work --------------------------------------------------------------------------------------------------------


def still_open(images: Sequence[str], log: records.Partial) -> list[str]:
    """The images that no earlier run has scored."""
    return [image for image in images if image not in log.rated]


def load(
    images: Sequence[str], log: records.Partial, scorer: Scorer, args: argparse.Namespace, closing: ExitStack, out: Output
) -> Workers | None:
    """Load the model if there is something to score; the workers that have it, None where it is this process.

    Raises:
        InputError: the run to be continued had another dtype.
    """
    todo = len(still_open(images, log))
    if todo < len(images):
        out.note(f"{len(images) - todo} of {len(images)} images are scored already")
    if not todo:
        return None
    out.note(f"sentences: {scorer.prompt_source}")
    engine = workers.start(scorer.model, args, out.note) if workers.wanted(args) else None
    if engine:
        closing.callback(engine.close)
    details = (engine or scorer.engine).describe()
    identity = {**log.header["identity"], "dtype": details["dtype"]}
    if "engine" in log.header:
        pipeline.refuse_other(log, identity)
    else:
        log.header = {"identity": identity, "engine": details}
    return engine


def begun(log: records.Partial, images: Sequence[str]) -> records.Partial:
    """The log written anew: its header, and what an earlier run has scored of these images."""
    log.start(log if log.rated else None, images)
    return records.Partial.read(log.path)


def score(
    images: Sequence[str], log: records.Partial, results: Iterator[ImageScore], layout: Layout, out: Output
) -> list[tuple[str, str]]:
    """Score what is open, saying every image as it is done; (image, reason) of those that lack a score."""
    known, failed = log.ratings(images), []
    out.result(layout.heading)
    with progress(len(images) - log.count, out) as advance:
        for image in images:
            if image in log.rated:
                line = json.loads(next(known))
            else:
                line = line_of(next(results))
                log.append([line])
                advance()
            for text in layout.table_lines(line):
                out.result(text)
            if "failed" in line:
                failed.append((image, line["failed"]))
    return failed


def lines(log: records.Partial, images: Sequence[str]) -> Iterator[dict]:
    """The lines of all images, in their order."""
    return map(json.loads, log.lines(images))


@contextmanager
def progress(total: int, out: Output) -> Iterator[Callable[[], None]]:
    """What to call after each image: progress on stderr, unless a terminal shows the table's lines come anyway."""
    if sys.stdout.isatty() and not out.as_json:
        yield lambda: None
    else:
        with Progress(total, "score") as bar:
            yield bar.advance


@contextmanager
def kept(log: records.Partial, outputs: Sequence[Path], out: Output) -> Iterator[None]:
    """Where the block is cut short, say how to go on; where it ends well, the log has served."""
    try:
        yield
    except BaseException as error:
        if not (outputs and log.path.is_file()):
            raise
        hint = f"the images scored are kept in {bundle.shown(log.path)}; continue with --resume"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(hint) from None
        out.note(hint)
        raise
    log.remove()


# ---- after the work --------------------------------------------------------------------------------------------------


def write(
    outputs: Sequence[Path], images: Sequence[str], log: records.Partial, layout: Layout, record: dict, out: Output
) -> None:
    """Write the results, each whole or not at all, and beside them how they were made."""
    for path in outputs:
        if path.suffix == ".csv":
            records.write_csv(path, layout.columns, map(layout.row, lines(log, images)))
        else:
            records.write_jsonl(path, map(layout.json_value, lines(log, images)))
        pipeline.write_run_record(path, record)
        out.note(f"{len(images)} images, {bundle.shown(path)}")


def run_record(log: records.Partial, scorer: Scorer, layout: Layout, failed: Sequence[tuple[str, str]], n: int) -> dict:
    """How a result was made, as JSON values."""
    return {
        "model_path": str(scorer.model.checkpoint.resolve()),
        "dimensions": list(layout.dimensions),
        "prompt_source": scorer.prompt_source,
        "prompts": {
            name: {"query": scorer.sentences[name].query, "answer_prefix": scorer.sentences[name].before}
            for name in layout.dimensions
        },
        "weights": layout.weights,
        **log.header,
        "packages": pipeline.package_versions(),
        "n": n - len(failed),
        "failed": [{"image": image, "reason": reason} for image, reason in failed],
        "command": shlex.join(sys.argv),
    }


if __name__ == "__main__":
    sys.exit(run(main))
