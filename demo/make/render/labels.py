"""Dense labels from the renderer for every place of a picture: what is there, its orientation, and what is wrong with it.

The small base model's vision tower is pretrained on these labels in addition to the quality of the whole picture: one number
per picture is too little to train a tower on a few hundred pictures.

    python -m make.render.labels [--data_root DIR] [--practice DIR] [--output DIR] [--workers N]

Writes float16 arrays [pictures, rows, columns, channels], rows and columns a quarter of the picture's: one for the train split
of each dimension, one for the practice rooms that ``render_rooms.py --practice`` has drawn. Test rooms and series get none.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pictures are processed in parallel
import numpy as np

from make.render import develop, furniture, generator, render_rooms, scene
from make.render.distortion_faults import LARGEST_BULGE, LARGEST_MELT, LARGEST_SHEAR, LARGEST_TWIST, LARGEST_WAVE
from make.render.layout_faults import LARGEST_SHIFT, LARGEST_TILT, LARGEST_TURN
from make.render.meshes import Part
from make.render.rooms import Bend, Cover, Placement, Room
from saiqa import facts
from saiqa.files import csv_files, folders
from saiqa.progress import Progress

FOLDER = Path(__file__).resolve().parents[2]  # demo/

COARSER = 4
IDS = 256  # distinguishable things in one room
SEEN = ("piece", "floor", "wall")
LIE = ("normal x", "normal y", "normal z", "height", "depth", "distance")
WRONG = ("scale", "raised", "sunk", "moved", "bent", "covered", "recoloured")
WARPED = ("stretch", "area")
CHANNELS = (*SEEN, *LIE, *WRONG, *WARPED)
METRES = 4.0  # lengths are given in this unit

Thing = tuple[list[Part], tuple[float, ...]]  # its parts, and the values of SEEN and WRONG


def labels(room: Room, clean: Room, catalogue: furniture.Catalogue, width: int, height: int) -> np.ndarray:
    """Labels [height / 4, width / 4, len(CHANNELS)] of a spoilt room, given the same room without faults."""
    things = _things(room, clean, catalogue)
    numbered = [_plain(part, number) for number, (parts, _) in enumerate(things) for part in parts]
    colours, normals, positions, distance = _first_hits(room, numbered, width, height)
    number = np.round(colours[..., 0] * IDS).astype(int)
    known = np.array([values for _, values in things], np.float32)[number]
    seen, wrong = np.split(known, [len(SEEN)], axis=-1)
    picture = np.concatenate([seen, normals, positions[..., 1:] / METRES, distance / METRES, wrong], -1)
    if room.spoil.warp or room.spoil.ripple or room.spoil.smear:
        picture = develop.warped(picture, room.spoil, develop.warp_generator(room))
        source = develop.sources(height, width, room.spoil, develop.warp_generator(room))
        picture = np.concatenate([picture, warp_labels(*source)], -1)
    else:
        picture = np.concatenate([picture, np.zeros((height, width, len(WARPED)))], -1)
    return picture.reshape(height // COARSER, COARSER, width // COARSER, COARSER, -1).mean((1, 3)).astype(np.float16)


def warp_labels(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How a picture sampled at x and y, (rows, columns) each in pixels, is stretched there: (rows, columns, 2)."""
    (x_down, x_across), (y_down, y_across) = np.gradient(x), np.gradient(y)
    stretch = np.sqrt((x_across - 1) ** 2 + x_down**2 + y_across**2 + (y_down - 1) ** 2)
    area = np.abs(x_across * y_down - x_down * y_across)
    return np.stack([np.minimum(stretch, 2), np.clip(np.log(area + 0.05), -3, 1)], -1)


def _first_hits(room: Room, parts: Sequence[Part], width: int, height: int) -> list[np.ndarray]:
    from make.render import tracer

    view = tracer.View(room.camera.eye, room.camera.target, room.camera.fov, width, height)
    world = tracer.scene(tracer.camera(view), tracer.assemble(parts, lambda material: None))
    return tracer.first_hits(world, room.seed % 2**31)


def _plain(part: Part, number: int) -> Part:
    return part.looking(rgb=(number / IDS, 0.0, 0.0), texture=None, gloss=0.0, opacity=1.0, emission=None)


def _things(room: Room, clean: Room, catalogue: furniture.Catalogue) -> list[Thing]:
    """(parts, the values of ``SEEN`` and ``WRONG``) for everything in the room."""
    shell, bulge = scene.shell_parts(room), min(1.0, room.shell.bulge / LARGEST_BULGE)

    def of_shell(
        seen: tuple[int, int, int],
        names: Collection[str],
        cover: Cover | None = None,
        now: Sequence[float] = (),
        before: Sequence[float] = (),
    ) -> Thing:
        parts = [part for part in shell if part.name in names]
        return parts, (*seen, 0, 0, 0, 0, bulge, cover.share if cover else 0, _difference(now, before))

    new, old, named = room.palette, clean.palette, ("wall", "front", "floor", "curtain")
    things = [
        of_shell((0, 0, 1), ("wall", "front"), room.shell.wall, new.wall, old.wall),
        of_shell((0, 1, 0), ("floor",), room.shell.floor, new.floor, old.floor),
        of_shell((0, 0, 0), ("curtain",), None, new.curtain, old.curtain),
        of_shell((0, 0, 0), {part.name for part in shell} - set(named)),
    ]
    pieces = zip(room.items, _counterparts(room, clean), scene.piece_parts(room, catalogue), strict=True)
    return things + [(parts, (1, 0, 0, *_faults(item, before, bulge))) for item, before, parts in pieces]


def _counterparts(room: Room, clean: Room) -> list[Placement | None]:
    """For each piece of a room the same piece without faults; None for a surplus piece."""
    if len(room.items) >= len(clean.items):
        return [*clean.items, *[None] * (len(room.items) - len(clean.items))]
    left, found = list(clean.items), []
    for item in room.items:
        alike = [before for before in left if before.model == item.model] or left
        found.append(next((before for before in alike if (before.x, before.z) == (item.x, item.z)), alike[0]))
        left.remove(found[-1])
    return found


def _faults(item: Placement, before: Placement | None, bulge: float) -> tuple[float, ...]:
    """The values of ``WRONG`` for a piece that is ``before`` without faults."""
    cover = item.cover.share if item.cover else 0
    if before is None:
        return (0, 0, 0, 1, bulge, cover, 0)
    turned = abs((item.angle - before.angle + 180) % 360 - 180) / LARGEST_TURN
    shifted = np.hypot(item.x - before.x, item.z - before.z) / min(LARGEST_SHIFT)
    moved = max(turned, shifted, abs(item.tilt - before.tilt) / LARGEST_TILT)
    recoloured = max(_difference(item.soft, before.soft), _difference(item.hard, before.hard))
    return (
        np.log2(item.scale[1] / before.scale[1]),
        max(0.0, item.y - before.y),
        max(0.0, before.y - item.y),
        min(1.0, moved),
        max(bulge, _bend(item.bend)),
        cover,
        1.0 if item.model != before.model else recoloured,
    )


def _bend(bend: Bend | None) -> float:
    """How bent a piece is, 0..1."""
    if bend is None:
        return 0.0
    shares = (
        abs(bend.twist) / LARGEST_TWIST,
        np.hypot(*bend.shear) / LARGEST_SHEAR,
        bend.wave / LARGEST_WAVE,
        bend.melt / LARGEST_MELT,
    )
    return min(1.0, sum(shares) / 2.5)


def _difference(colour: Sequence[float], other: Sequence[float]) -> float:
    return float(np.abs(np.subtract(colour, other)).max(initial=0.0))


# ---- all pictures --------------------------------------------------------------------------------------------------------


@functools.cache
def _catalogue() -> furniture.Catalogue:
    return furniture.Catalogue(furniture.find_archive())


def _of_picture(name: str, count: int, index: int) -> np.ndarray:
    """Labels of one of ``count`` pictures: of a dimension's train split, or of the practice rooms."""
    if name == render_rooms.PRACTICE:
        room, _ = render_rooms.describe_practice(render_rooms.SEED, index)
    else:
        severity = render_rooms.severities(render_rooms.SEED, name, "train", count)[index]
        room, _ = render_rooms.describe(render_rooms.SEED, name, "train", index, severity)
    return labels(room, generator.generate(room.seed), _catalogue(), render_rooms.WIDTH, render_rooms.HEIGHT)


def main() -> None:
    demo = FOLDER
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data_root", type=Path, default=folders.roots(demo=True).data)
    parser.add_argument("--practice", type=Path, default=demo / render_rooms.PRACTICE)
    parser.add_argument("--output", type=Path, default=demo / "labels")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    tables = {name: folders.annotation_csv(arguments.data_root, name, "train") for name in facts.DIMENSIONS}
    tables[render_rooms.PRACTICE] = arguments.practice / render_rooms.PRACTICE_TABLE
    with ProcessPoolExecutor(arguments.workers) as pool:
        for name, table in tables.items():
            made, count = [], len(csv_files.read_csv(table).rows)
            with Progress(count, f"labelling {name}", unit="pictures") as progress:
                for one in pool.map(functools.partial(_of_picture, name, count), range(count), chunksize=8):
                    made.append(one)
                    progress.advance()
            np.save(arguments.output / f"{name}.npy", np.stack(made))


if __name__ == "__main__":
    main()
