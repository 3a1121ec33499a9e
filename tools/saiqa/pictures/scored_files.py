"""Files of scored images, read as tables: CSV, Parquet or JSONL from ``score_images.py``, or another table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saiqa import facts
from saiqa.files import csv_files, jsonl
from saiqa.files.table_files import open_table, write_table
from saiqa.pictures.listed import cell
from saiqa.pictures.results import ERROR_COLUMN, IMAGE_COLUMN, JSON_KEYS, NUMBER_COLUMNS, OVERALL_COLUMN, word_column


@dataclass(frozen=True)
class ScoredTable:
    """A file of scored images.

    Attributes:
        path: the file.
        columns: the columns of the table; a JSONL is read as the CSV it would be.
        rows: the cells as text, column -> cell, [rows].
        numbers: the line number of each row in the file, [rows].
        entries: the rows or objects as stored in the file, [rows].
    """

    path: Path
    columns: list[str]
    rows: list[dict[str, str]]
    numbers: list[int]
    entries: list[dict[str, Any]]

    @property
    def is_jsonl(self) -> bool:
        """Whether the entries are objects rather than rows of text."""
        return self.path.suffix == ".jsonl"


def read_table(path: Path, required: Sequence[str] = ()) -> ScoredTable:
    """Read a scored file.

    Raises:
        InputError: the file is missing or broken, lacks a required column, or a JSONL line has no image or no scores.
    """
    if path.suffix == ".jsonl":
        return _read_jsonl(path, required)
    columns, numbered = open_table(path, required)
    numbers, rows = map(list, zip(*numbered, strict=True))
    return ScoredTable(path, columns, rows, numbers, rows)


def _read_jsonl(path: Path, required: Sequence[str]) -> ScoredTable:
    numbers, values = map(list, zip(*jsonl.stream_jsonl(path), strict=True))
    cells = [_cells(path, number, value) for number, value in zip(numbers, values, strict=True)]
    there = dict.fromkeys(name for row in cells for name in row)
    words = [word_column(dimension, word) for dimension in facts.DIMENSIONS for word in facts.WORDS]
    scores = [name for name in facts.DIMENSIONS if name in there]
    ours = [*scores, OVERALL_COLUMN, *(name for name in words if name in there), ERROR_COLUMN]
    columns = [IMAGE_COLUMN, *(name for name in there if name not in (IMAGE_COLUMN, *facts.DIMENSIONS, *ours)), *ours]
    csv_files.check_columns(path, columns, required)
    rows = [{name: row.get(name, "") for name in columns} for row in cells]
    return ScoredTable(path, columns, rows, numbers, values)


def _cells(path: Path, number: int, value: Mapping[str, Any]) -> dict[str, str]:
    """An object as the row it would be in a CSV. Raises ``InputError``."""
    scores, words = value.get("scores"), value.get("probabilities") or {}
    if not isinstance(scores, dict):
        raise jsonl.line_error(path, number, 'no "scores"')
    if not isinstance(words, dict) or not all(isinstance(one, dict) for one in words.values()):
        raise jsonl.line_error(path, number, "its probabilities are not objects")
    listed = {name: item for name, item in value.items() if name not in JSON_KEYS and name not in facts.DIMENSIONS}
    numbers = {name: scores[name] for name in facts.DIMENSIONS if name in scores}
    numbers |= {word_column(d, w): words[d][w] for d in facts.DIMENSIONS if d in words for w in facts.WORDS if w in words[d]}
    ends = {OVERALL_COLUMN: value.get("overall"), ERROR_COLUMN: value.get("error")}
    image = jsonl.only_image(path, number, dict(value))
    return {name: cell(item) for name, item in {IMAGE_COLUMN: image, **listed, **numbers, **ends}.items()}


def write_entries(path: Path, table: ScoredTable, added: Sequence[str], entries: Iterable[Mapping[str, Any]]) -> None:
    """Write entries of a table with added columns, completely or not at all: as JSONL if it was one, else by the suffix.

    Args:
        added: the columns that the entries have in addition to the table's own; text in a CSV.
    """
    if table.is_jsonl:
        jsonl.write_jsonl(path, map(dict, entries))
    else:
        columns = [*table.columns, *(name for name in added if name not in table.columns)]
        write_table(path, columns, NUMBER_COLUMNS, map(dict, entries))
