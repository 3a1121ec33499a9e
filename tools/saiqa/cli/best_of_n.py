"""Keep the best scored images, overall or per group: of N renders of a prompt, the k with the highest scores."""

from __future__ import annotations

import argparse
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from saiqa.cli.console import ArgumentParser, Output, add_output, floor, positive_int
from saiqa.errors import Incomplete, InputError, UsageError
from saiqa.files import folders, places, text_files
from saiqa.files.places import Place, RemotePath
from saiqa.files.table_files import write_table
from saiqa.pictures import ranking, results, scored_files
from saiqa.pictures.lists import resolve
from saiqa.pictures.ranking import Candidate, NoCandidate, Ranked
from saiqa.pictures.scored_files import ScoredTable

RANKING_COLUMNS = ("group", "rank", "kept")
ONE_GROUP = "all"  # the name of the only group if there is no grouping

EXAMPLES = r"""
python tools/best_of_n.py renders.csv --k 5
python tools/best_of_n.py renders.csv --group_pattern 'renders/([^/]+)/'
python tools/best_of_n.py renders.csv --group_pattern '(prompt\d+)_seed\d+' --k 2 --copy_to best
python tools/best_of_n.py renders.csv --group_by prompt --floor layout=3 --floor distortion=3.5 --link_to best
python tools/best_of_n.py renders.jsonl --group_pattern '(prompt\d+)_' --by lighting --json
"""


def parser() -> ArgumentParser:
    """The flags of the command."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument
    add("scored", metavar="FILE", help="CSV, Parquet or JSONL of score_images.py, or another table of scores and paths")
    how = flags.add_mutually_exclusive_group()
    how.add_argument("--group_by", metavar="COLUMN", help="images with the same value form a group (default: one group)")
    how.add_argument("--group_pattern", metavar="REGEX", help="its capture group in the image's path is the group")
    add("--by", default=results.OVERALL_COLUMN, metavar="COLUMN", help="column to rank by (default: overall)")
    add("--k", type=positive_int, metavar="N", help="keep N per group (default: 1; with --floor all that pass)")
    add("--floor", action="append", default=[], type=floor, metavar="COLUMN=MIN", help="keep only images with at least MIN")
    add("--image_column", default=results.IMAGE_COLUMN, metavar="NAME", help="column of the path (default: image)")
    add("--data_root", metavar="DIR", help="what SA-BENCH/ in image paths stands for; default: ./SA-BENCH")
    add("--output_csv", metavar="FILE", help="the ranking; default: {name}_ranking.csv beside FILE; x.parquet for Parquet")
    where = flags.add_mutually_exclusive_group()
    where.add_argument("--copy_to", metavar="DIR", help="copy the kept images to DIR/{group}/{rank}_{name}")
    where.add_argument("--link_to", metavar="DIR", help="as --copy_to, with symbolic links")
    add("--overwrite", action="store_true", help="replace existing files")
    add_output(add)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises ``errors.UserError``."""
    args = parser().parse_args(argv)
    out = Output(args.json, args.quiet)
    path = folders.input_path(args.scored)
    output = folders.output_path(args.output_csv) if args.output_csv else path.with_name(f"{path.stem}_ranking.csv")
    check_output(path, output)
    table = read(path, args)
    candidates, unranked = candidates_of(table, args)
    if not candidates:
        raise InputError(f"no image in {folders.shown(path)} can be ranked: {unranked[0][1]}", "Check the flags")
    ranked = ranking.rank(candidates, args.k or (None if args.floor else 1))
    failed = place_images([one for one in ranked if one.kept], path, args)
    write_ranking(output, table, ranked, args)
    say(ranked, args, out)
    out.note(f"{len(ranked)} images ranked, {folders.shown(output)}")
    missing = [{"image": image, "reason": reason} for image, reason in unranked + failed]
    kept = [
        {"group": one.candidate.group, "rank": one.rank, "image": one.candidate.image, args.by: one.candidate.score}
        for one in ranked
        if one.kept
    ]
    out.finish({"output_csv": output, "n": len(ranked), "kept": kept, "failed": missing})
    if unranked or failed:
        what = f"{len(unranked)} images are not ranked, {len(failed)} kept ones could not be copied or linked"
        raise Incomplete(what, unranked + failed)


def check_output(path: Path, output: Path) -> None:
    """Refuse to overwrite the scores. Raises ``UsageError``, or ``Failed`` if the output cannot be written."""
    if output.resolve() == path.resolve():
        raise UsageError("--output_csv is the scored file itself", "Give it another name")
    text_files.check_writable(output)


def read(path: Path, args: argparse.Namespace) -> ScoredTable:
    """The scored table. Raises ``InputError`` if it is broken or lacks a column named by the flags."""
    needed = dict.fromkeys([args.image_column, args.by, *(column for column, _ in args.floor)])
    table = scored_files.read_table(path, [*needed, *([args.group_by] if args.group_by else [])])
    taken = [name for name in RANKING_COLUMNS if name in table.columns and name != args.group_by]
    if taken:
        raise InputError(f"{folders.shown(path)} has a column {taken[0]}, which the ranking adds", "Rename it")
    return table


def candidates_of(table: ScoredTable, args: argparse.Namespace) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """The images that can be ranked, and (image, reason) for the others. Raises ``UsageError`` for a broken pattern."""
    group = group_function(args)
    candidates, unranked = [], []
    for row in table.rows:
        image = row[args.image_column]
        try:
            score = ranking.number_in(row, args.by)
            passes = all(ranking.number_in(row, column) >= minimum for column, minimum in args.floor)
            candidates.append(Candidate(image, group(row), row, score, passes))
        except NoCandidate as error:
            reason = row.get(results.ERROR_COLUMN)
            unranked.append((image, f"{error} ({reason})" if reason else str(error)))
    return candidates, unranked


def group_function(args: argparse.Namespace) -> Callable[[dict[str, str]], str]:
    """The function that gives the group of a row, according to the flags."""
    if args.group_by:
        return lambda row: row[args.group_by] or _no_group(args.group_by)
    if args.group_pattern is None:
        return lambda row: ONE_GROUP
    try:
        pattern = re.compile(args.group_pattern)
    except re.error as error:
        raise UsageError(f"--group_pattern {args.group_pattern!r}: {error}", "Correct it") from None
    return lambda row: ranking.group_of(row[args.image_column], pattern)


def _no_group(column: str) -> NoReturn:
    raise NoCandidate(f"no {column}")


# ---- the kept images -------------------------------------------------------------------------------------------------


def place_images(kept: Sequence[Ranked], table: Path, args: argparse.Namespace) -> list[tuple[str, str]]:
    """Copy or link the kept images if asked for; returns (image, reason) for missing ones.

    Raises:
        InputError: a file already exists; then nothing is copied.
        Failed: the folder cannot be written to.
    """
    folder = args.copy_to or args.link_to
    if not folder:
        return []
    data_root = folders.input_path(args.data_root) if args.data_root else folders.roots().data
    todo: dict[Path, Place] = {}
    failed = []
    for one in kept:
        source = places.place(resolve(one.candidate.image, table, data_root))
        if isinstance(source, RemotePath) and args.link_to:
            raise UsageError(f"{source} is a URL and cannot be linked", "Use --copy_to")
        if isinstance(source, Path) and not source.is_file():
            failed.append((one.candidate.image, f"{source} is not there"))
            continue
        name = f"{one.rank}_{source.name}"
        todo[folders.output_path(folder) / folder_name(one.candidate.group) / name] = source
    refuse_existing(list(todo), args)
    for target, source in todo.items():
        try:
            put(source, target, link=bool(args.link_to))
        except NotFetched as error:
            failed.append((str(source), str(error)))
    return failed


class NotFetched(Exception):
    """An image behind a URL that cannot be downloaded, and why."""


def folder_name(group: str) -> str:
    """A folder name for a group, unique per group: slashes and the like become ``%2F`` etc."""
    return re.sub(r"[/\\%\0]|^\.", lambda found: f"%{ord(found[0]):02X}", group)


def refuse_existing(targets: Sequence[Path], args: argparse.Namespace) -> None:
    """Raise ``InputError`` if a file would be replaced without ``--overwrite``."""
    existing = [target for target in targets if os.path.lexists(target)]
    if existing and not args.overwrite:
        what = f"{folders.shown(existing[0].parent)}/{existing[0].name} and {len(existing) - 1} more already exist"
        raise InputError(what, "Choose an empty folder, or add --overwrite")


def put(source: Place, target: Path, link: bool) -> None:
    """Copy or link one file, completely or not at all. Raises ``Failed``, or ``NotFetched`` if a URL does not answer."""
    if isinstance(source, RemotePath):
        try:
            content = source.read_bytes()
        except OSError as error:
            raise NotFetched(f"cannot be downloaded: {error}") from None
        with text_files.replacing(target) as new:
            new.write_bytes(content)
        return
    with text_files.replacing(target) as new:
        if link:
            new.symlink_to(source.resolve())
        else:
            shutil.copy2(source, new)


# ---- the ranking -----------------------------------------------------------------------------------------------------


def write_ranking(output: Path, table: ScoredTable, ranked: Sequence[Ranked], args: argparse.Namespace) -> None:
    """Write every ranked row with its group, rank and whether it was kept (1 or 0)."""
    columns = [*RANKING_COLUMNS, *(name for name in table.columns if name not in RANKING_COLUMNS)]
    rows = (
        {**one.candidate.row, "group": one.candidate.group, "rank": str(one.rank), "kept": str(int(one.kept))} for one in ranked
    )
    write_table(output, columns, results.NUMBER_COLUMNS, rows)


def say(ranked: Sequence[Ranked], args: argparse.Namespace, out: Output) -> None:
    """The kept images on stdout; groups without a kept image on stderr."""
    groups = dict.fromkeys(one.candidate.group for one in ranked)
    kept = [one for one in ranked if one.kept]
    width = max(len(group) for group in (*groups, "group"))
    out.result(f"{'group':<{width}}  {'rank':>4}  {args.by:>10}  image")
    for one in kept:
        out.result(f"{one.candidate.group:<{width}}  {one.rank:>4}  {one.candidate.score:>10.3f}  {one.candidate.image}")
    without = [group for group in groups if group not in {one.candidate.group for one in kept}]
    if without:
        first = ", ".join(without[:5])
        out.warn(f"{len(without)} of {len(groups)} groups have no image that reaches every --floor: {first}")
