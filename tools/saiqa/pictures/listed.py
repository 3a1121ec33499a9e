"""What lists say of images beside their paths: it stays with the scores, in every file that is made of them."""

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
        """A line of the log with what this run's lists say of its image; what only an earlier run's said stays."""
        values = {**line.get(LISTED_KEY, {}), **self.of.get(line["images"][0], {})}
        self._meet(values)
        return {**line, LISTED_KEY: values} if values else line

    def keep(self, line: dict) -> None:
        """Take over what an earlier run's line of an image has, before the image is scored again."""
        if line.get(LISTED_KEY):
            image = line["images"][0]
            self.of[image] = {**line[LISTED_KEY], **self.of.get(image, {})}

    def meet(self, lines: Iterable[dict]) -> None:
        """Learn the columns that lines of the log have."""
        for line in lines:
            self._meet(line.get(LISTED_KEY, {}))

    def _meet(self, values: Mapping[str, Any]) -> None:
        if not self.columns.keys() >= values.keys():
            self.columns.update(dict.fromkeys(values))


def check(columns: Collection[str], taken: Collection[str], keep: Collection[str] | None) -> None:
    """Refuse columns that the results have of their own, and kept ones that no list has. Raises ``UsageError``."""
    missing = [name for name in keep or () if name not in columns]
    if missing:
        has = ", ".join(columns) or "no columns beside the paths"
        raise UsageError(f"--keep_columns: no list has {missing[0]}", f"They have {has}")
    both = [name for name in columns if name in taken]
    if both:
        rest = ",".join(name for name in columns if name not in taken)
        what = f"a list has {', '.join(both)}, which the results have of their own"
        raise UsageError(what, f"Rename it in the list, or keep the others alone: --keep_columns '{rest}'")


def cell(value: Any) -> str:
    """A value of a list as the cell of a CSV: text as it is, nothing as nothing, all else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
