"""Reference sets of scored pictures for percentiles, read from scored tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from saiqa import facts
from saiqa.errors import InputError
from saiqa.files import checkpoint_folders, folders
from saiqa.overall import overall_score
from saiqa.pictures.reference import Reference
from saiqa.pictures.results import IMAGE_COLUMN, OVERALL_COLUMN
from saiqa.pictures.scored_files import read_table
from saiqa.run.record import read_run_record
from saiqa.scorer import Scorer
from saiqa.scoring import is_score

DEMO = "demo"  # stands for the demo's own set
FEW = 100
_AGAIN = "Score its pictures with this checkpoint, using score_images.py"


def given(typed: str, dimensions: Sequence[str], scorer: Scorer, note: Callable[[str], None]) -> Reference:
    """The set that the user names, a file or the word ``demo``, with notes on its limitations. Raises as ``read``."""
    path = folders.demo_folder() / facts.REFERENCE_NAME if typed == DEMO else folders.input_path(typed)
    found = read(path, dimensions, scorer.weights, checkpoint_folders.fingerprint(scorer.model.checkpoint))
    if typed == DEMO:
        found = replace(found, name="the demo's test rooms")
    if not found.checked:
        note(f"{found.name}: there is no record that this checkpoint has scored it")
    if found.n < FEW:
        note(f"{found.name} has {found.n} pictures: percentiles are rough")
    return found


def read(path: Path, dimensions: Sequence[str], weights: Mapping[str, float] | None, model: str) -> Reference:
    """Read a table written by ``score_images.py``.

    Args:
        dimensions: the dimensions needed.
        weights: weights of the overall score.
        model: fingerprint of the checkpoint in use.

    Raises:
        InputError: the file is missing or broken, lacks a dimension, or was scored by another checkpoint.
    """
    table = read_table(path, [IMAGE_COLUMN, *dimensions])
    made_by = (read_run_record(path).get("identity") or {}).get("model")
    if made_by not in (None, model):
        raise InputError(f"{folders.shown(path)} was scored by another checkpoint", _AGAIN)
    rows = [{name: _score(path, row[name]) for name in dimensions if row[name]} for row in table.rows]
    scores = {name: sorted(row[name] for row in rows if name in row) for name in dimensions}
    lacking = [name for name, values in scores.items() if not values]
    if lacking:
        raise InputError(f"{folders.shown(path)} has no scores of {', '.join(lacking)}", _AGAIN)
    whole = [row for row in rows if len(row) == len(dimensions)]
    overall = sorted(value for value in (overall_score(row, weights) for row in whole) if value is not None)
    return Reference(path.name, scores | ({OVERALL_COLUMN: overall} if overall else {}), made_by is not None)


def _score(path: Path, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = 0.0
    if not is_score(value):
        raise InputError(f"{folders.shown(path)}: {cell[:40]!r} is not a score from 1 to 5", _AGAIN)
    return value
