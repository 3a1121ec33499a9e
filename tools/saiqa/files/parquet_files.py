"""Parquet tables, read as text cell by cell like CSV, and written with numbers as numbers. pyarrow is imported only here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from saiqa.errors import InputError, first_line, lacking
from saiqa.files import csv_files, folders
from saiqa.files.text_files import atomic_writer, reading

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

SUFFIX = ".parquet"
_ROWS_AT_ONCE = 10_000
_ERRORS = (ValueError, OSError, NotImplementedError, KeyError)  # base classes of all pyarrow errors


def open_parquet(path: Path, required: Sequence[str] = ()) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The columns of a Parquet file, and its rows one by one, each with its number from 1; like ``csv_files.open_csv``.

    Raises:
        InputError: the file is missing or broken, has no rows, or lacks a required column.
    """
    parquet = _pyarrow()
    with reading(path):
        content = path.open("rb")
    try:
        file = parquet.ParquetFile(content)
    except _ERRORS as error:
        content.close()
        raise _broken(path, error) from None
    columns = list(file.schema_arrow.names)
    csv_files.check_columns(path, columns, required)
    if not file.metadata.num_rows:
        raise InputError(f"{folders.shown(path)} has columns but no rows", "Download or make it again")
    return columns, enumerate(_rows(path, file), 1)


def _rows(path: Path, file: ParquetFile) -> Iterator[dict[str, str]]:
    try:
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                yield {name: _text(value) for name, value in row.items()}
    except _ERRORS as error:
        raise _broken(path, error) from None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else str(value)


def _broken(path: Path, error: Exception) -> InputError:
    return InputError(f"{folders.shown(path)} is not a complete Parquet file: {first_line(error)[:200]}", "Make it again")


def write_parquet(path: Path, columns: Sequence[str], numbers: Collection[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Write rows of text as Parquet, whole or not at all.

    Args:
        numbers: the columns whose cells are numbers (float64; an empty cell is null); all others are text.
    """
    parquet = _pyarrow()
    import pyarrow

    kinds = {name: pyarrow.float64() if name in numbers else pyarrow.string() for name in columns}
    schema = pyarrow.schema(list(kinds.items()))
    rows = iter(rows)
    with atomic_writer(path) as file, parquet.ParquetWriter(file.buffer, schema) as writer:  # type: ignore[attr-defined]
        while part := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            cells = {name: [_value(row[name], name in numbers) for row in part] for name in columns}
            writer.write_table(pyarrow.table(cells, schema=schema))


def _value(cell: str, is_number: bool) -> str | float | None:
    if is_number:
        return float(cell) if cell else None
    return cell.encode("utf-8", "backslashreplace").decode()


def _pyarrow() -> ModuleType:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise lacking("Parquet", error.name, "parquet") from None
    return parquet
