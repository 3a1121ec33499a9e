"""Gain and cost of several views per picture, on the demo's validation rooms.

    python benchmarks/views_study.py

Scores the 120 rooms of each dimension's validation split with ``views`` 1, 2 and 4: PLCC with the mean opinion scores, its
difference from one view with a 95% interval (paired bootstrap over rooms), and the seconds per picture, measured in turns.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tools"))

from saiqa import Scorer, facts
from saiqa.evaluate import intervals, tables
from saiqa.evaluate.figures import correlate
from saiqa.files import csv_files, folders
from saiqa.run.views import CHOICES


def rooms(dimension: str) -> tuple[list[Path], list[float]]:
    """The validation rooms and their mean opinion scores."""
    data = folders.roots(demo=True).data
    table = csv_files.read_csv(folders.annotation_csv(data, dimension, "val"))
    images = data / facts.IMAGES_FOLDER.format(dimension=dimension)
    mos = [float(text) for text in table.column(facts.mos_column(dimension))]
    return [images / f"{room}.jpg" for room in table.column(facts.ID_COLUMN)], mos


def main() -> None:
    """Print the table."""
    scorers = {views: Scorer(demo=True, dtype="float32", device="cpu", views=views) for views in CHOICES}
    rows = []
    for dimension in facts.DIMENSIONS:
        images, mos = rooms(dimension)
        scores, seconds = {}, {}
        for views, scorer in scorers.items():
            scorer.score(images[:8], [dimension])  # warm-up: the first pass takes longer
            started = time.perf_counter()
            scores[views] = [result.scores[dimension] for result in scorer.score(images, [dimension])]
            seconds[views] = (time.perf_counter() - started) / len(images)
        for views in CHOICES:
            gain = "" if views == 1 else said(intervals.compare(scores[views], scores[1], mos).plcc)
            plcc = f"{correlate(scores[views], mos).plcc:.3f}"
            rows.append(
                [dimension, str(views), plcc, gain, f"{1000 * seconds[views]:.0f}", f"{seconds[views] / seconds[1]:.1f}"]
            )
    header = ["", "views", "PLCC", "gain over one view", "ms per picture", "relative cost"]
    print("\n".join(tables.lines(tables.MARKDOWN, header, rows, [], labels=1)))


def said(found: intervals.Difference) -> str:
    """A difference with its interval."""
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


if __name__ == "__main__":
    main()
