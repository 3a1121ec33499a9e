"""Draws the README's pictures, demo/rooms.jpg and demo/scatter.png, and prints its table of the demo's figures.

Graded series are in the table if ``render_rooms.py --series N`` has rendered some.

    python tools/infer.py --demo && make figures

The pictures of rooms.jpg are spread evenly over the MOS and chosen without regard to the prediction.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from make.learn import study
from saiqa import Scorer, facts
from saiqa.evaluate import intervals, tables
from saiqa.evaluate.figures import correlate
from saiqa.files import csv_files

FOLDER = Path(__file__).resolve().parents[2]  # demo/

COLUMNS = 5
CAPTION, MARGIN = 26, 6
COLOURS = dict(zip(facts.DIMENSIONS, ("#b5482a", "#7a4a9c", "#2b6ca3", "#b08a00"), strict=True))


def scored(dimension: str) -> list[tuple[str, float, float]]:
    """(id, MOS, score) of the test pictures, from the last run of ``infer.py --demo``."""
    name = facts.result_name(dimension, facts.RECOMMENDED, facts.tuned_model(), ".csv")
    column = facts.mos_column(dimension)
    rows = csv_files.read_csv(study.DEMO.results / name).rows
    return [(row["id"], float(row[column]), float(row["score_pred"])) for row in rows]


def contact_sheet(path: Path) -> None:
    """Test rooms of each dimension with their MOS and score."""
    chosen = {dimension: _spread(scored(dimension)) for dimension in facts.DIMENSIONS}
    width, height = Image.open(study.image_file(*next((d, rows[0][0]) for d, rows in chosen.items()))).size
    cell_width, cell_height = width + MARGIN, height + CAPTION
    sheet = Image.new("RGB", (COLUMNS * cell_width + MARGIN, len(chosen) * cell_height + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for line, (dimension, rows) in enumerate(chosen.items()):
        for column, (image_id, mos, score) in enumerate(rows):
            x, y = MARGIN + column * cell_width, MARGIN + line * cell_height
            sheet.paste(Image.open(study.image_file(dimension, image_id)), (x, y))
            draw.text((x + 2, y + height + 3), f"{dimension}: MOS {mos:.1f}, score {score:.1f}", fill="black", font=font)
    sheet.save(path, quality=85, optimize=True)


def _spread(rows: list[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Rows evenly spread over the MOS, best first."""
    ranked = sorted(rows, key=lambda row: (-row[1], row[0]))
    return [ranked[round(i * (len(ranked) - 1) / (COLUMNS - 1))] for i in range(COLUMNS)]


def scatter(path: Path) -> None:
    """Score against MOS in the four dimensions."""
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.5), sharex=True, sharey=True, layout="constrained")
    for axis, dimension in zip(axes, facts.DIMENSIONS, strict=True):
        _, mos, score = zip(*scored(dimension), strict=True)
        axis.plot([1, 5], [1, 5], color="#999999", linewidth=0.8)
        axis.scatter(mos, score, s=14, alpha=0.7, color=COLOURS[dimension], linewidths=0)
        axis.set(title=f"{dimension}: PLCC {correlate(score, mos).plcc:.3f}, n {len(mos)}", xlabel="MOS")
        axis.set(xlim=(0.9, 5.1), ylim=(0.9, 5.1))
    axes[0].set_ylabel("score")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def table() -> list[str]:
    """PLCC and SRCC with their intervals, with the ceiling, ridge regression and the graded series."""
    lines, everything, ceilings = [], [], []
    scorer = Scorer(demo=True, device="cpu")
    for dimension in facts.DIMENSIONS:
        rows = [(score, mos) for _, mos, score in scored(dimension)]
        everything += rows
        ceilings.append(study.ceiling(dimension))
        ridge = correlate(*(column.tolist() for column in study.ridge_predictions(dimension))).plcc
        falling = study.falling_series(scorer, dimension)
        share = f"{sum(falling.values())} of {len(falling)}" if falling else tables.NO_FIGURE
        lines.append([dimension, *_agreement(rows), f"{ceilings[-1]:.3f}", f"{ridge:.3f}", share])
        for name in sorted(name for name, fell in falling.items() if not fell):
            print(f"{dimension}: not monotone: {name}", file=sys.stderr)
    lines.append([facts.POOLED, *_agreement(everything), f"{np.mean(ceilings):.3f}", tables.NO_FIGURE, tables.NO_FIGURE])
    header = ["", "n", "PLCC", "SRCC", "ceiling", "ridge", "series that fall"]
    return tables.lines(tables.MARKDOWN, header, lines, [], labels=1)


def _agreement(rows: list[tuple[float, float]]) -> list[str]:
    found = intervals.assess(*zip(*rows, strict=True))
    return [str(found.figures.n), *(tables.figure(found.value(name), found.intervals.get(name)) for name in ("plcc", "srcc"))]


if __name__ == "__main__":
    contact_sheet(FOLDER / "rooms.jpg")
    scatter(FOLDER / "scatter.png")
    print("\n".join(table()))
