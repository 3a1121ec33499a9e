"""The evaluation for publication: every metric with its interval, per dimension, per generator and pooled.

Used by ``infer.py`` and ``evaluate_correlation.py`` for ``--full``, ``--table`` and ``--report``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from saiqa import facts
from saiqa.evaluate import intervals, scored_table, tables
from saiqa.evaluate.figures import CorrelationError
from saiqa.evaluate.intervals import Agreement
from saiqa.files import csv_files
from saiqa.files.places import Place

# Name in ``Agreement`` -> column header.
COLUMNS = {"plcc": "PLCC", "srcc": "SRCC", "krcc": "KRCC", "rmse": "RMSE", "plcc_logistic": "PLCC (logistic)"}

NO_GENERATOR = "(none)"

FEW = 10
FEW_NOTE = f"a correlation of fewer than {FEW} images says little"

HOW = (
    f"Brackets: {intervals.CONFIDENCE:.0%} intervals, percentile bootstrap over rows, {intervals.RESAMPLES} resamples, "
    f"seed {intervals.SEED}. PLCC, SRCC, KRCC (tau-b) and RMSE use the raw scores; PLCC (logistic) is computed after a "
    "4-parameter logistic fit of the MOS on the score (VQEG), fitted to the same rows and kept fixed in the resamples."
)


@dataclass(frozen=True)
class Scored:
    """The scored table of one dimension.

    Attributes:
        path: the CSV.
        ratings: the JSONL it was made from, which has the paths of the images; it need not exist.
        rows: its rows.
        generators: the generator of each image, [rows]; None if the table has no such column.
        files: the file of each image, [rows]; None if ``ratings`` has them.
    """

    dimension: str
    path: Path
    ratings: Path | None
    rows: Sequence[scored_table.ScoredRow]
    generators: Sequence[str] | None
    files: Sequence[Place] | None = None


def read(dimension: str, path: Path, ratings: Path, gt_column: str) -> Scored:
    """Read a scored table. Raises ``InputError`` as ``scored_table.read_scored``."""
    table = csv_files.read_cells(path, required=facts.scored_columns(gt_column))
    there = facts.GENERATOR_COLUMN in table.columns
    generators = [text or NO_GENERATOR for text in table.column(facts.GENERATOR_COLUMN)] if there else None
    return Scored(dimension, path, ratings, scored_table.scored_rows(table, gt_column), generators)


@dataclass(frozen=True)
class Assessment:
    """One line of the evaluation.

    Attributes:
        dimension: a dimension, or "all".
        generator: None for all rows of the dimension.
        agreement: the figures, or why there are none.
    """

    dimension: str
    generator: str | None
    rows: Sequence[scored_table.ScoredRow]
    agreement: Agreement | str

    @property
    def label(self) -> str:
        return self.dimension if self.generator is None else f"{self.dimension}, {self.generator}"


def assess(scored: Sequence[Scored]) -> list[Assessment]:
    """Every dimension, followed by its generators if it has several; then the pool of all dimensions, likewise."""
    return [Assessment(d, g, rows, _agreement_or_reason(rows)) for d, g, rows in _scopes(scored)]


def _scopes(scored: Sequence[Scored]) -> Iterator[tuple[str, str | None, list[scored_table.ScoredRow]]]:
    for table in scored:
        yield from _with_generators(table.dimension, [table])
    dimensions = [table for table in scored if table.dimension in facts.DIMENSIONS]  # without the overall score
    if len(dimensions) > 1:
        yield from _with_generators(facts.POOLED, dimensions)


def _with_generators(name: str, scored: Sequence[Scored]) -> Iterator[tuple[str, str | None, list[scored_table.ScoredRow]]]:
    yield name, None, [row for table in scored for row in table.rows]
    made: dict[str, list[scored_table.ScoredRow]] = {}
    for table in scored:
        for row, generator in zip(table.rows, table.generators or itertools.repeat(None, len(table.rows)), strict=True):
            if generator is not None:
                made.setdefault(generator, []).append(row)
    for generator in sorted(made) if len(made) > 1 else ():
        yield name, generator, made[generator]


def _agreement_or_reason(rows: Sequence[scored_table.ScoredRow]) -> Agreement | str:
    try:
        return intervals.assess([row.prediction for row in rows], [row.mos for row in rows])
    except CorrelationError as error:
        return str(error)


def table(assessments: Sequence[Assessment], form: str) -> list[str]:
    """The lines of the table in one of the formats of ``tables``."""
    header, rows = cells(assessments)
    return tables.lines(form, header, rows, [HOW, *notes(assessments)], labels=len(header) - len(COLUMNS) - 2)


def cells(assessments: Sequence[Assessment]) -> tuple[list[str], list[list[str]]]:
    """Header and cells; with a generator column if any generator is known."""
    by_generator = any(a.generator is not None for a in assessments)
    header = ["dimension", *(["generator"] if by_generator else []), "n", "dropped", *COLUMNS.values()]
    rows = []
    for assessment in assessments:
        label = [assessment.dimension, *([assessment.generator or facts.POOLED] if by_generator else [])]
        rows.append([*label, *figures(assessment)])
    return header, rows


def figures(assessment: Assessment) -> list[str]:
    """n, dropped and the metrics of ``COLUMNS`` with their intervals, as text."""
    found = assessment.agreement
    if isinstance(found, str):
        complete = sum(row.mos is not None and row.prediction is not None for row in assessment.rows)
        return [str(complete), str(len(assessment.rows) - complete), *[tables.NO_FIGURE] * len(COLUMNS)]
    values = [tables.figure(found.value(name), found.intervals.get(name)) for name in COLUMNS]
    return [str(found.figures.n), str(found.figures.dropped), *values]


def notes(assessments: Sequence[Assessment]) -> list[str]:
    """Why values or intervals are missing, one sentence per line of the table."""
    found = []
    for assessment in assessments:
        why = assessment.agreement
        statements = [f"no figures: {why}"] if isinstance(why, str) else why.statements
        found += [f"{assessment.label}: {'; '.join(statements)}."] if statements else []
    few = [a.label for a in assessments if not isinstance(a.agreement, str) and a.agreement.figures.n < FEW]
    return [*found, f"{', '.join(few)}: {FEW_NOTE}."] if few else found


def payload(assessments: Sequence[Assessment]) -> dict:
    """The evaluation as JSON values."""
    how = {"confidence": intervals.CONFIDENCE, "resamples": intervals.RESAMPLES, "seed": intervals.SEED}
    return {"bootstrap": how, "evaluation": [_json(assessment) for assessment in assessments]}


def _json(assessment: Assessment) -> dict:
    found = assessment.agreement
    scope = {"dimension": assessment.dimension, "generator": assessment.generator}
    if isinstance(found, str):
        return {**scope, "undefined": found}
    return {
        **scope,
        **asdict(found.figures),
        "plcc_logistic": found.plcc_logistic,
        "logistic": asdict(found.curve) if found.curve else None,
        "intervals": found.intervals,
        "statements": found.statements,
    }
