"""Split scored images into those that reach every floor (minimum score) and those that do not, with the reason."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from saiqa.cli.console import ArgumentParser, Output, add_output, floor
from saiqa.errors import Incomplete, InputError, UsageError
from saiqa.files import folders, text_files
from saiqa.pictures import results, scored_files
from saiqa.pictures.floors import Verdict, judge
from saiqa.pictures.scored_files import ScoredTable

REASON_COLUMN = "reason"

EXAMPLES = """
python tools/filter_images.py renders.csv --floor layout=3
python tools/filter_images.py renders.csv --floor layout=3 --floor overall=3.5 --output_kept good.csv --output_rejected bad.csv
python tools/filter_images.py renders.jsonl --floor distortion=2.5 --json
"""


def parser() -> ArgumentParser:
    """The flags of the command."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument
    add("scored", metavar="FILE", help="CSV, Parquet or JSONL of score_images.py, or another table of scores and paths")
    needed = "minimum for an image to be kept; may be repeated for several columns"
    add("--floor", action="append", required=True, type=floor, metavar="COLUMN=MIN", help=needed)
    add("--image_column", default=results.IMAGE_COLUMN, metavar="NAME", help="column of the path (default: image)")
    add("--output_kept", metavar="FILE", help="default: {name}_kept beside FILE, in the same format")
    add("--output_rejected", metavar="FILE", help="has a column reason; default: {name}_rejected beside FILE")
    add_output(add)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises ``errors.UserError``."""
    args = parser().parse_args(argv)
    out = Output(args.json, args.quiet)
    path = folders.input_path(args.scored)
    outputs = output_paths(path, args)
    columns = dict.fromkeys([args.image_column, *(column for column, _ in args.floor)])
    table = scored_files.read_table(path, list(columns))
    if REASON_COLUMN in table.columns:
        raise InputError(f"{folders.shown(path)} already has a column {REASON_COLUMN}, which this command adds", "Rename it")
    verdicts = [judge(row, args.floor) for row in table.rows]
    write(outputs, table, verdicts)
    unscored = {
        row[args.image_column]: "; ".join(verdict.reasons)
        for row, verdict in zip(table.rows, verdicts, strict=True)
        if verdict.unscored
    }
    counts = count(verdicts, args.floor)
    say(counts, args.floor, out)
    out.note(f"kept: {folders.shown(outputs[0])}; rejected: {folders.shown(outputs[1])}")
    failed = [{"image": image, "reason": reason} for image, reason in unscored.items()]
    out.finish({**counts, "failed": failed, "output_kept": outputs[0], "output_rejected": outputs[1]})
    if unscored:
        what = f"{counts['unscored']} images lack a score that a floor needs; they are among the rejected"
        raise Incomplete(what, list(unscored.items()), "Score them again")


def output_paths(path: Path, args: argparse.Namespace) -> tuple[Path, Path]:
    """The files for kept and rejected images. Raises ``UsageError``, or ``Failed`` if they cannot be written."""
    forms = (".jsonl",) if path.suffix == ".jsonl" else (".csv", ".parquet")
    own = path.suffix if path.suffix in forms else forms[0]
    found: list[Path] = []
    for name in ("kept", "rejected"):
        typed = getattr(args, f"output_{name}")
        output = folders.output_path(typed) if typed else path.with_name(f"{path.stem}_{name}{own}")
        if output.suffix not in forms:
            raise UsageError(f"--output_{name} {typed} does not end in {' or '.join(forms)}", "Change the file name")
        if output.resolve() in [path.resolve(), *(other.resolve() for other in found)]:
            raise UsageError(f"--output_{name} is also another file of this command", "Give it another name")
        text_files.check_writable(output)
        found.append(output)
    return found[0], found[1]


def write(outputs: tuple[Path, Path], table: ScoredTable, verdicts: Sequence[Verdict]) -> None:
    """Write the kept entries unchanged, and the rejected ones with their reasons."""
    judged = list(zip(table.entries, verdicts, strict=True))
    scored_files.write_entries(outputs[0], table, [], (entry for entry, verdict in judged if verdict.kept))
    rejected = ({**entry, REASON_COLUMN: "; ".join(verdict.reasons)} for entry, verdict in judged if not verdict.kept)
    scored_files.write_entries(outputs[1], table, [REASON_COLUMN], rejected)


def count(verdicts: Sequence[Verdict], floors: Sequence[tuple[str, float]]) -> dict:
    """The number of images in total, kept, rejected, below each floor, and without a score."""
    below = Counter(column for verdict in verdicts for column in dict.fromkeys(verdict.below))
    kept = sum(verdict.kept for verdict in verdicts)
    return {
        "n": len(verdicts),
        "kept": kept,
        "rejected": len(verdicts) - kept,
        "below": {column: below[column] for column, _ in floors},
        "unscored": sum(verdict.unscored for verdict in verdicts),
    }


def say(counts: Mapping, floors: Sequence[tuple[str, float]], out: Output) -> None:
    """The counts on stdout, one per line."""
    lines = {"images": counts["n"], "kept": counts["kept"], "rejected": counts["rejected"]}
    lines |= {f"{column} < {minimum:g}": counts["below"][column] for column, minimum in floors}
    lines |= {"no score": counts["unscored"]}
    width = max(map(len, lines))
    for name, number in lines.items():
        out.result(f"{name:<{width}}  {number:>7}")
