"""A seeded generator of furnished rooms without faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from make.render import palettes
from make.render.furnishing import FURNISH
from make.render.rooms import BACK, LEFT, RIGHT, ROOM_TYPES, Camera, Light, Opening, Room

FEWEST_PIECES = 6


def generate(seed: int) -> Room:
    """A furnished room without faults; the same seed gives the same room."""
    rng = np.random.default_rng(seed)
    while True:
        room = _empty_room(rng, int(seed) if isinstance(seed, int | np.integer) else 0)
        items = FURNISH[room.kind](room, rng)
        if items is not None and len(items) >= FEWEST_PIECES:
            return replace(room, items=tuple(items))


def _empty_room(rng: np.random.Generator, seed: int) -> Room:
    width, depth, height = rng.uniform(3.7, 5.2), rng.uniform(4.3, 5.6), rng.uniform(2.45, 2.9)
    windows = _windows(rng, width, depth, height)
    eye = (width * rng.uniform(0.25, 0.75), rng.uniform(1.35, 1.7), depth - 0.12)
    target = (width * rng.uniform(0.4, 0.6), rng.uniform(0.65, 0.9), depth * rng.uniform(0.2, 0.35))
    return Room(
        kind=str(rng.choice(ROOM_TYPES)),
        seed=seed,
        width=width,
        depth=depth,
        height=height,
        style=str(rng.choice(["modern", "classic"])),
        palette=palettes.coordinated(rng),
        floor=str(rng.choice(["planks", "planks", "planks", "tiles", "carpet"])),
        wall=str(rng.choice(["plaster", "plaster", "plaster", "stripes"])),
        windows=windows,
        door=_door(rng, windows, width, depth),
        camera=Camera(eye, target, rng.uniform(62, 75)),
        light=_light(rng, windows[0].wall),
    )


def _windows(rng: np.random.Generator, width: float, depth: float, height: float) -> tuple[Opening, ...]:
    """One or two windows of the same height on different walls; the sun comes through the first."""
    walls = rng.permutation([BACK, LEFT, RIGHT])[: rng.integers(1, 3)]
    bottom = float(rng.choice([0.12, 0.85, 0.95]))
    top = min(height - 0.25, 2.25)
    found = []
    for wall in walls:
        span = rng.uniform(1.0, 1.8)
        room_for_it = width if wall == BACK else depth - 1.6
        found.append(Opening(str(wall), rng.uniform(0.4, room_for_it - span - 0.4), span, bottom, top - bottom))
    return tuple(found)


def _door(rng: np.random.Generator, windows: Sequence[Opening], width: float, depth: float) -> Opening | None:
    free = [wall for wall in (BACK, LEFT, RIGHT) if wall not in [window.wall for window in windows]]
    if rng.uniform() < 0.35:
        return None
    wall = str(rng.choice(free))
    return Opening(wall, rng.uniform(0.3, (width if wall == BACK else depth - 1.2) - 1.2), 0.86, 0.0, 2.05)


def _light(rng: np.random.Generator, wall: str) -> Light:
    sun = None
    if rng.uniform() < 0.65:
        across, down, side = 1.0, rng.uniform(0.55, 1.0), rng.uniform(-0.5, 0.5)
        sun = {BACK: (side, -down, across), LEFT: (across, -down, side), RIGHT: (-across, -down, side)}[wall]
    warmth = rng.uniform(-0.06, 0.06)
    return Light(
        sky=rng.uniform(5.0, 8.0),
        sky_tint=(1 + warmth, 1.0, 1 - warmth),
        sun=sun,
        sun_level=rng.uniform(12, 26),
        lamps=rng.uniform(5.0, 11.0),
        exposure_stops=rng.uniform(-0.2, 0.2),
    )
