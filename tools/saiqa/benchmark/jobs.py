"""A job of the benchmark: one dimension with all its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saiqa.files.places import Place


@dataclass(frozen=True)
class Job:
    """One dimension and its files.

    Attributes:
        test_jsonl: questions, read by infer.
        output_jsonl: ratings, written by infer and read by score.
        input_csv: ratings of people, read by score.
        output_csv: ``input_csv`` with the scores, written by score and read by eval.
        gt_column: column with the mean opinion score.
        limit: only the first so many questions; None for all.
    """

    dimension: str
    version: int
    data_root: Place
    test_jsonl: Place
    output_jsonl: Path
    input_csv: Place
    output_csv: Path
    gt_column: str
    limit: int | None
