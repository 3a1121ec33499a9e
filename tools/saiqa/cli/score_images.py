"""Score any pictures of rooms: distortion, harmony, layout, lighting and overall, from 1 (bad) to 5 (excellent)."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from saiqa import facts, prompts
from saiqa.calibration import UNLIKE, is_of_another_kind
from saiqa.cli import interval_flags, jobs, model_flags, report_flags, worker_flags
from saiqa.cli.console import ArgumentParser, Output, add_output, names_of
from saiqa.errors import Incomplete, UsageError
from saiqa.files import folders, locks, parquet_files, scratch, stamps, text_files
from saiqa.image_score import ImageScore
from saiqa.pictures import reference_files, results
from saiqa.pictures.generators import ByGenerator, Generator, table
from saiqa.pictures.how_made import in_words, prompt_hash, run_record
from saiqa.pictures.listed import Listed
from saiqa.pictures.listed import check as check_listed
from saiqa.pictures.lists import Lists
from saiqa.pictures.results import Layout, line_of
from saiqa.progress import Progress
from saiqa.run import run
from saiqa.run.log import Partial
from saiqa.run.ray_workers import Workers
from saiqa.run.record import write_run_record
from saiqa.run.run import Kept, Run
from saiqa.scorer import DEMO_CAVEAT, Scorer, given_data_root

EXAMPLES = """
python tools/score_images.py --demo
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
    paths = "images, URLs, folders (recursive), patterns, lists (.csv, .jsonl, .txt); - reads one path per line from stdin"
    add("paths", nargs="*", metavar="PATH", help=f"{paths}; with --demo alone, a dozen of its rooms")
    add("--image_column", default="image", metavar="NAME", help="column or key of the path in a list (default: image)")
    kept = "columns or keys of the lists to keep in the results, comma-separated; default: all; '' for none"
    add("--keep_columns", type=names_of, metavar="NAMES", help=kept)
    jobs.add_dimension(add, "all four")
    add("--weights", metavar="FILE", help="weights of the overall score, from fuse_scores.py; default: the plain mean")
    interval_flags.add_flags(add)
    what = "scored table of other pictures, or demo: adds percentiles among them, and what pulls a picture down"
    add("--reference", metavar="FILE", help=what)
    add("--demo", action="store_true", help="use the demo's model and sentences, which know rendered rooms only")

    add = flags.add_argument_group("what to write (a table goes to stdout in any case)").add_argument
    add("--output_csv", metavar="FILE", help="one row per image; x.parquet: the same table as Parquet")
    add("--output_jsonl", metavar="FILE", help="one object per image")
    report_flags.add_flags(add)
    add("--probabilities", action="store_true", help="also the five words' probabilities")
    add("--resume", action="store_true", help="resume an interrupted run, or add new and failed images to a finished one")
    add("--digests", action="store_true", help="store each picture's SHA-256, with which --resume detects changes")
    add_output(add)

    model_flags.add_flags(flags, exif=model_flags.ON)
    add = flags.add_argument_group("data and speed").add_argument
    add("--data_root", metavar="DIR", help="folder or URL of the annotations with the model's sentences; default: ./SA-BENCH")
    worker_flags.add_flags(add)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises ``errors.UserError``."""
    args = parser().parse_args(argv)
    model_flags.check(args)
    worker_flags.check(args)
    out = Output(args.json, args.quiet)
    outputs = output_paths(args)
    report = report_flags.path_of(args)
    named = jobs.named_pictures(args)
    scorer, layout = make_scorer(args, out)
    data_root = given_data_root(args.data_root) if args.data_root else folders.roots(args.demo).data
    listed = Listed(Lists(args.image_column, data_root, sys.stdin, out.note, args.keep_columns).expand(named))
    check_listed(listed.columns, results.taken(args.json or bool(args.output_jsonl)), args.keep_columns)
    images = list(listed.of)
    refuse_overwriting(outputs, images, args)
    if scorer.demo:
        out.note(DEMO_CAVEAT)
    with locks.exclusive(outputs), scratch.folder() as temporary:
        this = prepare_run(outputs, images, temporary, scorer, layout, args.resume, out)
        with this.keeping(out.note) if outputs else nullcontext(), ExitStack() as closing:
            stamped = open_images(this, images, args.digests, listed, out)
            engine = load(this, len(images), len(stamped), scorer, args, closing, out)
            this.begin(out.note)
            scored = scorer.stream(list(stamped), layout.dimensions, engine)
            failed, notes, generators = score(this, stamped, scored, layout, listed, out)
            say(len(images), notes, generators, layout, out)
            record = run_record(this, scorer, layout, failed, notes) | {"workers": getattr(engine, "count", 1)}
            outputs = write(outputs, this, layout, listed, record, out)
            if report:
                shown = map(layout.json_value, named_lines(this, listed))
                report_flags.write(report, shown, layout, in_words(record), scorer, args.maps, out)
            out.finish_with(
                summary(scorer, record, generators, outputs), "images", map(layout.json_value, named_lines(this, listed))
            )
            this.log.remove()
    if failed:
        again = "Correct them, then add --resume to try them again" if outputs else "Correct them and try again"
        raise Incomplete(f"{len(failed)} of {len(images)} images lack a score", failed, again)


# ---- before the model ------------------------------------------------------------------------------------------------


def output_paths(args: argparse.Namespace) -> list[Path]:
    """The files to write. Raises ``UsageError`` for wrong names or nothing to resume, ``Failed`` without access."""
    paths = []
    for suffixes, typed in (((".jsonl",), args.output_jsonl), ((".csv", parquet_files.SUFFIX), args.output_csv)):
        if typed:
            path = folders.output_path(typed)
            if path.suffix not in suffixes:
                what = f"--output_{suffixes[0][1:]} {typed} does not end in {' or '.join(suffixes)}"
                raise UsageError(what, "Change the file name")
            text_files.check_writable(path)
            paths.append(path)
    if args.resume and not paths:
        raise UsageError("--resume needs an output file", "Give the --output_csv or --output_jsonl of the earlier run")
    return paths


def make_scorer(args: argparse.Namespace, out: Output) -> tuple[Scorer, Layout]:
    """The checkpoint, not loaded yet, and what to show of each image. Raises ``InputError`` as ``Scorer``."""
    interval_flags.check(args)
    names = ("model_path", "demo", "data_root", "prompt_version", "weights", "calibration")
    scorer = Scorer(**{name: getattr(args, name) for name in names}, **model_flags.options(args))
    try:
        asked = scorer.asked(jobs.chosen_dimensions(args))
    except ValueError as error:
        raise UsageError(f"{args.weights}: {error}", "Leave out --weights or --dimension") from None
    compared = reference_files.given(args.reference, asked, scorer, out.note) if args.reference else None
    sure = {"calibration": scorer.calibration, **interval_flags.options(args)}
    return scorer, Layout(asked, args.probabilities, scorer.weights, **sure, reference=compared)


def refuse_overwriting(outputs: Sequence[Path], images: Sequence[str], args: argparse.Namespace) -> None:
    """Raise ``UsageError`` if an output is also an input."""
    inputs = {*map(str, outputs)}.intersection(str(Path(text)) for text in (*args.paths, *images))
    if inputs:
        raise UsageError(f"{inputs.pop()} is both read and written", "Give the output another name")


def prepare_run(
    outputs: Sequence[Path],
    images: Sequence[str],
    temporary: Path,
    scorer: Scorer,
    layout: Layout,
    resume: bool,
    out: Output,
) -> Run:
    """The run, whose log is beside the first output or in the temporary folder; with ``resume``, with earlier results.

    Raises:
        InputError: the run to be resumed used another model, prompt or engine.
    """
    identity = scorer.model.identity(prompt_hash(scorer, layout))

    def read_finished(output: Path, record: dict) -> Partial:
        run.refuse_other(output, record["identity"], identity)
        return layout.finished_log(output, record, temporary / "finished.jsonl")

    kept = Kept.beside(outputs or [temporary / "log"], resume, out.note, read_finished)
    return Run(kept, scorer.model, identity, lambda: iter(images))


# ---- the work --------------------------------------------------------------------------------------------------------


def load(
    this: Run, images: int, todo: int, scorer: Scorer, args: argparse.Namespace, closing: ExitStack, out: Output
) -> Workers | None:
    """Load the model if there is something to score; returns the workers, or None if this process has it.

    Raises:
        InputError: the run to be resumed used another dtype.
    """
    if todo < images:
        out.note(f"{images - todo} of {images} images are scored already")
    if not todo:
        return None
    asked = f"sentences: {scorer.prompt_source}; system prompt: {prompts.shown(scorer.model.system)}"
    out.note(f"loading {scorer.model_name}; {asked}")
    engine = worker_flags.start(scorer.model, args, out.note) if worker_flags.wanted(args) else None
    if engine:
        closing.callback(engine.close)
    this.settle((engine or scorer.engine).describe())
    return engine


def open_images(this: Run, images: Sequence[str], with_digests: bool, listed: Listed, out: Output) -> dict[str, dict | None]:
    """The images to score, with the stamps of their pictures: those not rated yet, or changed since.

    Columns of an earlier run's list are taken over into ``listed``.
    """
    earlier = this.earlier
    stamped, changed = {}, 0
    for image in images:
        stamp = stamps.of(image, with_digests)
        known = this.is_rated(image)
        line = earlier.line_of(image) if earlier and (known or this.was_tried(image)) else None
        if earlier and known and earlier.forget_if_changed(image, stamp):
            changed += 1
        elif known:
            continue
        stamped[image] = stamp
        listed.keep(line or {})
    if changed:
        out.note(run.changed_note(changed))
    return stamped


def score(
    this: Run,
    stamped: Mapping[str, dict | None],
    scored: Iterator[ImageScore],
    layout: Layout,
    listed: Listed,
    out: Output,
) -> tuple[list[tuple[str, str]], Counter[str], list[Generator]]:
    """Score the open images, printing each one when it is done.

    Args:
        stamped: the open images, with the stamps of their pictures.

    Returns:
        (image, reason) for images without a score; the number of pictures per note; the means per generator.
    """
    known, by_generator = this.known_lines(), ByGenerator(layout)
    failed: list[tuple[str, str]] = []
    notes: Counter[str] = Counter()
    out.note(facts.SCALE)
    out.result(layout.heading)
    with Progress(len(stamped), "score") as bar:
        for image in this.images():
            if this.is_rated(image):
                line = listed.on(json.loads(next(known)))
            else:
                line = listed.on(line_of(next(scored), stamped[image]))
                this.log.append([line])
                bar.advance()
            with bar.aside():
                for text in layout.table_lines(line):
                    out.result(text)
            by_generator.add(line)
            notes.update(line.get("notes", ()))
            if "failed" in line:
                failed.append((image, line["failed"]))
    return failed, notes, by_generator.generators()


def say(images: int, notes: Mapping[str, int], generators: Sequence[Generator], layout: Layout, out: Output) -> None:
    """Summarise the notes, and the means per generator."""
    for note, count in notes.items():
        out.note(f"of {count} images {note}")
    if is_of_another_kind(notes.get(UNLIKE, 0), images):
        out.warn("that is more than chance: the pictures are of another kind than the calibration pictures")
    for text in ["", *table(generators, layout)] if generators else ():
        out.result(text)


def lines(this: Run, listed: Listed) -> Iterator[dict]:
    """The lines of the result: other images of an earlier run first, then the images of this run in their order."""
    return map(listed.on, map(json.loads, this.log.lines(this.images)))


def named_lines(this: Run, listed: Listed) -> Iterator[dict]:
    """The lines of the images of this run, in their order."""
    return itertools.islice(lines(this, listed), this.log.others, None)


# ---- after the work --------------------------------------------------------------------------------------------------


def write(outputs: list[Path], this: Run, layout: Layout, listed: Listed, record: dict, out: Output) -> list[Path]:
    """Write the results, each completely or not at all, each with the record of how it was made; return what was written."""
    if outputs and not record["n"] and not this.log.others:
        out.warn("no image could be scored, so nothing was written")
        return []
    if outputs:
        listed.meet(itertools.islice(lines(this, listed), this.log.others))
        layout = replace(layout, listed=list(listed.columns))
    for path in outputs:
        results.write(path, layout, lines(this, listed))
        write_run_record(path, record)
        out.note(f"{record['images']} images, {folders.shown(path)}")
    return outputs


def summary(scorer: Scorer, record: dict, generators: Sequence[Generator], outputs: Sequence[Path]) -> dict:
    """The values of ``--json`` other than the images."""
    said = {"model": scorer.model_name, "n": record["n"], "failed": record["failed"]}
    said |= {"generators": [asdict(one) for one in generators]} if generators else {}
    return said | {f"output_{path.suffix[1:]}": path for path in outputs}
