"""The columns that lists have besides the image paths; they stay with the scores in every file made from them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from saiqa.errors import UsageError

LISTED_KEY = "listed"  # of a line of the log


@dataclass
class Listed:
    """The columns of the lists, image by image.

    Attributes:
        of: image -> column -> value.
        columns: every column met so far, in order.
    """

    of: dict[str, Mapping[str, Any]]
    columns: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for values in self.of.values():
            self._meet(values)

    def on(self, line: dict) -> dict:
        """A line of the log with this run's list columns for its image; columns only an earlier run had are kept."""
        values = {**line.get(LISTED_KEY, {}), **self.of.get(line["images"][0], {})}
        self._meet(values)
        return {**line, LISTED_KEY: values} if values else line

    def keep(self, line: dict) -> None:
        """Take over the columns of an earlier run's line of an image, before the image is scored again."""
        if line.get(LISTED_KEY):
            image = line["images"][0]
            self.of[image] = {**line[LISTED_KEY], **self.of.get(image, {})}

    def meet(self, lines: Iterable[dict]) -> None:
        """Add the columns of lines of the log to ``columns``."""
        for line in lines:
            self._meet(line.get(LISTED_KEY, {}))

    def _meet(self, values: Mapping[str, Any]) -> None:
        if not self.columns.keys() >= values.keys():
            self.columns.update(dict.fromkeys(values))


def check(columns: Collection[str], taken: Collection[str], keep: Collection[str] | None) -> None:
    """Raise ``UsageError`` for list columns named like a result column, and for columns to keep that no list has."""
    missing = [name for name in keep or () if name not in columns]
    if missing:
        has = ", ".join(columns) or "no columns besides the paths"
        raise UsageError(f"--keep_columns: no list has {missing[0]}", f"They have {has}")
    both = [name for name in columns if name in taken]
    if both:
        rest = ",".join(name for name in columns if name not in taken)
        what = f"a list has {', '.join(both)}, which the results use themselves"
        raise UsageError(what, f"Rename it in the list, or keep only the others: --keep_columns '{rest}'")


def cell(value: Any) -> str:
    """A value from a list as a CSV cell: text unchanged, None as an empty cell, anything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
