"""The scored table of a dimension: its rows, and their correlation with the mean opinion scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from saiqa import facts, scoring
from saiqa.errors import InputError, lacking
from saiqa.evaluate.figures import Correlation, CorrelationError, correlate
from saiqa.files import csv_files, folders
from saiqa.files.csv_files import Cells
from saiqa.files.places import Place
from saiqa.run.record import Failures


class ScoredRow(NamedTuple):
    """One image of a scored CSV: the cells as text; a number is None if its cell is not a finite number."""

    id: str
    mos_text: str
    prediction_text: str
    mos: float | None
    prediction: float | None


def read_scored(path: Path, gt_column: str) -> list[ScoredRow]:
    """The rows of a scored CSV. Raises ``InputError`` for missing files and columns, and scores outside 1 to 5."""
    return scored_rows(csv_files.read_cells(path, required=facts.scored_columns(gt_column)), gt_column)


def scored_rows(table: Cells, gt_column: str) -> list[ScoredRow]:
    """The rows of a table with the columns of a scored CSV. Raises ``InputError`` for scores outside 1 to 5."""
    columns = map(table.column, facts.scored_columns(gt_column))
    scored = [ScoredRow(i, mos, made, number(mos), number(made)) for i, mos, made in zip(*columns, strict=True)]
    check_scores(table.path, scored)
    return scored


def check_scores(path: Place, rows: Sequence[ScoredRow]) -> None:
    """Raise ``InputError`` if a prediction is not a score from 1 to 5."""
    for row in rows:
        if row.prediction is not None and not scoring.is_score(row.prediction):
            what = f"{facts.PREDICTION_COLUMN} of {row.id[:100]} is {row.prediction_text}, not from 1 to 5"
            raise InputError(f"{folders.shown(path)}: {what}", "Score the images again")


def number(text: str) -> float | None:
    """A cell as a finite number; None if it is not one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def evaluate(rows: Sequence[ScoredRow], source: str) -> Correlation:
    """Correlate the predictions with the mean opinion scores.

    Raises:
        InputError: fewer than three complete rows, or constant columns; ``source`` names them in the message.
    """
    try:
        return correlate([row.prediction for row in rows], [row.mos for row in rows])
    except CorrelationError as error:
        raise InputError(f"{source}: {error}", "Check the scores, or score more images") from None
    except ModuleNotFoundError as error:
        raise lacking("a correlation", error.name) from None


def unscored(rows: Sequence[ScoredRow], source: str) -> Failures:
    """The rows without a prediction."""
    return {row.id: f"no {facts.PREDICTION_COLUMN} in {source}" for row in rows if row.prediction is None}
