"""Renders the demo benchmark: rooms with known faults, in the layout of SA-BENCH.

    python demo/build/render_rooms.py [--output DIR] [--train N] [--test N] [--seed S] [--workers N]

A room depends on (seed, dimension, split, index), the severity of its fault also on the split's size: the same options give
the same bytes on the same machine. Pictures that are there already are kept, so an interrupted run continues; with other
options, give an empty folder.
"""

import argparse
import csv
import math
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pictures run side by side
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tools")]

import faults
import furniture
import numpy as np
import raters
import rooms

import prompt_configs as facts
from local_progress import Progress

SIZE = (256, 192)
QUALITY = 86
SPLITS = ("train", "test")
PER_ROOM_SEED = 1 << 63


def scene_seed(seed, dimension, split, index):
    """The number from which everything about one picture is drawn."""
    key = [seed, list(facts.DIMENSIONS).index(dimension), SPLITS.index(split), index]
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] % PER_ROOM_SEED)


def severities(seed, dimension, split, count):
    """Severities [count] that cover 0..1 evenly, in random order."""
    rng = np.random.default_rng([seed, 7, list(facts.DIMENSIONS).index(dimension), SPLITS.index(split)])
    return rng.permutation((np.arange(count) + rng.uniform(0, 1, count)) / count)


def picture_id(dimension, split, index):
    """The id of a picture, unique in the benchmark."""
    return f"room_{dimension}_{split}_{index:04d}"


def describe(seed, dimension, split, index, severity):
    """The spoilt room of one picture and the kinds of its faults."""
    number = scene_seed(seed, dimension, split, index)
    return faults.spoil(rooms.generate(number), dimension, severity, np.random.default_rng([number, 1]))


def render(job):
    """Draw one picture into its file, whole or not at all."""
    path, archive, seed, dimension, split, index, severity = job
    import picture

    global _catalogue
    _catalogue = globals().get("_catalogue") or furniture.Catalogue(archive)
    room, _ = describe(seed, dimension, split, index, severity)
    drawn = picture.draw(room, _catalogue, *SIZE, room.seed % 2**31)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    drawn.save(unfinished, "JPEG", quality=QUALITY, optimize=True)
    unfinished.rename(path)


def write_annotations(output, seed, counts):
    """The tables of ratings, and scenes.csv: where every picture comes from."""
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
            _write(folder / facts.annotation_csv(dimension, split), header, rows)
    _write(folder / "scenes.csv", ["id", "dimension", "split", "scene_seed", "room", "faults", "severity"], scenes)


def _write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def main():
    demo = HERE.parent / facts.DATA_FOLDER
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=demo)
    parser.add_argument("--train", type=int, default=160, help="pictures a dimension in the train split")
    parser.add_argument("--test", type=int, default=48, help="pictures a dimension in the test split")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--furniture", type=Path, help="where the furniture package is or goes")
    arguments = parser.parse_args()
    counts = {"train": arguments.train, "test": arguments.test}
    write_annotations(arguments.output, arguments.seed, counts)
    archive = furniture.find_archive(arguments.furniture)
    jobs = []
    for split in reversed(SPLITS):
        for dimension in facts.DIMENSIONS:
            folder = arguments.output / facts.IMAGES_FOLDER.format(dimension=dimension)
            folder.mkdir(parents=True, exist_ok=True)
            for index, level in enumerate(severities(arguments.seed, dimension, split, counts[split])):
                path = folder / f"{picture_id(dimension, split, index)}.jpg"
                if not path.exists():
                    jobs.append((path, archive, arguments.seed, dimension, split, index, level))
    with ProcessPoolExecutor(arguments.workers) as pool, Progress(len(jobs), "rendering", unit="pictures") as progress:
        for _ in pool.map(render, jobs):
            progress.advance()


if __name__ == "__main__":
    main()
