"""The probability that one picture is better than another, per dimension: two pictures, two folders or two scored tables."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from saiqa.cli import model_flags
from saiqa.cli.console import ArgumentParser, Output, add_output
from saiqa.errors import Incomplete, UsageError
from saiqa.evaluate import tables
from saiqa.evaluate.page import path_of
from saiqa.files import folders, places
from saiqa.files.places import Place
from saiqa.pictures import side_by_side
from saiqa.pictures.lists import Lists
from saiqa.pictures.side_by_side import Mean, Pair, Picture
from saiqa.scorer import DEMO_CAVEAT, Scorer, given_data_root

EXAMPLES = """
python tools/compare_images.py --demo before.jpg after.jpg
python tools/compare_images.py renders_a/ renders_b/ --report pairs.html
python tools/compare_images.py a.csv b.csv --json
"""


def parser() -> ArgumentParser:
    """The flags of the command."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument_group("what to compare").add_argument
    what = "a picture, a folder, or a table of score_images.py --probabilities (.csv, .jsonl, .parquet)"
    add("a", metavar="A", help=f"{what}; several pictures are matched by file name")
    add("b", metavar="B", help="as A")
    what = "divides the log-odds: below 1 more confident (default: 1)"
    add("--temperature", type=temperature, default=1.0, metavar="T", help=what)
    add("--demo", action="store_true", help="use the demo's model and sentences, which know rendered rooms only")
    add_output(add)
    add("--report", metavar="FILE", help="write an HTML page with the pairs side by side: x.html")
    model_flags.add_flags(flags, exif=model_flags.ON)
    add = flags.add_argument_group("data").add_argument
    add("--data_root", metavar="DIR", help="folder or URL of the annotations with the model's sentences; default: ./SA-BENCH")
    return flags


def temperature(text: str) -> float:
    """A number above 0, as an argparse type."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises ``errors.UserError``."""
    args = parser().parse_args(argv)
    model_flags.check(args)
    out = Output(args.json, args.quiet)
    report = path_of(args.report) if args.report else None
    data_root = given_data_root(args.data_root) if args.data_root else folders.roots(args.demo).data
    sides = [pictures(text, data_root, out) for text in (args.a, args.b)]
    a, b = score(sides, args, out)
    names = (args.a, args.b)
    pairs = side_by_side.match(a, b, names, args.temperature)
    only = {"only_in_a": len(a) - len(pairs), "only_in_b": len(b) - len(pairs)}
    found = side_by_side.means(pairs)
    said = f"A is {args.a}, B is {args.b}; pictures left out: {only['only_in_a']} that only A has, {only['only_in_b']} only B."
    say(pairs, found, [said, side_by_side.HOW], out)
    if report:
        from saiqa.pictures import pairs_report  # not at the top: only --report needs it

        pairs_report.write(report, names, pairs, found, [said, side_by_side.HOW])
        out.note(f"report: {folders.shown(report)}")
    failed = [(one.image, one.error or "no probabilities") for pair in pairs for one in (pair.a, pair.b) if lacks(one)]
    out.finish(payload(args, pairs, found, failed) | only | ({"report": report} if report else {}))
    if failed:
        raise Incomplete(f"{len(failed)} pictures lack a score", failed, "Correct them and try again")


def lacks(picture: Picture) -> bool:
    """Whether a picture has an error or no probabilities."""
    return bool(picture.error) or not picture.words


# ---- the two sides ---------------------------------------------------------------------------------------------------


def pictures(text: str, data_root: Place, out: Output) -> list[Picture] | list[str]:
    """The scored pictures of a table, or the paths of pictures to score. Raises ``InputError``."""
    path = Path(text) if places.is_url(text) else folders.input_path(text)
    if path.suffix.lower() in side_by_side.TABLE_SUFFIXES and not path.is_dir():
        return side_by_side.read_pictures(path, data_root)
    if text == "-":
        raise UsageError("- is not a picture, folder or table", "Name two of these")
    return list(Lists("image", data_root, sys.stdin, out.note).expand([text]))


def score(sides: Sequence[list], args: argparse.Namespace, out: Output) -> list[list[Picture]]:
    """Score the pictures that are not from a table, in one model load; a picture on both sides is scored once."""
    images = list(dict.fromkeys(one for side in sides for one in side if isinstance(one, str)))
    if not images:
        return [list(side) for side in sides]
    given = {name: getattr(args, name) for name in ("model_path", "demo", "data_root", "prompt_version")}
    scorer = Scorer(**given, **model_flags.options(args))
    if scorer.demo:
        out.note(DEMO_CAVEAT)
    out.note(f"scoring {len(images)} pictures; sentences: {scorer.prompt_source}")
    scored = {one.name: Picture(one.name, one.name, one.probabilities, one.error) for one in scorer.stream(images)}
    return [[scored[one] if isinstance(one, str) else one for one in side] for side in sides]


# ---- output ----------------------------------------------------------------------------------------------------------


def say(pairs: Sequence[Pair], found: Mapping[str, Mean], notes: Sequence[str], out: Output) -> None:
    """The pairs and, if there are several, their summary, on stdout."""
    lines = side_by_side.pair_table(pairs)
    if len(pairs) > 1:
        lines += ["", *tables.lines(tables.TEXT, side_by_side.SUMMARY_HEADER, side_by_side.summary(found), [], labels=1)]
    for line in [*lines, *notes]:
        out.result(line)


def payload(
    args: argparse.Namespace, pairs: Sequence[Pair], found: Mapping[str, Mean], failed: Sequence[tuple[str, str]]
) -> dict:
    """The comparison as JSON values."""
    listed = [{"name": one.name, "image_a": one.a.image, "image_b": one.b.image, "a_is_better": one.better} for one in pairs]
    return {
        "a": args.a,
        "b": args.b,
        "temperature": args.temperature,
        "n": len(pairs),
        "dimensions": {dimension: asdict(mean) for dimension, mean in found.items()},
        "pairs": listed,
        "failed": [{"image": image, "reason": reason} for image, reason in failed],
    }
