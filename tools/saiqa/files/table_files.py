"""Tables as Parquet or CSV, depending on the file's suffix."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from saiqa.files import csv_files, parquet_files


def open_table(path: Path, required: Sequence[str] = ()) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The columns, and the rows one by one as text, each with its number. Raises as ``csv_files.open_csv``."""
    return (parquet_files.open_parquet if is_parquet(path) else csv_files.open_csv)(path, required)


def write_table(path: Path, columns: Sequence[str], numbers: Collection[str], rows: Iterable[dict[str, str]]) -> None:
    """Write rows of text, whole or not at all; in Parquet the cells of the columns ``numbers`` are numbers."""
    if is_parquet(path):
        parquet_files.write_parquet(path, columns, numbers, rows)
    else:
        csv_files.write_csv(path, columns, rows)


def is_parquet(path: Path) -> bool:
    """Whether the file name has the Parquet suffix."""
    return path.suffix == parquet_files.SUFFIX
