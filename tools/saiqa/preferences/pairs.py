"""Preference files: scored images by name, and which of two images people preferred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from saiqa import facts, overall, scoring
from saiqa.errors import InputError
from saiqa.files import csv_files, folders, jsonl
from saiqa.pictures.scored_files import ScoredTable, read_table, write_entries
from saiqa.preferences import bradley_terry

PAIR_COLUMNS = ("image_a", "image_b", "winner")
NAME_COLUMNS = ("image", "id")
OVERALL = "overall"

_SHOWN = 5
_WINNERS = {"a": bradley_terry.A, "b": bradley_terry.B, "tie": bradley_terry.TIE}

Scores = dict[str, float]


# ---- scored images ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoredFile:
    """A file of scored images, by name.

    Attributes:
        table: the file's table.
        names: the images' names, [rows].
        scores: dimension -> score, [rows]; dimensions without a score are left out.
        dimensions: the dimensions in the file.
    """

    table: ScoredTable
    names: list[str]
    scores: list[Scores]
    dimensions: list[str]

    @property
    def has_overall(self) -> bool:
        """Whether the file already has overall scores."""
        return any(OVERALL in entry for entry in self.table.entries)


def read_scored(path: Path) -> ScoredFile:
    """Read scored images.

    Raises:
        InputError: the file is missing or broken, has no image or dimension column, a score is not a number from 1 to 5, or an
            image occurs twice.
    """
    table = read_table(path)
    named = next((name for name in NAME_COLUMNS if name in table.columns), None)
    if named is None:
        what = f"{folders.shown(path)} has no column {' or '.join(NAME_COLUMNS)}"
        raise InputError(what, f"Its columns are {', '.join(table.columns)}")
    names = [row[named] for row in table.rows]
    csv_files.check_unique(path, "image", names)
    dimensions = [d for d in facts.DIMENSIONS if d in table.columns]
    if not dimensions:
        what = f"{folders.shown(path)} has no scores for {', '.join(facts.DIMENSIONS)}"
        raise InputError(what, "Give a file written by score_images.py")
    scores = [
        {d: _number(path, number, d, row[d]) for d in dimensions if row[d]}
        for number, row in zip(table.numbers, table.rows, strict=True)
    ]
    return ScoredFile(table, names, scores, dimensions)


def _number(path: Path, line: int, dimension: str, written: str) -> float:
    try:
        value = float(written)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise jsonl.line_error(path, line, f"{dimension} is {written!r}, not a number")
    if not scoring.is_score(value):
        raise jsonl.line_error(path, line, f"{dimension} is {written!r}, not from 1 to 5")
    return value


def write_with_overall(scored: ScoredFile, weights: Mapping[str, float] | None, output: Path) -> dict[str, str]:
    """Write the file with ``overall``, replacing an existing one; returns the images without one, as image -> reason.

    Raises:
        InputError: the weights of all dimensions in the file are 0.
    """
    if weights is not None and not any(weights[dimension] for dimension in scored.dimensions):
        what = f"the weights of {', '.join(scored.dimensions)} are all 0"
        raise InputError(f"{folders.shown(scored.table.path)}: {what}", "Score the other dimensions too")
    values, failures = [], {}
    for name, scores in zip(scored.names, scored.scores, strict=True):
        lacking = [dimension for dimension in scored.dimensions if dimension not in scores]
        values.append(None if lacking else overall.overall_score(scores, weights))
        if lacking:
            failures[name] = f"no score of {', '.join(lacking)}"
    empty = None if scored.table.is_jsonl else ""
    entries = (
        {**entry, OVERALL: empty if value is None else value if scored.table.is_jsonl else repr(value)}
        for entry, value in zip(scored.table.entries, values, strict=True)
    )
    write_entries(output, scored.table, [OVERALL], entries)
    return failures


# ---- preferences -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Preferences between scored images.

    Attributes:
        differences: scores of image a minus those of image b, [pairs, dimensions in the order of ``facts.DIMENSIONS``].
        outcomes: ``bradley_terry.A``, ``TIE`` or ``B``, [pairs].
        groups: index of the pair of images, [pairs]; the same for judgements of the same two images.
        unscored: the pairs left out because an image lacks a score, as pair -> reason.
    """

    differences: list[list[float]]
    outcomes: list[int]
    groups: list[int]
    unscored: dict[str, str]

    @property
    def counts(self) -> dict[str, int]:
        """The number of pairs: in total, by outcome, distinct, and left out."""
        counted = Counter(self.outcomes)
        by_outcome = {name: counted[outcome] for name, outcome in _WINNERS.items()}
        return {"n": len(self.outcomes), **by_outcome, "distinct": len(set(self.groups)), "left_out": len(self.unscored)}


def read_pairs(path: Path, scored: ScoredFile) -> Pairs:
    """Read preferences, a CSV with the columns ``image_a,image_b,winner``; the winner is a, b, tie, or an image's name.

    An image is named as in the scored file, or, without a folder, by its id (the file name without its suffix).

    Raises:
        InputError: the file is missing or broken, an image is unknown or compared with itself, a winner is neither of the two
            images nor a tie, too few pairs are decided, or a dimension's scores are equal within every pair.
    """
    _, rows = csv_files.open_csv(path, required=PAIR_COLUMNS)
    numbered = list(rows)
    find = _Finder(scored.names)
    _refuse_unknown(path, numbered, find)
    groups: dict[frozenset[int], int] = {}
    pairs = Pairs([], [], [], {})
    for number, row in numbered:
        a, b = find(row["image_a"]), find(row["image_b"])
        assert a is not None and b is not None, "the unknown ones are refused"
        outcome = _outcome(path, number, row)
        if a == b:
            raise jsonl.line_error(path, number, f"{row['image_a']} is compared with itself")
        lacking = _lacking(scored, (a, b))
        if lacking:
            pairs.unscored[f"line {number}, {row['image_a']} and {row['image_b']}"] = lacking
            continue
        pairs.differences.append([scored.scores[a][d] - scored.scores[b][d] for d in facts.DIMENSIONS])
        pairs.outcomes.append(outcome)
        pairs.groups.append(groups.setdefault(frozenset((a, b)), len(groups)))
    _check_enough(path, pairs)
    return pairs


class _Finder:
    """Finds an image's row by its name; None if there is no such image, or if several have this id."""

    def __init__(self, names: Sequence[str]):
        ids = Counter(map(folders.image_id, names))
        self._by_id = {folders.image_id(n): i for i, n in enumerate(names) if ids[folders.image_id(n)] == 1}
        self._by_name = {name: i for i, name in enumerate(names)}

    def __call__(self, name: str) -> int | None:
        bare = PurePath(name).name == name
        return self._by_name.get(name, self._by_id.get(folders.image_id(name)) if bare else None)


def _refuse_unknown(path: Path, numbered: Sequence[tuple[int, dict]], find: _Finder) -> None:
    unknown = Counter(row[name] for _, row in numbered for name in PAIR_COLUMNS[:2] if find(row[name]) is None)
    if unknown:
        in_pairs = sum(find(row["image_a"]) is None or find(row["image_b"]) is None for _, row in numbered)
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        what = f"{len(unknown)} images in {in_pairs} of {len(numbered)} pairs are not scored, or their names are ambiguous"
        named = ", ".join(list(unknown)[:_SHOWN])
        raise InputError(f"{folders.shown(path)}: {what}: {named}{more}", "Score them, or name them as in the scored file")


def _outcome(path: Path, number: int, row: dict[str, str]) -> int:
    """The outcome in the winner's cell: an image's name takes precedence over the letters."""
    winner = row["winner"].strip()
    for name, outcome in (("image_a", bradley_terry.A), ("image_b", bradley_terry.B)):
        if winner == row[name]:
            return outcome
    if winner.lower() not in _WINNERS:
        raise jsonl.line_error(path, number, f"winner {winner!r} is neither a, b, tie nor one of the two images")
    return _WINNERS[winner.lower()]


def _lacking(scored: ScoredFile, places: Sequence[int]) -> str:
    """Which scores the images of a pair lack; empty if none."""
    found = []
    for place in places:
        missing = [d for d in facts.DIMENSIONS if d not in scored.scores[place]]
        found += [f"{scored.names[place]} has no score of {', '.join(missing)}"] if missing else []
    return "; ".join(found)


def _check_enough(path: Path, pairs: Pairs) -> None:
    decided = {group for group, o in zip(pairs.groups, pairs.outcomes, strict=True) if o != bradley_terry.TIE}
    if len(decided) < bradley_terry.FEWEST_DECIDED:
        counts = pairs.counts
        said = f"{len(decided)} distinct pairs have a winner (ties: {counts['tie']}, without scores: {counts['left_out']})"
        what = f"{folders.shown(path)}: {said}, but a fit needs {bradley_terry.FEWEST_DECIDED}"
        raise InputError(what, "Collect more preferences")
    for dimension, column in zip(facts.DIMENSIONS, zip(*pairs.differences, strict=True), strict=True):
        if not any(column):
            what = f"the {dimension} scores are equal within every pair, so their weight cannot be fitted"
            raise InputError(f"{folders.shown(path)}: {what}", f"Compare images that differ in {dimension}")
