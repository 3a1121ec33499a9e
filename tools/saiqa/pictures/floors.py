"""Which scored images reach the floors (minimum scores), and why the others do not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saiqa.pictures import ranking
from saiqa.pictures.results import ERROR_COLUMN

Floor = tuple[str, float]  # column, minimum


@dataclass(frozen=True)
class Verdict:
    """The outcome for one image.

    Attributes:
        reasons: why it is rejected, one per floor: ``layout 2.1 < 3``; empty if it is kept.
        below: the columns that are below their floor.
        unscored: whether a column has no number; the reasons then say which, with the image's error.
    """

    reasons: list[str]
    below: list[str]
    unscored: bool

    @property
    def kept(self) -> bool:
        """Whether it reaches every floor."""
        return not self.reasons


def judge(row: Mapping[str, str], floors: Sequence[Floor]) -> Verdict:
    """Check a row of a scored table against the floors. The row must have the floors' columns."""
    reasons: list[str] = []
    below: list[str] = []
    lacking: list[str] = []
    for column, minimum in floors:
        try:
            value = ranking.number_in(row, column)
        except ranking.NoCandidate as error:
            lacking.append(str(error))
            continue
        if value < minimum:
            below.append(column)
            reasons.append(f"{column} {_said(value, minimum)} < {minimum:g}")
    why = f" ({row[ERROR_COLUMN]})" if row.get(ERROR_COLUMN) else ""
    lacked = [f"{', '.join(lacking)}{why}"] if lacking else []
    return Verdict(reasons + lacked, below, bool(lacking))


def _said(value: float, minimum: float) -> str:
    """A score with two digits, or with all digits if two would make it appear to reach the floor."""
    short = f"{value:.2f}".rstrip("0").rstrip(".")
    return short if float(short) < minimum else repr(value)
