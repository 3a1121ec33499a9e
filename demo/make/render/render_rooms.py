"""Renders the demo benchmark: rooms with known faults, in SA-BENCH's layout, and series of one room with increasing severity.

    python -m make.render.render_rooms [--output DIR] [--train N] [--val N] [--test N] [--series N] [--practice N] [--seed S]

Practice rooms, which are not rated and not in the benchmark, are for pretraining the vision tower. The light of each is stored
next to its picture (.npz): faults of the development step are added to it later, randomly in each training step.

A room depends on (seed, dimension, split, index), the severity of its fault also on the split's size: the same options give
the same bytes on the same machine. Existing pictures are kept, so an interrupted run continues; with other options, give an
empty folder.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pictures are rendered in parallel
import numpy as np
from PIL import Image

from make.render import faults, furniture, generator, raters
from make.render.rooms import Room
from saiqa import facts
from saiqa.progress import Progress

if TYPE_CHECKING:
    from make.render.picture import Studio  # imports the renderer, which is slow

FOLDER = Path(__file__).resolve().parents[2]  # demo/

WIDTH, HEIGHT = 224, 168
QUALITY = 84
SEED = 2026
SPLITS = ("train", "val", "test")
SERIES, PRACTICE, PRACTICE_TABLE = "series", "practice", "practice.csv"
SCENE_SETS = ("train", "val", SERIES, PRACTICE, "test")  # in the order of the seeds: append new ones at the end
SERIES_SEVERITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Of the practice rooms, independently in each dimension.
FAULTY_SHARE = {"distortion": 0.45, "harmony": 0.5, "layout": 0.65, "lighting": 0.15}
# After this many, the practice rooms repeat with the same faults at other severities, so that only the fault differs.
DIFFERENT_PRACTICE_ROOMS = 7000
# Lighting and distortion pictures show the same rooms, so both can use the same light.
SCENES = {"distortion": 0, "lighting": 0, "harmony": 1, "layout": 2, PRACTICE: 3}
PER_ROOM_SEED = 1 << 63

Scene = list[tuple[Path, Room]]  # its pictures: the file of each, and the room it shows


def scene_seed(seed: int, dimension: str, split: str, index: int) -> int:
    """The seed of everything about the room of one picture."""
    key = [seed, SCENES[dimension], SCENE_SETS.index(split), index]
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] % PER_ROOM_SEED)


def severities(seed: int, dimension: str, split: str, count: int) -> np.ndarray:
    """Severities [count] that cover 0..1 evenly, in random order."""
    rng = np.random.default_rng([seed, 7, list(facts.DIMENSIONS).index(dimension), SPLITS.index(split)])
    return rng.permutation((np.arange(count) + rng.uniform(0, 1, count)) / count)


def picture_id(dimension: str, split: str, index: int) -> str:
    """The id of a picture, unique in the benchmark."""
    return f"room_{dimension}_{split}_{index:04d}"


def practice_id(index: int) -> str:
    """The id of a practice picture."""
    return f"room_practice_{index:05d}"


@functools.cache  # used for the tables and again for the pictures
def describe(seed: int, dimension: str, split: str, index: int, severity: float) -> tuple[Room, tuple[str, ...]]:
    """The spoilt room of one picture and the kinds of its faults."""
    number = scene_seed(seed, dimension, split, index)
    rng = np.random.default_rng([number, 1, list(facts.DIMENSIONS).index(dimension)])
    return faults.spoil(generator.generate(number), faults.KINDS[dimension], severity, rng)


def describe_practice(seed: int, index: int) -> tuple[Room, dict[str, float]]:
    """The room of one practice picture, spoilt in any number of dimensions, and the severity in each."""
    turn, place = divmod(index, DIFFERENT_PRACTICE_ROOMS)
    number = scene_seed(seed, PRACTICE, PRACTICE, place)
    rng, of_turn = np.random.default_rng([number, 1]), np.random.default_rng([number, 2, turn])
    room, drawn = generator.generate(number), {}
    for dimension, share in FAULTY_SHARE.items():
        first, again = _practice_severity(share, rng), _practice_severity(share, of_turn)
        drawn[dimension] = again if turn else first  # rng also draws the faults: the same in every repetition
        kinds = [kind for kind in faults.KINDS[dimension] if kind not in faults.DEVELOPED.get(dimension, ())]
        room, _ = faults.spoil(room, kinds, drawn[dimension], rng)
    return room, drawn


def _practice_severity(share: float, rng: np.random.Generator) -> float:
    return float(rng.random()) if rng.random() < share else 0.0


def series_kinds(dimension: str, rooms_per_kind: int) -> list[faults.Kind]:
    """The one kind of fault of each series of a dimension."""
    return [kind for kind in faults.KINDS[dimension] for _ in range(rooms_per_kind)]


def describe_series(seed: int, dimension: str, number: int, kind: faults.Kind) -> list[Room]:
    """The rooms of one series, in the order of ``SERIES_SEVERITIES``."""
    scene = scene_seed(seed, dimension, SERIES, number)
    return [kind(generator.generate(scene), level, np.random.default_rng([scene, 1])) for level in SERIES_SEVERITIES]


# ---- pictures ------------------------------------------------------------------------------------------------------------


@functools.cache
def _studio(with_care: bool) -> Studio:
    from make.render import picture

    care = picture.Care() if with_care else picture.LITTLE_CARE
    return picture.Studio(furniture.Catalogue(furniture.find_archive()), WIDTH, HEIGHT, care)


def render(scene: Scene) -> int:
    """Draw the pictures of one scene, [(path, room)], and write each file atomically; returns their number."""
    for path, room in scene:
        _save(_studio(True).draw(room), path)
    return len(scene)


def render_practice(scene: Scene) -> int:
    """Draw one practice picture, [(path, room)], at lower quality, and store its light and albedo as float16 next to it."""
    from make.render import develop

    ((path, room),) = scene
    clean, stray, albedo = _studio(False).passes(room)
    light = np.minimum(develop.exposed(room, clean, stray), np.finfo(np.float16).max)
    np.savez(path.with_suffix(".npz"), light=light.astype(np.float16), albedo=albedo.astype(np.float16))
    _save(develop.develop(room, clean, stray, albedo), path)
    return 1


def _save(picture: Image.Image, path: Path) -> None:
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    picture.save(unfinished, "JPEG", quality=QUALITY, optimize=True)
    unfinished.rename(path)


def benchmark_scenes(output: Path, seed: int, counts: Mapping[str, int]) -> list[Scene]:
    """The pictures [(path, room)] of each scene of the benchmark, the test split first."""
    found = []
    for split in reversed(SPLITS):
        scenes: dict[tuple[int, int], list[tuple[Path, Room]]] = {}
        for dimension in facts.DIMENSIONS:
            folder = output / facts.IMAGES_FOLDER.format(dimension=dimension)
            for index, level in enumerate(severities(seed, dimension, split, counts[split])):
                room, _ = describe(seed, dimension, split, index, level)
                path = folder / f"{picture_id(dimension, split, index)}.jpg"
                scenes.setdefault((index, SCENES[dimension]), []).append((path, room))
        found += [scenes[key] for key in sorted(scenes)]
    return found


def practice_scenes(folder: Path, described: Iterable[tuple[Room, dict[str, float]]]) -> list[Scene]:
    """The picture [(path, room)] of each practice room."""
    return [[(folder / f"{practice_id(index)}.jpg", room)] for index, (room, _) in enumerate(described)]


def series_scenes(folder: Path, seed: int, rooms_per_kind: int) -> list[Scene]:
    """The pictures [(path, room)] of each series."""
    return [
        [
            (folder / dimension / f"{number:02d}_{kind.__name__}_{level:.2f}.jpg", room)
            for level, room in zip(SERIES_SEVERITIES, describe_series(seed, dimension, number, kind), strict=True)
        ]
        for dimension in facts.DIMENSIONS
        for number, kind in enumerate(series_kinds(dimension, rooms_per_kind))
    ]


def unfinished(scenes: Iterable[Scene]) -> list[Scene]:
    """The pictures of the scenes that are still to be drawn."""
    left = [[(path, room) for path, room in scene if not path.exists()] for scene in scenes]
    return [scene for scene in left if scene]


# ---- tables --------------------------------------------------------------------------------------------------------------


def write_annotations(output: Path, seed: int, counts: Mapping[str, int]) -> None:
    """The tables of ratings, and scenes.csv with the origin of every picture."""
    scenes = []
    folder = output / facts.ANNOTATIONS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for number, dimension in enumerate(facts.DIMENSIONS):
        for split in SPLITS:
            severity = severities(seed, dimension, split, counts[split])
            marks = raters.ratings(severity, np.random.default_rng([seed, 11, number, SPLITS.index(split)]))
            rows = []
            for index, (level, given) in enumerate(zip(severity, marks.tolist(), strict=True)):
                room, kinds = describe(seed, dimension, split, index, level)
                name, mos = picture_id(dimension, split, index), sum(given) / len(given)
                rows.append([name, *given, f"{mos:.2f}", math.floor(mos + 0.5), "rendered"])
                scenes.append([name, dimension, split, room.seed, room.kind, "+".join(kinds), f"{level:.4f}"])
            columns = [f"{dimension}_score_{rater + 1}" for rater in range(raters.RATERS)]
            header = ["id", *columns, f"{dimension}_score_mos", f"{dimension}_score_mos_int", "model"]
            write_table(folder / facts.annotation_csv(dimension, split), header, rows)
    write_table(folder / "scenes.csv", ["id", "dimension", "split", "scene_seed", "room", "faults", "severity"], scenes)


def write_series(folder: Path, scenes: Iterable[Scene]) -> None:
    """series.csv: the fault of every picture of the series."""
    rows = []
    for scene in scenes:
        for (path, room), level in zip(scene, SERIES_SEVERITIES, strict=True):
            number, kind = path.stem.rsplit("_", 1)[0].split("_", 1)
            rows.append([path.relative_to(folder).as_posix(), path.parent.name, number, kind, room.seed, f"{level:.2f}"])
    write_table(folder / "series.csv", ["image", "dimension", "series", "fault", "scene_seed", "severity"], rows)


def write_practice(folder: Path, described: Iterable[tuple[Room, dict[str, float]]]) -> None:
    """The table of the practice pictures: the severity of the faults of each, 0 where there is none."""
    rows = [
        [practice_id(index), *(f"{drawn[dimension]:.4f}" for dimension in facts.DIMENSIONS)]
        for index, (_, drawn) in enumerate(described)
    ]
    write_table(folder / PRACTICE_TABLE, ["id", *facts.DIMENSIONS], rows)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV atomically."""
    unfinished = path.with_suffix(".part")
    with open(unfinished, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    unfinished.rename(path)


def main() -> None:
    demo = FOLDER
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=demo, help="output folder of SA-BENCH/, series/ and practice/")
    parser.add_argument("--train", type=int, default=600, help="pictures per dimension in the train split")
    parser.add_argument("--val", type=int, default=120, help="pictures per dimension in the validation split")
    parser.add_argument("--test", type=int, default=120, help="pictures per dimension in the test split")
    parser.add_argument("--series", type=int, default=0, help="graded series per kind of fault, into series/")
    parser.add_argument("--practice", type=int, default=0, help="practice rooms, into practice/")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    counts = {split: getattr(arguments, split) for split in SPLITS}
    benchmark, series = arguments.output / facts.DATA_FOLDER, arguments.output / SERIES
    write_annotations(benchmark, arguments.seed, counts)
    graded = series_scenes(series, arguments.seed, arguments.series)
    described = [describe_practice(arguments.seed, index) for index in range(arguments.practice)]
    practice = practice_scenes(arguments.output / PRACTICE, described)
    scenes = [*benchmark_scenes(benchmark, arguments.seed, counts), *graded]
    for folder in {path.parent for scene in [*scenes, *practice] for path, _ in scene}:
        folder.mkdir(parents=True, exist_ok=True)
    if graded:
        write_series(series, graded)
    if practice:
        write_practice(arguments.output / PRACTICE, described)
    left, left_practice = unfinished(scenes), unfinished(practice)
    total = sum(map(len, left)) + len(left_practice)
    with ProcessPoolExecutor(arguments.workers) as pool, Progress(total, "rendering", unit="pictures") as progress:
        for count in itertools.chain(pool.map(render, left), pool.map(render_practice, left_practice)):
            progress.advance(count)


if __name__ == "__main__":
    main()
