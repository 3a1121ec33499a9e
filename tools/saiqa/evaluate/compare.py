"""Two runs over the same images: which agrees better with people, and how certain that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from saiqa import facts
from saiqa.errors import Incomplete, InputError
from saiqa.evaluate import intervals, scored_table, tables
from saiqa.evaluate.figures import CorrelationError
from saiqa.evaluate.intervals import Comparison, Difference
from saiqa.files import csv_files, folders, ids

HOW = (
    f"A - B with its {intervals.CONFIDENCE:.0%} interval and the two-sided p-value of no difference: paired percentile "
    f"bootstrap over images, {intervals.RESAMPLES} resamples, seed {intervals.SEED}."
)

Key = tuple[str, str, int]  # dimension, image id, number of earlier rows with that id


@dataclass(frozen=True)
class Run:
    """A scored run: its name as given, and its rows."""

    name: str
    rows: Mapping[Key, scored_table.ScoredRow]


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_run(text: str, results: Path, version: int) -> Run:
    """A run, given as the path of a scored or merged table or as the name of a model in the results folder.

    Raises:
        InputError: neither exists, or a table is broken.
    """
    path = folders.input_path(text)
    if path.is_file():
        return Run(text, _read_table(path))
    named = {d: results / facts.result_name(d, version, text, ".csv") for d in facts.DIMENSIONS}
    there = {dimension: path for dimension, path in named.items() if path.is_file()}
    if not there:
        what = f"{text} is neither a file nor a model with tables such as {folders.shown(named['lighting'])}"
        raise InputError(what, "Give a scored or merged CSV, or a model that tools/infer.py has scored")
    rows = [_of_dimension(d, scored_table.read_scored(path, facts.mos_column(d))) for d, path in there.items()]
    return Run(text, {key: row for part in rows for key, row in part.items()})


def _read_table(path: Path) -> dict[Key, scored_table.ScoredRow]:
    table = csv_files.read_cells(path, required=[facts.ID_COLUMN, facts.PREDICTION_COLUMN])
    if set(facts.POOLED_COLUMNS) <= set(table.columns):
        rows = scored_table.scored_rows(table, facts.POOLED_COLUMNS[2])
        return _keyed(table.column(facts.POOLED_COLUMNS[0]), rows)
    found = [d for d in facts.DIMENSIONS if facts.mos_column(d) in table.columns]
    if len(found) != 1:
        raise InputError(
            f"{folders.shown(path)} has the mean opinion scores of {len(found)} dimensions",
            "A scored table has those of one dimension, a merged table the columns " + ", ".join(facts.POOLED_COLUMNS),
        )
    return _of_dimension(found[0], scored_table.scored_rows(table, facts.mos_column(found[0])))


def _of_dimension(dimension: str, rows: list[scored_table.ScoredRow]) -> dict[Key, scored_table.ScoredRow]:
    return _keyed([dimension] * len(rows), rows)


def _keyed(dimensions: list[str], rows: list[scored_table.ScoredRow]) -> dict[Key, scored_table.ScoredRow]:
    """Rows by their key. Rows with the same id are numbered, so they are matched to another run's in order."""
    images = ids.numbered((dimension, row.id) for dimension, row in zip(dimensions, rows, strict=True))
    return {(*image, before): row for (image, before), row in zip(images, rows, strict=True)}


# ---- comparing -------------------------------------------------------------------------------------------------------


def shared(a: Run, b: Run) -> list[Key]:
    """The images in both runs. Raises ``InputError`` if there are none, or if an image has different MOS in the two."""
    keys = [key for key in a.rows if key in b.rows]
    if not keys:
        raise InputError(f"{a.name} and {b.name} have no image in common", "Compare runs over the same images")
    differing = [key for key in keys if a.rows[key].mos != b.rows[key].mos]
    if differing:
        first = differing[0]
        values = f"{a.rows[first].mos_text} and {b.rows[first].mos_text}"
        what = f"{len(differing)} images have another MOS in {b.name} than in {a.name}, such as {' '.join(first[:2])}: {values}"
        raise InputError(what, "Score both runs against the same annotations")
    return keys


def compare(a: Run, b: Run, keys: list[Key]) -> dict[str, Comparison | str]:
    """The comparison, or why there is none, for each dimension and, if there are several, for all together."""
    by_dimension: dict[str, list[Key]] = {}
    for key in keys:
        by_dimension.setdefault(key[0], []).append(key)
    if len(by_dimension) > 1:
        by_dimension[facts.POOLED] = keys
    return {dimension: _comparison_or_reason(a, b, part) for dimension, part in by_dimension.items()}


def _comparison_or_reason(a: Run, b: Run, keys: list[Key]) -> Comparison | str:
    first, second = ([run.rows[key].prediction for key in keys] for run in (a, b))
    try:
        return intervals.compare(first, second, [a.rows[key].mos for key in keys])
    except CorrelationError as error:
        return str(error)


HEADER = ["dimension", "n", "dropped", *(f"{m} {what}" for m in ("PLCC", "SRCC") for what in ("A", "B", "A - B", "p"))]


def cells(compared: Mapping[str, Comparison | str]) -> list[list[str]]:
    """The cells of a table with ``HEADER``, one row per dimension."""
    rows = []
    for dimension, found in compared.items():
        if isinstance(found, str):
            rows.append([dimension, *[tables.NO_FIGURE] * (len(HEADER) - 1)])
        else:
            rows.append([dimension, str(found.n), str(found.dropped), *_figures(found.plcc), *_figures(found.srcc)])
    return rows


def _figures(difference: Difference) -> list[str]:
    interval = None if difference.low is None or difference.high is None else (difference.low, difference.high)
    values = [tables.figure(difference.first), tables.figure(difference.second)]
    return [*values, tables.figure(difference.value, interval), tables.figure(difference.p)]


def as_json(dimension: str, found: Comparison | str) -> dict:
    """The comparison for a dimension as JSON values."""
    if isinstance(found, str):
        return {"dimension": dimension, "undefined": found}
    of = {name: {**asdict(d), "difference": d.value} for name, d in (("plcc", found.plcc), ("srcc", found.srcc))}
    return {"dimension": dimension, "n": found.n, "dropped": found.dropped, **of}


def refuse_gaps(runs: tuple[Run, Run], keys: list[Key]) -> None:
    """Raise ``Incomplete`` if images have no score."""
    items = [
        (" ".join(key[:2]), f"no {facts.PREDICTION_COLUMN} in {run.name}")
        for run in runs
        for key in keys
        if run.rows[key].prediction is None
    ]
    if items:
        raise Incomplete(f"{len(items)} scores are missing; these images were left out", items)
