"""The scores of any images as files: the lines of a log (``log.Partial``), and the JSONL, CSV and table made from it.

A line of a result is ``{"image": path, "images": [path], COLUMN OF THE LIST: value, ..., "scores": {dimension: score},
"overall": score, "probabilities": {dimension: {word: p}}, "error": why, "notes": [what was decided about the picture],
"picture": its stamp (``stamps``)}``; keys that do not apply are left out. ``image`` is the column name in the CSV, ``images``
the key in SA-BENCH's files. A line of the log has no ``image`` and no ``overall``, ``failed`` instead of ``error``, and the
columns of the list under ``listed``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from saiqa import facts, scoring
from saiqa.calibration import CONFIDENCE, UNLIKE, Calibration
from saiqa.files import jsonl, stamps
from saiqa.files.table_files import open_table, write_table
from saiqa.image_score import ENDS, ImageScore, verdict
from saiqa.overall import overall_score
from saiqa.pictures.listed import LISTED_KEY, cell
from saiqa.pictures.reference import Reference
from saiqa.run.log import AGAIN, Partial

IMAGE_COLUMN = "image"
OVERALL_COLUMN = "overall"
ERROR_COLUMN = "error"
UNSURE_COLUMN = "unsure"
VERDICT_COLUMN = "verdict"
PERCENTILES_KEY = "percentiles"

_LOG_KEYS: tuple[str, ...] = ("images", "scores", "probabilities", "notes", stamps.PICTURE_KEY)
# Keys that a result JSONL uses itself, so no list may have them.
JSON_KEYS = (
    *("image", *_LOG_KEYS, OVERALL_COLUMN, ERROR_COLUMN, "failed", "intervals", UNSURE_COLUMN, AGAIN),
    *(PERCENTILES_KEY, VERDICT_COLUMN),
)
_NUMBER_WIDTH, _PERCENTILE_WIDTH = 12, 6


def line_of(result: ImageScore, stamp: dict | None = None) -> dict:
    """A result as a line of the log, with the stamp of its picture."""
    line = {"images": [result.name], "scores": result.scores, "probabilities": result.probabilities}
    noted: dict[str, Any] = {"notes": list(result.notes)} if result.notes else {}
    noted |= {stamps.PICTURE_KEY: stamp} if stamp else {}
    return line | noted | ({"failed": result.error} if result.error else {})


class Judged(NamedTuple):
    """What is shown of the scores of an image.

    Attributes:
        scores: dimension -> score, for scores that are certain enough.
        overall: None if a dimension has no score or one that is not certain enough.
        intervals: dimension -> low and high; empty without a calibration.
        unsure: the dimensions whose score is not shown because its interval is too wide or not valid.
        percentiles: dimension or ``overall`` -> percentage of the reference with a lower score, for the scores shown.
    """

    scores: dict[str, float]
    overall: float | None
    intervals: dict[str, tuple[float, float]]
    unsure: list[str]
    percentiles: dict[str, float]


@dataclass(frozen=True)
class Layout:
    """What the files and the table show of an image.

    Attributes:
        dimensions: the dimensions that were scored.
        probabilities: whether the five words' probabilities are shown.
        weights: weights of the overall score, as ``overall.overall_score`` takes them.
        listed: the columns of the lists that a table has.
        calibration: calibration of the scores; None for no intervals.
        confidence: confidence of the intervals.
        max_width: a score whose interval is wider, in points, is not shown.
        reference: reference set for percentiles; None for no percentiles.
    """

    dimensions: Sequence[str]
    probabilities: bool
    weights: Mapping[str, float] | None
    listed: Sequence[str] = ()
    calibration: Calibration | None = None
    confidence: float = CONFIDENCE
    max_width: float | None = None
    reference: Reference | None = None

    def judged(self, line: dict) -> Judged:
        """What is shown of a line's scores: with ``max_width`` only those that are certain enough."""
        intervals: dict[str, tuple[float, float]] = {}
        if self.calibration is not None:
            intervals = self.calibration.intervals(line["scores"], line["probabilities"], self.confidence)
        unsure = self._unsure(line, intervals)
        scores = {name: score for name, score in line["scores"].items() if name not in unsure}
        overall = None if "failed" in line or unsure else overall_score(line["scores"], self.weights)
        placed = scores | ({} if overall is None else {OVERALL_COLUMN: overall})
        of = self.reference
        percentiles = {name: of.percentile(name, placed[name]) for name in placed if name in of.scores} if of else {}
        return Judged(scores, overall, intervals, unsure, percentiles)

    def _unsure(self, line: dict, intervals: Mapping[str, tuple[float, float]]) -> list[str]:
        if self.max_width is None:
            return []
        if UNLIKE in line.get("notes", ()):  # intervals are not valid for such a picture
            return list(line["scores"])
        widths = {name: high - low for name, (low, high) in intervals.items()}
        return [name for name in line["scores"] if widths.get(name, math.inf) > self.max_width]

    # JSONL

    def json_value(self, line: dict) -> dict:
        """A line of the log as a line of the result."""
        judged = self.judged(line)
        shown = {"image": line["images"][0], "images": line["images"], **line.get(LISTED_KEY, {})}
        shown |= {"scores": judged.scores, "overall": judged.overall}
        if self.calibration:
            shown["intervals"] = judged.intervals
        if self.max_width is not None:
            shown["unsure"] = judged.unsure
        if self.reference:
            shown |= {PERCENTILES_KEY: judged.percentiles, VERDICT_COLUMN: verdict(judged.scores)}
        if self.probabilities:
            shown["probabilities"] = line["probabilities"]
        noted = {key: line[key] for key in ("notes", stamps.PICTURE_KEY) if key in line}
        return shown | noted | ({"error": line["failed"]} if "failed" in line else {})

    # CSV

    @property
    def columns(self) -> list[str]:
        """The columns of the CSV: image, those of the lists, dimensions, overall, optional ones, error."""
        bounds = [f"{d}_{end}" for d in self.dimensions for end in ENDS] if self.calibration else []
        bounds += [UNSURE_COLUMN] if self.max_width is not None else []
        if self.reference:
            bounds += [percentile_column(name) for name in (*self.dimensions, OVERALL_COLUMN)] + [VERDICT_COLUMN]
        words = [word_column(d, w) for d in self.dimensions for w in facts.WORDS] if self.probabilities else []
        return [IMAGE_COLUMN, *self.listed, *self.dimensions, OVERALL_COLUMN, *bounds, *words, ERROR_COLUMN]

    def row(self, line: dict) -> dict[str, str]:
        """A line of the log as a row of the CSV; missing values are empty."""
        judged = self.judged(line)
        numbers = {name: judged.scores.get(name) for name in self.dimensions}
        numbers[OVERALL_COLUMN] = judged.overall
        if self.calibration:
            for name in self.dimensions:
                bounds = judged.intervals.get(name, (None, None))
                numbers |= {f"{name}_{end}": value for end, value in zip(ENDS, bounds, strict=True)}
        if self.probabilities:
            for name in self.dimensions:
                words = line["probabilities"].get(name, {})
                numbers |= {word_column(name, word): words.get(word) for word in facts.WORDS}
        if self.reference:
            numbers |= {percentile_column(name): judged.percentiles.get(name) for name in (*self.dimensions, OVERALL_COLUMN)}
        cells = {name: "" if number is None else repr(number) for name, number in numbers.items()}
        if self.reference:
            cells[VERDICT_COLUMN] = verdict(judged.scores)
        if self.max_width is not None:
            cells[UNSURE_COLUMN] = " ".join(judged.unsure)
        listed = {name: cell(line.get(LISTED_KEY, {}).get(name)) for name in self.listed}
        return {IMAGE_COLUMN: line["images"][0], **listed, **cells, ERROR_COLUMN: line.get("failed", "")}

    # table

    @property
    def heading(self) -> str:
        """The first line of the table."""
        return "".join(f"{name:>{self._width}}" for name in (*self.dimensions, OVERALL_COLUMN)) + f"  {IMAGE_COLUMN}"

    @property
    def _width(self) -> int:
        return _NUMBER_WIDTH + (_PERCENTILE_WIDTH if self.reference else 0)

    def table_lines(self, line: dict) -> Iterator[str]:
        """An image in the table: one line, plus a verdict with a reference, plus one per dimension with probabilities."""
        judged = self.judged(line)
        scores = {**judged.scores, OVERALL_COLUMN: judged.overall}
        cells = [_cell(scores.get(name), judged.percentiles.get(name)) for name in (*self.dimensions, OVERALL_COLUMN)]
        yield "".join(f"{cell:>{self._width}}" for cell in cells) + f"  {line['images'][0]}"
        if self.reference and (said := verdict(judged.scores)):
            yield " " * (_NUMBER_WIDTH - 2) + said
        for name, words in line["probabilities"].items() if self.probabilities else ():
            yield f"{name:>{_NUMBER_WIDTH}}" + "".join(f"  {word} {p:.3f}" for word, p in words.items())

    # from a finished result

    def finished_log(self, path: Path, record: Mapping, log: Path) -> Partial:
        """A finished CSV, Parquet or JSONL as a log, written to the file ``log``, to be resumed.

        An image with an error, or without everything that is shown now, is scored again if it is named again; otherwise it
        keeps its line.

        Raises:
            InputError: the file is broken.
        """
        partial = Partial(log, {"identity": record["identity"], "engine": record["engine"]})
        partial.start()
        values = _jsonl_values(path) if path.suffix == ".jsonl" else _table_values(path, self)
        partial.append(self._log_line(path, number, value, listed) for number, value, listed in values)
        return Partial.read_whole(log)

    def _log_line(self, path: Path, number: int, value: dict, listed: dict) -> dict:
        jsonl.only_image(path, number, value)
        _check_scores(path, number, value)
        line = {"scores": {}, "probabilities": {}, **{key: value[key] for key in _LOG_KEYS if key in value}}
        line |= {LISTED_KEY: listed} if listed else {}
        whole = set(line["scores"]) >= set(self.dimensions)
        words_needed = self.probabilities or self.calibration is not None
        shown = not words_needed or set(line["probabilities"]) >= set(self.dimensions)
        if "error" in value:
            return {**line, "failed": value["error"]}
        return line if whole and shown else {**line, AGAIN: True}


def _cell(score: float | None, percentile: float | None) -> str:
    """A score for the table, with its percentile if there is one."""
    place = "" if percentile is None else f" ({percentile:.0f}%)"
    return "-" if score is None else f"{score:.3f}{place}"


def _jsonl_values(path: Path) -> Iterator[tuple[int, dict, dict]]:
    """The lines of a finished JSONL, each with its number and the columns of the list in it."""
    for number, value in jsonl.stream_jsonl(path):
        yield number, value, {name: item for name, item in value.items() if name not in JSON_KEYS}


def _table_values(path: Path, layout: Layout) -> Iterator[tuple[int, dict, dict]]:
    """The rows of a finished CSV or Parquet, in the form of ``_jsonl_values``."""
    _, rows = open_table(path, required=[IMAGE_COLUMN, *layout.dimensions, ERROR_COLUMN])
    for number, row in rows:
        try:
            scores = {name: float(row[name]) for name in layout.dimensions if row[name]}
            words = {
                name: {word: float(row[word_column(name, word)]) for word in facts.WORDS}
                for name in scores
                if row.get(word_column(name, facts.WORDS[0]))
            }
        except (KeyError, ValueError) as error:
            raise jsonl.line_error(path, number, f"not a row of scores ({error})") from None
        listed = {name: item for name, item in row.items() if name not in CSV_COLUMNS}
        value = {"images": [row[IMAGE_COLUMN]], "scores": scores, "probabilities": words}
        yield number, value | ({"error": row[ERROR_COLUMN]} if row[ERROR_COLUMN] else {}), listed


def _check_scores(path: Path, number: int, value: dict) -> None:
    """Raise ``InputError`` if a line of a finished result has an invalid score."""
    scores = value.get("scores", {})
    if not isinstance(scores, dict) or not isinstance(value.get("probabilities", {}), dict):
        raise jsonl.line_error(path, number, "its scores are not an object")
    for name, score in scores.items():
        if not isinstance(score, int | float) or not scoring.is_score(score):
            raise jsonl.line_error(path, number, f"{name[:40]} is {str(score)[:40]}, not from 1 to 5")


def word_column(dimension: str, word: str) -> str:
    """The column of a word's probability."""
    return f"{dimension}_{word}"


def percentile_column(name: str) -> str:
    """The column of a score's percentile in the reference."""
    return f"{name}_percentile"


# Columns that a result CSV uses itself, likewise.
CSV_COLUMNS = (
    *(IMAGE_COLUMN, *facts.DIMENSIONS, OVERALL_COLUMN, ERROR_COLUMN),
    *(word_column(dimension, word) for dimension in facts.DIMENSIONS for word in facts.WORDS),
    *(f"{dimension}_{end}" for dimension in facts.DIMENSIONS for end in ENDS),
    *(percentile_column(name) for name in (*facts.DIMENSIONS, OVERALL_COLUMN)),
    *(UNSURE_COLUMN, VERDICT_COLUMN),
)


def taken(as_json: bool) -> tuple[str, ...]:
    """The columns (and with JSON the keys) that results use themselves, so a list may not have them."""
    return (*CSV_COLUMNS, *(JSON_KEYS if as_json else ()))


NUMBER_COLUMNS = frozenset(CSV_COLUMNS) - {IMAGE_COLUMN, ERROR_COLUMN, UNSURE_COLUMN, VERDICT_COLUMN}


def write(path: Path, layout: Layout, lines: Iterable[dict]) -> None:
    """Write lines of the log as CSV, Parquet or JSONL, depending on the suffix, completely or not at all."""
    if path.suffix == ".jsonl":
        jsonl.write_jsonl(path, map(layout.json_value, lines))
    else:
        write_table(path, layout.columns, NUMBER_COLUMNS, map(layout.row, lines))
