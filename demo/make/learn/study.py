"""What the demo's checkpoint has learned: agreement, attainable ceiling, graded series, and a baseline of global statistics.

Used by ``figures.py`` and by the tests.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from make.render import raters
from saiqa import Scorer, facts
from saiqa.files import csv_files, folders

FOLDER = Path(__file__).resolve().parents[2]  # demo/

DEMO = folders.roots(demo=True)
SERIES = FOLDER / "series"
PENALTIES = 10.0 ** np.arange(-1, 5)
FOLDS = 5


# ---- the attainable ceiling ------------------------------------------------------------------------------------------


def ceiling(dimension: str, split: str = "test") -> float:
    """PLCC of the simulated raters' mean with the true severity: what a perfect scorer would reach."""
    mos = mean_opinions(dimension, split)
    with open(DEMO.data / facts.ANNOTATIONS_FOLDER / "scenes.csv", newline="", encoding="utf-8") as file:
        severity = {row["id"]: float(row["severity"]) for row in csv.DictReader(file)}
    return raters.ceiling([severity[name] for name in mos], list(mos.values()))


def mean_opinions(dimension: str, split: str) -> dict[str, float]:
    """Image id -> MOS."""
    table = csv_files.read_csv(folders.annotation_csv(DEMO.data, dimension, split))
    return {row[facts.ID_COLUMN]: float(row[facts.mos_column(dimension)]) for row in table.rows}


def image_file(dimension: str, image_id: str) -> Path:
    """Where a picture of the demo's benchmark is."""
    return DEMO.data / facts.IMAGES_FOLDER.format(dimension=dimension) / f"{image_id}.jpg"


# ---- graded series ---------------------------------------------------------------------------------------------------


def series(dimension: str) -> dict[str, list[Path]]:
    """Series "number fault" -> its pictures by increasing severity; empty if no series have been rendered."""
    if not SERIES.is_dir():
        return {}
    found: dict[str, list[tuple[float, Path]]] = {}
    with open(SERIES / "series.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["dimension"] == dimension:
                member = float(row["severity"]), SERIES / row["image"]
                found.setdefault(f"{row['series']} {row['fault']}", []).append(member)
    return {name: [path for _, path in sorted(members)] for name, members in found.items()}


def falls(scores: Sequence[float]) -> bool:
    """Whether each score is below the one before."""
    return bool((np.diff(scores) < 0).all())


def falling_series(scorer: Scorer, dimension: str) -> dict[str, bool]:
    """Series of a dimension -> whether its scores decrease monotonically."""
    found = series(dimension)
    scores = iter(scorer.score([path for paths in found.values() for path in paths], dimensions=[dimension]))
    return {name: falls([next(scores).scores[dimension] for _ in paths]) for name, paths in found.items()}


# ---- a baseline of global statistics ---------------------------------------------------------------------------------


def statistics(picture: Image.Image) -> np.ndarray:
    """Global statistics of a picture, [44]: of colour, light, edges and detail, but not of content or position."""
    rgb = np.asarray(picture.convert("RGB"), np.float64) / 255
    hue, saturation, value = np.moveaxis(np.asarray(picture.convert("HSV"), np.float64) / 255, 2, 0)
    grey = rgb @ (0.299, 0.587, 0.114)
    red_green, yellow_blue = rgb[..., 0] - rgb[..., 1], (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]
    across, down = np.diff(grey, axis=1), np.diff(grey, axis=0)
    detail = grey[1:-1, 1:-1] * 4 - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    hues = np.histogram(hue, bins=12, range=(0, 1), weights=saturation)[0] / max(saturation.sum(), 1e-9)
    entropy = -(hues[hues > 0] * np.log(hues[hues > 0])).sum()
    planes = (*np.moveaxis(rgb, 2, 0), saturation, value, red_green, yellow_blue, np.abs(across), np.abs(down), np.abs(detail))
    moments = [moment for plane in planes for moment in (plane.mean(), plane.std(), np.quantile(plane, 0.95))]
    return np.array([*moments, *np.quantile(grey, (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)), *np.sort(hues)[-6:], entropy])


def ridge_predictions(dimension: str) -> tuple[np.ndarray, np.ndarray]:
    """Prediction of the MOS of the test split by ridge regression on ``statistics``, learned from the train split.

    Returns:
        predicted and measured, [test images] each; the penalty is the best of ``PENALTIES`` by cross-validation.
    """
    x, y = _seen(dimension, "train")
    folds = np.arange(len(y)) % FOLDS

    def error(penalty: float) -> float:
        errors = [(_ridge(x[folds != f], y[folds != f], x[folds == f], penalty) - y[folds == f]) ** 2 for f in range(FOLDS)]
        return np.concatenate(errors).mean()

    tests, measured = _seen(dimension, "test")
    return _ridge(x, y, tests, min(PENALTIES, key=error)), measured


def _seen(dimension: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    mos = mean_opinions(dimension, split)
    return np.stack([statistics(Image.open(image_file(dimension, name))) for name in mos]), np.array(list(mos.values()))


def _ridge(x: np.ndarray, y: np.ndarray, wanted: np.ndarray, penalty: float) -> np.ndarray:
    """Ridge regression on standardised features, squares and an intercept."""
    centre, scale = x.mean(0), x.std(0) + 1e-9

    def features(rows: np.ndarray) -> np.ndarray:
        z = (rows - centre) / scale
        return np.concatenate([z, z**2], 1)

    known = features(x)
    weights = np.linalg.solve(known.T @ known + penalty * np.eye(known.shape[1]), known.T @ (y - y.mean()))
    return y.mean() + (features(wanted) - known.mean(0)) @ weights
