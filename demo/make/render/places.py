"""The places of the faults in a picture, computed from the room's geometry without ray tracing.

    python -m make.render.places [--splits val test] [--data_root DIR] [--output FILE] [--workers N]

Writes one .npz of the benchmark's pictures in which every fault has a place: ``ids`` and ``kinds`` as text, and ``places``,
bits [pictures, rows, columns] packed along the last axis, rows and columns a quarter of the picture's. The place of a fault is
where its strength (``labels.WRONG``, or a stray beam's light) is at least half of its maximum in that picture.
Needs mitsuba and a second per picture.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pictures are processed in parallel
import numpy as np

from make.render import generator, labels, render_rooms, scene
from make.render.rooms import Room
from saiqa import facts
from saiqa.files import csv_files, folders
from saiqa.progress import Progress

FILE = labels.FOLDER / "places.npz"
STRONG = 0.5  # of the maximum in the picture
# The label channels that show a kind of fault; None for light, which has no channel.
CHANNELS = {
    "bent_furniture": ("bent",),
    "wrong_material": ("covered",),
    "clashing_furniture": ("recoloured",),
    "mixed_styles": ("recoloured",),
    "floating": ("raised",),
    "sunken": ("sunk",),
    "jumbled": ("moved",),
    "wrong_scale": ("scale",),
    "stray_light": None,
}


def places(room: Room, kinds: Sequence[str]) -> np.ndarray:
    """Where the faults of these kinds are, bool [height / 4, width / 4]."""
    known = labels.labels(room, generator.generate(room.seed), labels._catalogue(), render_rooms.WIDTH, render_rooms.HEIGHT)
    found = np.zeros(known.shape[:2], bool)
    for kind in kinds:
        channels = CHANNELS[kind]
        wrong = (
            _lit(room) if channels is None else np.abs(known[..., [labels.CHANNELS.index(name) for name in channels]]).max(-1)
        )
        found |= (wrong >= STRONG * wrong.max()) & (wrong > 0)
    return found


def _lit(room: Room) -> np.ndarray:
    """The share of each cell that a stray beam reaches, [height / 4, width / 4]."""
    from make.render import tracer

    size = render_rooms.WIDTH, render_rooms.HEIGHT
    parts = scene.parts_of(room, labels._catalogue())
    view = tracer.View(room.camera.eye, room.camera.target, room.camera.fov, *size)
    world = tracer.scene(tracer.camera(view), tracer.assemble(parts, lambda material: None))
    _, normals, positions, _ = tracer.first_hits(world, room.seed % 2**31)
    lit = np.zeros(positions.shape[:2], bool)
    for origin, target, _, cutoff in room.spoil.stray:
        towards, axis = np.asarray(origin) - positions, np.subtract(target, origin)
        distance = np.linalg.norm(towards, axis=-1)
        along = -(towards @ axis) / (distance * np.linalg.norm(axis))
        inside = (along > np.cos(np.deg2rad(cutoff))) & ((normals * towards).sum(-1) > 0)
        lit |= inside & ~tracer.hidden(world, positions + 1e-3 * normals, origin)
    coarse = labels.COARSER
    return lit.reshape(size[1] // coarse, coarse, size[0] // coarse, coarse).mean((1, 3))


class Placed(NamedTuple):
    """A picture in which every fault has a place: its id, the kinds of its faults, and its room."""

    id: str
    kinds: tuple[str, ...]
    room: Room


def placed(seed: int, dimension: str, split: str, count: int, kinds: Collection[str], least: float = 0) -> Iterator[Placed]:
    """The pictures of a split, out of ``count``, whose faults are all of these kinds, with at least this severity."""
    for index, severity in enumerate(render_rooms.severities(seed, dimension, split, count)):
        if severity < least:
            continue
        room, found = render_rooms.describe(seed, dimension, split, index, severity)
        if set(found) <= set(kinds):
            yield Placed(render_rooms.picture_id(dimension, split, index), found, room)


def of_demo(data_root: Path, split: str) -> Iterator[Placed]:
    """The demo's pictures of a split in which every fault has a place."""
    for dimension in facts.DIMENSIONS:
        count = len(csv_files.read_csv(folders.annotation_csv(data_root, dimension, split)).rows)
        yield from placed(render_rooms.SEED, dimension, split, count, CHANNELS)


def write(output: Path, found: Sequence[Placed], workers: int | None) -> None:
    """Locate the faults of the pictures, and write their places."""
    ids, kinds, rooms = zip(*found, strict=True)
    made = []
    with ProcessPoolExecutor(workers) as pool, Progress(len(found), "locating faults", unit="pictures") as progress:
        for one in pool.map(places, rooms, kinds, chunksize=4):
            made.append(np.packbits(one, axis=-1))
            progress.advance()
    np.savez_compressed(output, ids=ids, kinds=["+".join(names) for names in kinds], places=np.stack(made))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--splits", nargs="+", choices=render_rooms.SPLITS, default=["val", "test"])
    parser.add_argument("--data_root", type=Path, default=folders.roots(demo=True).data)
    parser.add_argument("--output", type=Path, default=FILE)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    found = list(itertools.chain.from_iterable(of_demo(arguments.data_root, split) for split in arguments.splits))
    write(arguments.output, found, arguments.workers)


if __name__ == "__main__":
    main()
