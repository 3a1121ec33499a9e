"""Compare scores with people's ratings: the scored tables of SA-BENCH, per dimension and pooled, or your own tables."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from saiqa import facts
from saiqa.cli import evaluation, jobs
from saiqa.cli.console import ArgumentParser, Output, add_output
from saiqa.errors import Incomplete, InputError, UsageError
from saiqa.evaluate import summary
from saiqa.evaluate.figures import Correlation
from saiqa.evaluate.scored_table import ScoredRow, evaluate, read_scored, unscored
from saiqa.files import csv_files, folders

EXAMPLES = """
python tools/evaluate_correlation.py
python tools/evaluate_correlation.py --demo
python tools/evaluate_correlation.py --model_name sa-iqa-prompt4_limit20
python tools/evaluate_correlation.py --results_dir other/results --prompt_version 3 --json
python tools/evaluate_correlation.py --full --table latex
python tools/evaluate_correlation.py --demo --report report.html
python tools/evaluate_correlation.py --compare sa-iqa-prompt4 mine
python tools/evaluate_correlation.py --compare results/all_prompt3_sa-iqa-prompt3.csv results/all_prompt4_sa-iqa-prompt4.csv
python tools/evaluate_correlation.py scores.csv ratings.csv --report report.html
python tools/evaluate_correlation.py scores.csv ratings.csv --id_column photo --mos_column layout="Layout, mean"
"""


def parser() -> ArgumentParser:
    """The flags of the command."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument_group("your own ratings, instead of SA-BENCH's").add_argument
    what = "SCORES from score_images.py and RATINGS, a .csv or .parquet with people's ratings: every metric of --full"
    add("tables", nargs="*", metavar="TABLE", help=what)
    what = "column naming the picture, by path or file name, with or without suffix; default: the one with the most matches"
    add("--id_column", metavar="NAME", help=what)
    what = "column with the mean opinion scores for a dimension or for overall; may be repeated"
    add("--mos_column", action="append", default=[], metavar="DIMENSION=NAME", help=what)
    add = flags.add_argument
    add("--prompt_version", type=int, choices=facts.PROMPT_VERSIONS, default=facts.RECOMMENDED, help="default: 4")
    add("--results_dir", metavar="DIR", help="folder of the scored tables; default: ./results")
    add("--model_name", metavar="NAME", help="the model name in the file names; default: sa-iqa-promptN")
    add("--output_csv", metavar="FILE", help="default: all_promptN_{model_name}.csv in the results folder")
    add("--demo", action="store_true", help="use the demo's results")
    add_output(add)
    add("--data_root", metavar="DIR", help="where the images of a --report are; default: ./SA-BENCH")
    evaluation.add_flags(flags)
    what = "test the difference between two runs: model names in the results folder, or scored or merged tables"
    flags.add_argument("--compare", nargs=2, metavar=("A", "B"), help=what)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises ``errors.UserError``."""
    args = parser().parse_args(argv)
    out = Output(args.json, args.quiet)
    evaluation.check(args)
    if args.tables or args.id_column or args.mos_column:
        evaluate_own(args, out)
        return
    results = folders.input_path(args.results_dir) if args.results_dir else folders.roots(args.demo).results
    if args.compare:
        if args.full or args.report:
            raise UsageError("--compare can only be combined with --table and --json", "Evaluate each run separately for more")
        evaluation.say_comparison(args.compare, results, args.prompt_version, args.table, out)
        return
    name = args.model_name or facts.tuned_model(args.prompt_version)
    default = results / facts.result_name(facts.POOLED, args.prompt_version, name, ".csv")
    output = folders.output_path(args.output_csv) if args.output_csv else default

    require_tables(results, name, args)
    scored = {
        dimension: read_scored(scored_table(dimension, results, name, args), facts.mos_column(dimension))
        for dimension in facts.DIMENSIONS
    }
    pooled = [row for rows in scored.values() for row in rows]
    correlation = evaluate(pooled, f"the tables in {folders.shown(results)}")
    write_merged(output, scored)

    by_dimension = {dimension: correlation_or_reason(rows, dimension) for dimension, rows in scored.items()}
    if not evaluation.wanted(args):  # that prints its own table
        say_table({**by_dimension, facts.POOLED: correlation}, out)
    out.note(f"merged table: {folders.shown(output)}")
    out.result(f"PLCC: {correlation.plcc:.3f}")
    out.result(f"SRCC: {correlation.srcc:.3f}")
    figures = {d: asdict(c) if isinstance(c, Correlation) else {"undefined": c} for d, c in by_dimension.items()}
    full = evaluate_fully(results, name, args, out) if evaluation.wanted(args) else {}
    out.finish({**asdict(correlation), "dimensions": figures, "output_csv": output, **full})
    refuse_gaps(scored)


def evaluate_own(args: argparse.Namespace, out: Output) -> None:
    """Compare scores of ``score_images.py`` with the user's own table of ratings. Raises ``errors.UserError``."""
    from saiqa.pictures import own_ratings

    if len(args.tables) != 2:
        raise UsageError("your own ratings need two tables, SCORES and RATINGS", "Name both, e.g. scores.csv ratings.csv")
    if args.compare or args.results_dir or args.model_name:
        raise UsageError("--compare, --results_dir and --model_name are for SA-BENCH's tables", "Leave them out")
    scores, ratings = map(folders.input_path, args.tables)
    columns = dict(map(own_ratings.column_of, args.mos_column))
    data_root = jobs.data_root(args)
    found = own_ratings.match(scores, ratings, args.id_column, columns, data_root)
    compared = ", ".join(f"{dimension} with {column}" for dimension, column in found.columns.items())
    out.note(f"{found.pictures} pictures, matched by {found.by}; compared: {compared}")
    if found.not_rated or found.not_scored:
        out.note(f"left out: {found.not_rated} scored pictures without a rating, {found.not_scored} ratings without a picture")
    said = evaluation.finish(found.tables, data_root, args, out)
    if args.output_csv:
        output = folders.output_path(args.output_csv)
        write_merged(output, {table.dimension: table.rows for table in found.tables})
        out.note(f"merged table: {folders.shown(output)}")
        said["output_csv"] = output
    counts = {"not_rated": found.not_rated, "not_scored": found.not_scored}
    out.finish({"matched": found.pictures, "matched_by": found.by, **counts, **said})
    if found.failed:
        raise Incomplete(f"{len(found.failed)} rated pictures have no score", found.failed, "Score them with --resume")


def require_tables(results: Path, name: str, args: argparse.Namespace) -> None:
    """Raise one ``InputError`` for all missing scored tables, with the command that makes them."""
    missing = {d: path for d in facts.DIMENSIONS if not (path := scored_table(d, results, name, args)).is_file()}
    if missing:
        flags = f"--dimension {','.join(missing)} --prompt_version {args.prompt_version}"
        flags += " --demo" if args.demo else ""
        flags += f" --results_dir {args.results_dir}" if args.results_dir else ""
        flags += f" --model_path PATH/{name}" if args.model_name else ""
        raise InputError(folders.not_there(list(missing.values())), f"Make them with `python tools/infer.py {flags}`")


def scored_table(dimension: str, results: Path, name: str, args: argparse.Namespace) -> Path:
    """The path of the scored table of a dimension."""
    return results / facts.result_name(dimension, args.prompt_version, name, ".csv")


def evaluate_fully(results: Path, name: str, args: argparse.Namespace, out: Output) -> dict:
    """The additional output of ``--full``, ``--table`` and ``--report``."""
    scored = []
    for dimension in facts.DIMENSIONS:
        path = scored_table(dimension, results, name, args)
        gt_column = facts.mos_column(dimension)
        scored.append(summary.read(dimension, path, path.with_suffix(".jsonl"), gt_column))
    data_root = jobs.data_root(args)
    return evaluation.finish(scored, data_root, args, out)


def write_merged(output: Path, scored: Mapping[str, Sequence[ScoredRow]]) -> None:
    """Write all rows of all dimensions as one table, with the numbers exactly as in the scored tables."""
    merged = ((dimension, *row[:3]) for dimension, rows in scored.items() for row in rows)
    csv_files.write_cells(output, facts.POOLED_COLUMNS, merged)


def correlation_or_reason(rows: Sequence[ScoredRow], dimension: str) -> Correlation | str:
    """The correlation within one dimension, or why there is none; the pooled one is computed anyway."""
    try:
        return evaluate(rows, dimension)
    except InputError as error:
        return error.what


def say_table(correlations: Mapping[str, Correlation | str], out: Output) -> None:
    """The metrics per dimension, on stderr; stdout has only the pooled ones, as in the release."""
    out.note(f"{'':<12}{'n':>7}{'PLCC':>8}{'SRCC':>8}{'KRCC':>8}{'RMSE':>8}{'dropped':>9}")
    for dimension, c in correlations.items():
        if isinstance(c, str):
            out.note(f"{dimension:<12}undefined: {c}")
        else:
            figures = "".join(f"{value:>8.3f}" for value in (c.plcc, c.srcc, c.krcc, c.rmse))
            out.note(f"{dimension:<12}{c.n:>7}{figures}{c.dropped:>9}")
    found = ((name, c) for name, c in correlations.items() if isinstance(c, Correlation))
    evaluation.note_few([name for name, c in found if c.n < summary.FEW], out)


def refuse_gaps(scored: Mapping[str, Sequence[ScoredRow]]) -> None:
    """Raise ``Incomplete`` if rows have no prediction."""
    items = [
        (f"{dimension} {image_id}", reason)
        for dimension, rows in scored.items()
        for image_id, reason in unscored(rows, "the scored table").items()
    ]
    if items:
        remedy = "Score them with `python tools/infer.py --resume`"
        raise Incomplete(f"{len(items)} images have no score", items, remedy)
