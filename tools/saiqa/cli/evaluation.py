"""Flags and output of evaluations: ``--full``, ``--table``, ``--report``, ``--compare``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from saiqa.cli.console import ArgumentParser, Output
from saiqa.errors import InputError
from saiqa.evaluate import page, tables
from saiqa.evaluate.compare import HEADER, HOW, as_json, cells, compare, read_run, refuse_gaps, shared
from saiqa.evaluate.figures import Correlation
from saiqa.evaluate.summary import FEW, FEW_NOTE, Assessment, Scored, assess, payload, table
from saiqa.files import folders
from saiqa.files.places import Place

# ---- flags -----------------------------------------------------------------------------------------------------------


def add_flags(flags: ArgumentParser) -> None:
    """The flags of an evaluation with intervals."""
    add = flags.add_argument_group("evaluation").add_argument
    add("--full", action="store_true", help="also print every metric with its 95%% interval, and per generator")
    add("--table", choices=(tables.MARKDOWN, tables.LATEX), help="--full as a Markdown or LaTeX table")
    add("--report", metavar="FILE", help="--full, plus an HTML page with plots, largest disagreements and provenance: x.html")


def wanted(args: Namespace) -> bool:
    """Whether the flags ask for more than PLCC and SRCC."""
    return bool(args.full or args.table or args.report)


def check(args: Namespace) -> None:
    """Check before the work that the report can be written. Raises as ``page.path_of``."""
    if args.report:
        page.path_of(args.report)


# ---- output ----------------------------------------------------------------------------------------------------------


def say(assessments: Sequence[Assessment], form: str | None, out: Output) -> None:
    """The table on stdout, after an empty line."""
    for line in ["", *table(assessments, form or tables.TEXT)]:
        out.result(line)


def finish(scored: Sequence[Scored], data_root: Place, args: Namespace, out: Output) -> dict:
    """Assess the tables, print the result, write the report if asked for; returns everything as JSON values."""
    if not scored:
        return {}
    assessments = assess(scored)
    say(assessments, args.table, out)
    if not args.report:
        return payload(assessments)
    from saiqa.evaluate import report  # not at the top: only --report needs it

    path = folders.output_path(args.report)
    report.write(path, scored, assessments, data_root)
    out.note(f"report: {folders.shown(path)}")
    return {**payload(assessments), "report": path}


def say_correlation(correlation: Correlation, label: str, out: Output) -> None:
    """PLCC and SRCC on stdout, further details on stderr."""
    out.result(f"PLCC: {correlation.plcc:.3f}")
    out.result(f"SRCC: {correlation.srcc:.3f}")
    more = f"KRCC {correlation.krcc:.3f}, RMSE {correlation.rmse:.3f}"
    out.note(f"{label}: n {correlation.n}, dropped {correlation.dropped}, {more}")
    note_few([label] if correlation.n < FEW else [], out)


def note_few(labels: Sequence[str], out: Output) -> None:
    """Note which labels have too few rows for a meaningful correlation."""
    if labels:
        out.note(f"{', '.join(labels)}: {FEW_NOTE}")


def say_comparison(names: list[str], results: Path, version: int, form: str | None, out: Output) -> None:
    """The command ``--compare A B``. Raises ``InputError``, and ``Incomplete`` if images have no score."""
    a, b = (read_run(name, results, version) for name in names)
    keys = shared(a, b)
    compared = compare(a, b, keys)
    if all(isinstance(found, str) for found in compared.values()):
        raise InputError(f"{a.name} and {b.name}: {next(iter(compared.values()))}", "Score more images in both runs")
    only = {"only_in_a": len(a.rows) - len(keys), "only_in_b": len(b.rows) - len(keys)}
    runs = f"A is {a.name}, B is {b.name}; images left out: {only['only_in_a']} that only A has, {only['only_in_b']} only B."
    missing = [f"{dimension}: {why}." for dimension, why in compared.items() if isinstance(why, str)]
    for line in tables.lines(form or tables.TEXT, HEADER, cells(compared), [runs, HOW, *missing], labels=1):
        out.result(line)
    out.finish({"a": a.name, "b": b.name, **only, "comparison": [as_json(*item) for item in compared.items()]})
    refuse_gaps((a, b), keys)
