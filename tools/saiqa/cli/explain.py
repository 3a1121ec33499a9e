"""Show what lowers a picture's score: a map over the picture for each dimension, as PNG."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saiqa import facts, image_map
from saiqa.cli import jobs, model_flags
from saiqa.cli.console import ArgumentParser, Output, add_output
from saiqa.errors import Incomplete, InputError, UsageError
from saiqa.files import folders, text_files
from saiqa.files.places import is_url
from saiqa.pictures.lists import Lists
from saiqa.scorer import DEMO_CAVEAT, Scorer

if TYPE_CHECKING:
    from saiqa.image_map import ImageMap

EXAMPLES = """
python tools/explain.py --demo --dimension layout
python tools/explain.py photos/ --dimension harmony --output_dir maps
"""


def parser() -> ArgumentParser:
    """The flags of the command."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument
    add("paths", nargs="*", metavar="PATH", help="images, folders, patterns, lists; with --demo alone, a dozen of its rooms")
    jobs.add_dimension(add, "all four")
    usual = ", ".join(f"{method} for {name}" for name, method in image_map.DEFAULTS.items())
    add("--method", choices=image_map.METHODS, help=f"default: {usual}")
    add("--output_dir", metavar="DIR", default="maps", help="folder for IMAGE_DIMENSION.png (default: maps)")
    add("--demo", action="store_true", help="use the demo's model and sentences, which know rendered rooms only")
    add("--data_root", metavar="DIR", help="folder of the annotations with the model's sentences; default: ./SA-BENCH")
    add_output(add)
    model_flags.add_flags(flags, exif=model_flags.ON)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises ``errors.UserError``."""
    args = parser().parse_args(argv)
    check(args)
    out = Output(args.json, args.quiet)
    dimensions = jobs.chosen_dimensions(args) or list(facts.DIMENSIONS)
    images = pictures(args, out)
    files = names(images, folders.output_path(args.output_dir), dimensions)
    for path in files.values():
        text_files.check_writable(path)
    options = ("model_path", "demo", "data_root", "prompt_version")
    scorer = Scorer(**{name: getattr(args, name) for name in options}, **model_flags.options(args))
    warn(scorer, dimensions, out)
    found, failed = [], []
    for image in images:
        try:
            found += [draw(scorer, image, dimension, files[image, dimension], args, out) for dimension in dimensions]
        except InputError as error:
            failed.append((image, str(error).removeprefix(f"{image}: ")))
    shown = [{**one.to_dict(), "file": files[one.name, one.dimension]} for one in found]
    out.finish({"model": scorer.model_name, "maps": shown, "failed": len(failed)})
    if failed:
        raise Incomplete(f"{len(failed)} of {len(images)} images have no map", failed, "Correct them and try again")


def check(args: Namespace) -> None:
    """Raise ``UsageError`` for flags that cannot be combined."""
    model_flags.check(args)
    if args.engine != "prefill":
        raise UsageError(f"--engine {args.engine} has no maps", "Leave it out")
    if args.views > 1:
        raise UsageError("maps need a single view", "Leave out --views")
    if args.dtype == "int8":
        raise UsageError("there are no maps in --dtype int8", "Use float32 or bfloat16")


def pictures(args: Namespace, out: Output) -> list[str]:
    """The images given. Raises ``UsageError`` if there are none, ``InputError`` as ``Lists.expand``."""
    images = list(Lists("image", jobs.data_root(args), sys.stdin, out.note).expand(jobs.named_pictures(args)))
    if remote := [image for image in images if is_url(image)]:
        raise UsageError(f"{remote[0]} is not a local file", "Download it first")
    return images


def names(images: Sequence[str], folder: Path, dimensions: Sequence[str]) -> dict[tuple[str, str], Path]:
    """The file for each image and dimension; images with the same name get a number. Raises ``UsageError``."""
    taken: dict[str, int] = {}
    files: dict[tuple[str, str], Path] = {}
    for image in images:
        stem = Path(image).stem
        taken[stem] = taken.get(stem, 0) + 1
        unique = stem if taken[stem] == 1 else f"{stem}-{taken[stem]}"
        files |= {(image, dimension): folder / f"{unique}_{dimension}.png" for dimension in dimensions}
    if len(set(files.values())) < len(files):
        raise UsageError("two of the images would have their maps in one file", "Rename one of them")
    inputs = {os.path.abspath(image) for image in images}
    if over := [path for path in files.values() if os.path.abspath(path) in inputs]:
        raise UsageError(f"{over[0]} is both read and written", "Give another --output_dir")
    return files


def warn(scorer: Scorer, dimensions: Sequence[str], out: Output) -> None:
    """Say how far the maps can be trusted."""
    out.note(DEMO_CAVEAT if scorer.demo else image_map.UNCHECKED)
    for dimension in dimensions:
        out.note(image_map.standing(dimension, demo=True))


def draw(scorer: Scorer, image: str, dimension: str, path: Path, args: Namespace, out: Output) -> ImageMap:
    """Write the map of one image and print a line about it. Raises ``InputError`` if the image cannot be read."""
    found = scorer.explain(image, dimension, args.method)

    from saiqa.pictures import overlay

    overlay.write(path, image, args.exif == model_flags.ON, found)
    row, column = found.worst
    at = f"row {row + 1} of {len(found.map)}, column {column + 1} of {len(found.map[0])}"
    out.result(
        f"{image}  {dimension} {found.score:.2f}  most in {at}: {found.map[row][column]:+.3f} points  {folders.shown(path)}"
    )
    return found
