"""Convert a table of people's ratings to the questions and answers for training and inference."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from saiqa import facts, scoring
from saiqa.cli.console import ArgumentParser, Output, add_output
from saiqa.errors import Incomplete, InputError, UsageError
from saiqa.files import csv_files, folders, ids, jsonl, question_files

EXAMPLES = """
python tools/convert_csv_to_jsonl.py --input_csv SA-BENCH/annotations/lighting_3k_test.csv
python tools/convert_csv_to_jsonl.py --input_csv SA-BENCH/annotations/layout_6k_train.csv --prompt_version 2
python tools/convert_csv_to_jsonl.py --input_csv my.csv --dimension layout --image_dir photos --score_column mos
python tools/convert_csv_to_jsonl.py --input_csv my.csv --dimension layout --image_dir photos \\
    --prompts_from SA-BENCH/annotations
"""

SUPPOSED_SUFFIX = ".jpg"  # assumed for missing images, as in the release


def parser() -> ArgumentParser:
    """The flags of the command."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument
    add("--input_csv", metavar="FILE", required=True, help="table with the columns id and --score_column")
    add("--output_jsonl", metavar="FILE", help="default: {name of the table}_promptN.jsonl beside the table")
    add("--image_dir", metavar="DIR", help="default: images/{dimension}/images in the table's data root")
    add("--check_images", action="store_true", help="leave out rows whose image is not in --image_dir")
    add("--score_column", metavar="NAME", help="default: {dimension}_score_mos")
    add("--dimension", choices=tuple(facts.DIMENSIONS), help="default: from the table's name")
    add("--prompt_version", type=int, choices=facts.PROMPT_VERSIONS, default=facts.RECOMMENDED, help="default: 4")
    add("--prompts_from", metavar="DIR", help="use the sentences of this annotation folder; default: this project's own")
    add("--dry_run", action="store_true", help="check everything without writing")
    add_output(add)
    return flags


@dataclass(frozen=True)
class Job:
    """One conversion, with all defaults filled in."""

    table: Path
    output: Path
    images: Path
    images_as_written: str
    check_images: bool
    score_column: str
    sentences: question_files.Sentences


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises ``errors.UserError``."""
    args = parser().parse_args(argv)
    out = Output(args.json, args.quiet)
    job = make_job(args)
    lines, left_out = convert(job, out)
    if not lines:
        what = f"none of the {len(left_out)} rows of {folders.shown(job.table)} can be converted: {left_out[0][1]}"
        raise InputError(what, "Check --score_column, and --image_dir with --check_images")
    if not args.dry_run:
        jsonl.write_jsonl(job.output, lines)
    out.note(f"sentences: {job.sentences.source}")
    done = "would be written to" if args.dry_run else "written to"
    out.result(f"{len(lines)} of {len(lines) + len(left_out)} rows {done} {folders.shown(job.output)}")
    failed = [{"id": image_id, "reason": reason} for image_id, reason in left_out]
    out.finish({"output_jsonl": job.output, "dry_run": args.dry_run, "n": len(lines), "failed": failed})
    if left_out:
        raise Incomplete(f"{len(left_out)} rows were left out", left_out, "Correct them and convert again")


def make_job(args: argparse.Namespace) -> Job:
    """Fill in the defaults, from the table's name and folder.

    Raises:
        UsageError: the dimension is unknown.
        InputError: a file or folder is missing.
    """
    table = folders.input_path(args.input_csv)
    dimension = args.dimension or folders.dimension_in_name(table)
    if dimension is None:
        what = f"the name {table.name} does not start with a dimension"
        raise UsageError(what, f"Add --dimension, one of {', '.join(facts.DIMENSIONS)}")
    folders.require_data(table)
    images = folders.input_path(args.image_dir) if args.image_dir else default_images(table, dimension)
    if args.check_images and not images.is_dir():
        raise folders.missing_data(f"the image folder {folders.shown(images)} is not there")
    name = facts.QUESTIONS_JSONL.format(stem=table.stem, version=args.prompt_version)
    return Job(
        table=table,
        output=folders.output_path(args.output_jsonl) if args.output_jsonl else table.with_name(name),
        images=images,
        images_as_written=written_folder(images),
        check_images=args.check_images,
        score_column=args.score_column or facts.mos_column(dimension),
        sentences=sentences_for(dimension, args),
    )


def default_images(table: Path, dimension: str) -> Path:
    """The image folder in the table's data root, else in the repository's."""
    in_data_root = table.resolve().parent.name == facts.ANNOTATIONS_FOLDER
    data_root = table.resolve().parent.parent if in_data_root else folders.roots().data
    return data_root / facts.IMAGES_FOLDER.format(dimension=dimension)


def written_folder(images: Path) -> str:
    """The image folder as written in records: ``SA-BENCH/images/...`` for a data root of any name, else as typed."""
    tail = images.resolve().parts[-3:]
    in_data_root = tail in {Path(facts.IMAGES_FOLDER.format(dimension=d)).parts for d in facts.DIMENSIONS}
    return "/".join((facts.DATA_FOLDER, *tail)) if in_data_root else images.as_posix()


def sentences_for(dimension: str, args: argparse.Namespace) -> question_files.Sentences:
    """The sentences to write. Raises ``InputError`` if ``--prompts_from`` has none for this dimension."""
    if not args.prompts_from:
        return question_files.own_sentences(dimension, args.prompt_version)
    folder = folders.input_path(args.prompts_from)
    found = question_files.annotated_sentences(folder, dimension, args.prompt_version)
    if found is None:
        name = facts.annotation_jsonl(dimension, "train", args.prompt_version)
        raise InputError(f"{folders.shown(folder)} has no sentences for {dimension}: no {name} or the like", "Check the folder")
    return found


def convert(job: Job, out: Output) -> tuple[list[dict], list[tuple[str, str]]]:
    """The lines to write, and (id, reason) for the rows left out.

    Raises:
        InputError: the table is broken or lacks a column.
    """
    required = (facts.ID_COLUMN, job.score_column)
    table = csv_files.read_csv(job.table, required=required)
    twins = ids.twins(table.column(facts.ID_COLUMN))
    if twins:
        out.note(f"{folders.shown(job.table)}: {ids.few(twins, len(twins))} occur more than once; each row becomes a line")
    files = image_files(job.images)
    lines, left_out, supposed = [], [], 0
    for image_id, mos in zip(*map(table.column, required), strict=True):
        try:
            word = scoring.word_of_mos(mos)
        except scoring.ScoringError as error:
            left_out.append((image_id, str(error)))
            continue
        if image_id not in files and job.check_images:
            left_out.append((image_id, f"no image of this name in {folders.shown(job.images)}"))
            continue
        supposed += image_id not in files
        image = f"{job.images_as_written}/{files.get(image_id, image_id + SUPPOSED_SUFFIX)}"
        sentences = job.sentences
        lines.append({"query": sentences.query, "response": sentences.response(word), "images": [image]})
    if supposed:
        out.note(f"{supposed} images are not in {folders.shown(job.images)}: assuming file names like ID{SUPPOSED_SUFFIX}")
    return lines, left_out


def image_files(folder: Path) -> Mapping[str, str]:
    """Image id -> file name; of several files with one id, the suffix that comes first in ``IMAGE_SUFFIXES``.

    Empty if there is no such folder: annotations can be converted without images.
    """
    if not folder.is_dir():
        return {}
    found = [path.name for path in folder.iterdir() if path.suffix.lower() in facts.IMAGE_SUFFIXES]
    by_preference = sorted(found, key=lambda name: facts.IMAGE_SUFFIXES.index(Path(name).suffix.lower()), reverse=True)
    return {folders.image_id(name): name for name in by_preference}
