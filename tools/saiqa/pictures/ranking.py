"""The best of each group of images. Pure: rows in, ranked rows out. pandas is imported on first use."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saiqa import facts, scoring
from saiqa.pictures.results import OVERALL_COLUMN


@dataclass(frozen=True)
class Candidate:
    """One scored image.

    Attributes:
        image: its path in the table.
        group: the group in which it is ranked.
        row: its row of the table.
        score: the score it is ranked by; higher is better.
        passes: whether it reaches every floor.
    """

    image: str
    group: str
    row: Mapping[str, str]
    score: float
    passes: bool


@dataclass(frozen=True)
class Ranked:
    """A candidate with its rank in its group, from 1, and whether it is kept."""

    candidate: Candidate
    rank: int
    kept: bool


class NoCandidate(ValueError):
    """A row that cannot be ranked, and why."""


def group_of(image: str, pattern: re.Pattern[str]) -> str:
    """The group in an image's path according to a pattern: the capture groups if it has any, else the whole match.

    Raises:
        NoCandidate: there is no match, or it is empty.
    """
    found = pattern.search(image)
    if found is None:
        raise NoCandidate(f"{pattern.pattern!r} does not match it")
    group = " ".join(part or "" for part in found.groups()).strip() if pattern.groups else found[0]
    if not group:
        raise NoCandidate(f"{pattern.pattern!r} matches nothing in it")
    return group


def number_in(row: Mapping[str, str], column: str) -> float:
    """A cell as a finite number. Raises ``NoCandidate``."""
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise NoCandidate(f"no {column}")
    if column in (*facts.DIMENSIONS, OVERALL_COLUMN) and not scoring.is_score(value):
        raise NoCandidate(f"{column} is {value:g}, not from 1 to 5")
    return value


def rank(candidates: Sequence[Candidate], k: int | None) -> list[Ranked]:
    """Rank every group from best to worst; those that fail a floor come last.

    Args:
        candidates: the candidates of all groups; ties are ranked in this order.
        k: keep at most this many per group; None keeps all that pass.

    Returns:
        All candidates, group by group in the order in which groups first appear.
    """
    import pandas

    table = pandas.DataFrame(
        {
            "group": pandas.factorize(pandas.Series([one.group for one in candidates], dtype=object))[0],
            "fails": [not one.passes for one in candidates],
            "score": [one.score for one in candidates],
        }
    )
    best_first = table.sort_values(["group", "fails", "score"], ascending=[True, True, False], kind="stable")
    places = best_first.groupby("group").cumcount() + 1
    return [
        Ranked(candidates[i], int(place), candidates[i].passes and (k is None or place <= k)) for i, place in places.items()
    ]
