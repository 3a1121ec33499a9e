"""Check that a checkpoint works as a scorer: repeatable, stable under small changes, and lowered by degraded pictures."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from saiqa import facts
from saiqa.cli import model_flags
from saiqa.cli.console import ArgumentParser, Output, add_output, positive_int
from saiqa.errors import Failed, InputError
from saiqa.evaluate import tables
from saiqa.evaluate.page import path_of
from saiqa.files import folders
from saiqa.files.places import RemotePath

if TYPE_CHECKING:
    from PIL import Image

EXAMPLES = """
python tools/audit.py --demo
python tools/audit.py --model_path my-checkpoint --images my_photos --report audit.html
"""
FEWEST, USUAL = 4, 12


def parser() -> ArgumentParser:
    """The flags of the command."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument
    add("--images", metavar="DIR", help="pictures of good rooms (default: those of the benchmark, or with --demo its own)")
    add("--count", type=positive_int, default=USUAL, metavar="N", help=f"use N of them (default: {USUAL})")
    add("--demo", action="store_true", help="use the demo's checkpoint and rooms")
    add("--data_root", metavar="DIR", help="folder of the annotations with the model's sentences; default: ./SA-BENCH")
    add("--report", metavar="FILE", help="write an HTML page with the checks and the modified pictures: x.html")
    add_output(add)
    model_flags.add_flags(flags, exif=model_flags.OFF)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises ``errors.UserError``, and ``Failed`` if a check failed."""
    args = parser().parse_args(argv)
    model_flags.check(args)
    out = Output(args.json, args.quiet)
    report = path_of(args.report) if args.report else None
    rooms = read_rooms(args)

    from saiqa.audit import page
    from saiqa.audit.examine import Examination
    from saiqa.scorer import Scorer

    names = ("model_path", "demo", "data_root", "prompt_version")
    scorer = Scorer(**{name: getattr(args, name) for name in names}, **model_flags.options(args))
    out.note(f"auditing {scorer.model_name} with {len(rooms)} rooms")
    audit = Examination(scorer, rooms).run()
    rows = [[check.name, "passed" if check.passed else "FAILED", check.found] for check in audit.checks]
    for line in tables.lines(tables.TEXT, ["check", "result", "found"], rows, [], labels=3):
        out.result(line)
    said = ", ".join(f"{value:.2f} ({name})" for name, value in audit.detectable.items())
    out.note(f"two scores differ significantly if they are further apart than {said}")
    if report:
        page.write(report, audit, scorer.model_name)
        out.note(f"page: {folders.shown(report)}")
    checks = [asdict(check) for check in audit.checks]
    out.finish({"model": scorer.model_name, "checks": checks, "smallest_detectable_difference": audit.detectable})
    if audit.failed:
        names_of = ", ".join(check.name for check in audit.failed)
        raise Failed(f"{len(audit.failed)} of {len(audit.checks)} checks failed: {names_of}", "Do not trust its scores yet")


def read_rooms(args: Namespace) -> list[Image.Image]:
    """The pictures of the audit. Raises ``InputError`` if there are too few, or if one cannot be read."""
    if args.images:
        folder = folders.input_path(args.images)
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in facts.IMAGE_SUFFIXES)
    elif args.demo:
        files = folders.demo_rooms()
    else:
        files = benchmark_rooms(args)
    files = files[:: max(1, len(files) // args.count)][: args.count]
    if len(files) < FEWEST:
        where = folders.shown(folders.input_path(args.images)) if args.images else "the benchmark"
        raise InputError(f"{where} has {len(files)} pictures, an audit needs {FEWEST}", "Give a folder of rooms with --images")
    from saiqa.model.decoding import IMAGE_ERRORS, decode, open_image, unreadable

    rooms = []
    for file in files:
        try:
            with open_image(file) as image:
                rooms.append(decode(image, args.exif == model_flags.ON).image)
        except IMAGE_ERRORS as error:
            raise InputError(f"{folders.shown(file)}: {unreadable(error)}", "Remove it") from None
    return rooms


def benchmark_rooms(args: Namespace) -> list:
    """The images of the benchmark that exist."""
    root = folders.data_path(args.data_root) if args.data_root else folders.roots().data
    if isinstance(root, RemotePath):
        raise InputError("the pictures of the audit must be in a local folder", "Give one with --images")
    found = (root / facts.IMAGES_FOLDER.format(dimension=name) for name in facts.DIMENSIONS)
    return [path for folder in found for path in sorted(folder.glob("*")) if path.suffix.lower() in facts.IMAGE_SUFFIXES]
