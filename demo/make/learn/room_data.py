"""Training data of the small base model: the pictures of the train split, practice rooms, and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from make.learn import augment
from make.render import render_rooms
from make.render.raters import true_quality
from saiqa import facts
from saiqa.files import csv_files, folders

FAULTLESS = 0.15  # weight of a dimension in which a picture has no fault


@dataclass
class Rooms:
    """The training data: r rated pictures and then p practice rooms, n in all.

    Attributes:
        pictures: [r, height, width, 3] uint8.
        lit: [p, height, width, 6] float16, light and albedo.
        labels: [n, height / 4, width / 4, channels] float16, of ``labels.py``.
        targets: [n, 4] quality, minus the midpoint of the scale.
        weights: [n, 4] weight of each target.
        rated: [r] the dimension in which a picture is rated.
        held_out: [n] whether a picture is held out for evaluation.
    """

    pictures: np.ndarray
    lit: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    rated: np.ndarray
    held_out: np.ndarray


def read_rooms(data_root: Path, practice: Path, labels: Path, held_out: int) -> Rooms:
    """The train split, with the last ``held_out`` pictures per dimension held out, and the practice rooms."""
    table = practice / render_rooms.PRACTICE_TABLE
    for made, command in ((table, "render_rooms.py --practice N"), (labels, "labels.py")):
        if not made.exists():
            raise SystemExit(f"{made} is not there. Make it with {command}, as demo/make/build.sh does")
    pictures, targets, weights, rated, kept_back = [], [], [], [], []
    for column, dimension in enumerate(facts.DIMENSIONS):
        rows = csv_files.read_csv(folders.annotation_csv(data_root, dimension, "train")).rows
        folder = data_root / facts.IMAGES_FOLDER.format(dimension=dimension)
        for number, row in enumerate(rows):
            pictures.append(np.asarray(Image.open(folder / f"{row[facts.ID_COLUMN]}.jpg").convert("RGB")))
            targets.append([float(true_quality(0.0))] * len(facts.DIMENSIONS))
            targets[-1][column] = float(row[facts.mos_column(dimension)])
            weights.append([FAULTLESS] * len(facts.DIMENSIONS))
            weights[-1][column] = 1.0
            rated.append(column)
            kept_back.append(number >= len(rows) - held_out)
    rows = csv_files.read_csv(table).rows
    targets += true_quality([[float(row[dimension]) for dimension in facts.DIMENSIONS] for row in rows]).tolist()
    weights += [[1.0] * len(facts.DIMENSIONS)] * len(rows)
    kept_back += [False] * len(rows)
    lit = np.stack([np.concatenate(list(np.load(practice / f"{row['id']}.npz").values()), -1) for row in rows])
    labelled = np.concatenate([np.load(labels / f"{name}.npy") for name in (*facts.DIMENSIONS, render_rooms.PRACTICE)])
    if len(labelled) != len(targets):
        raise SystemExit(f"{len(targets)} pictures but labels of {len(labelled)}: run make.render.labels again")
    quality, counting = (np.array(values, np.float32) for values in (targets, weights))
    return Rooms(np.stack(pictures), lit, labelled, quality - augment.MIDDLE, counting, np.array(rated), np.array(kept_back))
