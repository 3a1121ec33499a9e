"""Fit calibrated intervals for scores from rated pictures: they contain the MOS with a stated probability."""

from __future__ import annotations

import shlex
import statistics
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from saiqa import calibration, facts, scoring
from saiqa.calibration import Calibration
from saiqa.cli import jobs
from saiqa.cli.console import ArgumentParser, Output, add_output
from saiqa.engines import Rating, Request
from saiqa.errors import InputError, lacking
from saiqa.evaluate import conformal, tables
from saiqa.evaluate import familiar as familiarity
from saiqa.files import checkpoint_folders, csv_files, folders, jsonl, text_files
from saiqa.files.jsonl import to_json
from saiqa.progress import Progress
from saiqa.run import record
from saiqa.run.rate import rate
from saiqa.run.spec import Model, engine_name

EXAMPLES = """
python tools/infer.py --demo --split val
python tools/calibrate.py --demo --output demo.calibration.json
python tools/score_images.py --demo --calibration demo.calibration.json
python tools/calibrate.py results/val --pictures --output calibration.json
"""


_AT_ONCE = 64


class Rated(NamedTuple):
    """A calibration picture: its score, the word distribution behind it, and its MOS."""

    score: float
    distribution: dict[str, float]
    mos: float


def parser() -> ArgumentParser:
    """The flags of the command."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument
    add("results", nargs="?", metavar="DIR", help="results of infer.py for held-out pictures (default: ./results/val)")
    add("--split", choices=jobs.SPLITS, default="val", help="the split whose results are the default DIR (default: val)")
    add("--demo", action="store_true", help="use the demo's results")
    add("--prompt_version", type=int, choices=facts.PROMPT_VERSIONS, default=facts.RECOMMENDED, help="default: 4")
    add("--model_name", metavar="NAME", help="last part of the checkpoint's path (default: sa-iqa-promptN)")
    what = "also run the checkpoint on the pictures, so that pictures unlike them are flagged later (prefill engine)"
    add("--pictures", action="store_true", help=what)
    add("--data_root", metavar="DIR", help="where the pictures are; default: ./SA-BENCH")
    add("--output", metavar="FILE", default="calibration.json", help="default: calibration.json")
    add_output(add)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises ``errors.UserError``."""
    args = parser().parse_args(argv)
    out = Output(args.json, args.quiet)
    results = folders.input_path(args.results) if args.results else jobs.default_results(folders.roots(args.demo), args.split)
    output = folders.output_path(args.output)
    text_files.check_writable(output)
    name = args.model_name or facts.tuned_model(args.prompt_version)
    fits, widths, made_by = {}, {}, set()
    rated: dict[Path, dict] = {}
    for dimension in facts.DIMENSIONS:
        ratings = results / facts.result_name(dimension, args.prompt_version, name, ".jsonl")
        if ratings.is_file():
            fits[dimension], widths[dimension], rated[ratings] = fit(ratings, dimension)
            made_by.add((rated[ratings]["model_fingerprint"], engine_name(rated[ratings]["engine"])))
    if not fits:
        what = f"{folders.shown(results)} has no ratings of {name}"
        raise InputError(what, f"Make them with tools/infer.py{' --demo' * args.demo} --split {args.split}")
    if len(made_by) > 1:
        what = f"the results in {folders.shown(results)} are from different checkpoints or engines"
        raise InputError(what, "Make them again")
    found = Calibration(*made_by.pop(), fits, familiar(rated, args, out) if args.pictures else None)
    made = {"command": shlex.join(["calibrate.py", *sys.argv[1:]]), "packages": record.package_versions()}
    text_files.write_text(output, to_json({**found.to_json(), **made}) + "\n")
    say(fits, widths, out)
    out.note(f"calibration: {folders.shown(output)}")
    seen = {"pictures": found.familiar.n} if found.familiar else {}
    fitted = {name: {"n": one.n, "width": widths[name]} for name, one in fits.items()}
    out.finish({"output": output, **seen, "dimensions": fitted})


def fit(ratings: Path, dimension: str) -> tuple[calibration.Fit, float, dict]:
    """The calibration of one dimension, the median width of its intervals in points, and the record of the ratings.

    Raises:
        InputError: a file is missing or broken, was made with several prompts, or has too few pictures.
    """
    said = record.read_run_record(ratings)
    if not {"model_fingerprint", "prompts", "engine"} <= said.keys():
        raise InputError(f"{folders.shown(ratings)} has no record of how it was made", "Make it with tools/infer.py")
    if len(said["prompts"]) != 1:
        raise InputError(f"{folders.shown(ratings)}: its pictures have different prompts", "Calibrate with one prompt")
    rated = list(read(ratings, dimension))
    asked = said["prompts"][0]
    prompt = calibration.prompt_digest(asked["query"], asked["answer_prefix"])
    try:
        found = conformal.fit(
            [one.score for one in rated], [one.distribution for one in rated], [one.mos for one in rated], prompt
        )
    except conformal.ConformalError as error:
        raise InputError(f"{folders.shown(ratings)}: {error}", "Rate more pictures") from None
    except ModuleNotFoundError as error:
        raise lacking("a calibration", error.name) from None
    intervals = (found.interval(one.score, one.distribution) for one in rated)
    return found, statistics.median(high - low for low, high in intervals), said


def familiar(rated: Mapping[Path, dict], args: Namespace, out: Output) -> calibration.Familiar:
    """Fit what the rated pictures look like to the checkpoint. Raises ``InputError``.

    Args:
        rated: file of ratings -> its record.
    """
    said = next(iter(rated.values()))
    checkpoint, asked = folders.input_path(said["model_path"]), said["prompts"][0]
    if checkpoint_folders.fingerprint(checkpoint) != said["model_fingerprint"]:
        raise InputError(f"{folders.shown(checkpoint)} is no longer the checkpoint that made the results", "Make them again")
    seen = {name: said["engine"].get(name) for name in ("min_pixels", "max_pixels")}
    seen |= {"system": said["engine"].get("system") or "", "upright": bool(said["engine"].get("upright"))}
    model = Model.of(checkpoint, engine="prefill", device="auto", dtype="auto", batch_size=8, **seen)
    data_root = jobs.data_root(args)
    paths = dict.fromkeys(path for file in rated for path, _ in jsonl.stream_images(file))
    images = [folders.resolve_image(path, data_root) for path in paths]
    out.note(f"running {model.checkpoint.name} on {len(images)} pictures")
    engine, looks = model.load(), []
    with Progress(len(images), "look") as progress:
        for start in range(0, len(images), _AT_ONCE):
            part = images[start : start + _AT_ONCE]
            answers = rate(engine, [Request(image, asked["query"], asked["answer_prefix"]) for image in part])  # type: ignore[arg-type]
            looks += [answer.look for answer in answers if isinstance(answer, Rating) and answer.look]
            progress.advance(len(part))
    try:
        return familiarity.fit(looks)
    except conformal.ConformalError as error:
        raise InputError(str(error), "Rate more pictures, or leave out --pictures") from None


def read(ratings: Path, dimension: str) -> Iterator[Rated]:
    """The pictures that have both a rating and a mean opinion score."""
    column = facts.mos_column(dimension)
    table = csv_files.read_csv(ratings.with_suffix(".csv"), required=[facts.ID_COLUMN, column])
    mos = {row[facts.ID_COLUMN]: row[column] for row in table.rows}
    for path, line in jsonl.stream_images(ratings):
        image = folders.image_id(path)
        with suppress(scoring.ScoringError, ValueError, KeyError):  # a failed picture, or one without ratings
            yield Rated(scoring.score_of(line["logits"]), scoring.probabilities(line["logits"]), float(mos[image]))


def say(fits: dict[str, calibration.Fit], widths: dict[str, float], out: Output) -> None:
    """The fits as a table on stdout."""
    header = ["", "n", "expected MOS", f"{calibration.CONFIDENCE:.0%} intervals, median"]
    rows = [
        [dimension, str(one.n), f"{one.intercept:+.2f} {one.slope:+.2f} x score", f"{widths[dimension]:.2f} points wide"]
        for dimension, one in fits.items()
    ]
    for line in tables.lines(tables.TEXT, header, rows, [], labels=1):
        out.result(line)
