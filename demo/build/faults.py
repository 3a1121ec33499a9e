"""Faults of a room in one dimension, dialled from 0 (none) to 1 (obvious to anybody).

Each kind is a function of (room, severity, rng) to the spoilt room. What it does grows with the severity; where and in which
direction is drawn from ``rng``. Everything else about the room (palette, camera, size, furniture, daylight) was drawn before
and knows nothing of the severity.
"""

from dataclasses import replace

import numpy as np
import palettes
from rooms import FLAT, Bend, Room, standing

# ---- distortion ----------------------------------------------------------------------------------------------------------


def bent_furniture(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Furniture twisted, sheared, wavy and sagging."""

    def bend():
        twist, shear, wave, melt = rng.uniform(0.5, 1, 4) * severity * rng.permutation([1, 1, 0.5, 0.25])
        return Bend(
            twist=55 * twist * rng.choice([-1, 1]),
            shear=tuple(0.55 * shear * rng.uniform(-1, 1, 2)),
            wave=0.16 * wave,
            melt=0.7 * melt,
            phase=rng.uniform(0, 6.28),
        )

    return replace(room, items=tuple(item if item.kind in FLAT else replace(item, bend=bend()) for item in room.items))


def bulging_walls(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Walls, floor and ceiling lines that are not straight."""
    return _spoilt(room, wall_bulge=0.26 * severity, wall_waves=rng.uniform(0.8, 1.6))


def warped_picture(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Local swirls and swellings of the picture, as image generators make them."""
    return _spoilt(room, warp=severity)


def smeared_picture(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Stretched patches in which texture is drawn out."""
    return _spoilt(room, smear=severity)


# ---- harmony -------------------------------------------------------------------------------------------------------------


def clashing_furniture(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Furniture in saturated colours from all around the circle."""
    colours = palettes.clashing_colours(rng, 2 * len(room.items))
    items = tuple(
        replace(
            item,
            soft=palettes.mixed(item.soft, colours[2 * i], severity),
            hard=palettes.mixed(item.hard, colours[2 * i + 1], 0.8 * severity),
        )
        for i, item in enumerate(room.items)
    )
    return replace(room, items=items)


def clashing_shell(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Walls, floor, curtains and pictures that fight with each other and with the furniture."""
    old = room.palette
    wall, floor, curtain, rug, accent, textile = palettes.clashing_colours(rng, 6)
    palette = replace(
        old,
        wall=palettes.mixed(old.wall, wall, 0.85 * severity),
        floor=palettes.mixed(old.floor, floor, 0.6 * severity),
        curtain=palettes.mixed(old.curtain, curtain, severity),
        art=tuple(palettes.mixed(a, b, severity) for a, b in zip(old.art, (rug, accent, textile, wall, floor), strict=True)),
    )
    rugs = tuple(
        replace(item, soft=palettes.mixed(item.soft, rug, severity), hard=palettes.mixed(item.hard, accent, severity))
        if item.kind in FLAT
        else item
        for item in room.items
    )
    return replace(room, palette=palette, items=rugs)


# ---- layout --------------------------------------------------------------------------------------------------------------


def floating(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Furniture that hangs in the air."""
    heights = {i: severity * rng.uniform(0.35, 1.1) for i, item in enumerate(room.items) if standing(item)}
    return _moved(room, lambda i, item: {"y": item.y + heights.get(i, 0.0)})


def jumbled(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Furniture pushed through each other and the walls, and turned the wrong way."""
    shifts = {i: rng.uniform(-1, 1, 2) * 1.9 * severity for i, item in enumerate(room.items) if standing(item)}
    turns = {i: rng.uniform(0.5, 1) * rng.choice([-150, 150]) * severity for i in shifts}

    def move(i, item):
        dx, dz = shifts.get(i, (0, 0))
        return {"x": item.x + dx, "z": item.z + dz, "angle": item.angle + turns.get(i, 0.0)}

    return _moved(room, move)


def wrong_scale(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Pieces far too large beside pieces far too small."""
    factors = {}
    for i, item in enumerate(room.items):
        if standing(item):
            factors[i] = (1 + 0.9 * severity) if rng.uniform() < 0.5 else (1 - 0.6 * severity)
    return _moved(room, lambda i, item: {"scale": tuple(s * factors.get(i, 1.0) for s in item.scale)})


def crowded_to_a_side(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Everything pushed into one half of the room."""
    side = rng.choice([0.12, 0.88]) * room.width

    def move(i, item):
        return {"x": item.x + (side - item.x) * 0.8 * severity} if standing(item) else {}

    return _moved(room, move)


# ---- lighting ------------------------------------------------------------------------------------------------------------


def too_dark(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Underexposed."""
    return _spoilt(room, stops=DARKEST_STOPS * severity)


def too_bright(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Overexposed: windows and light surfaces burn out."""
    return _spoilt(room, stops=BRIGHTEST_STOPS * severity)


def flat_light(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Light without shadow or direction."""
    return _spoilt(room, flat=0.95 * severity)


def colour_cast(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Light of a colour no lamp has."""
    tint = TINTS[rng.integers(len(TINTS))]
    return _spoilt(room, cast=tuple(1 + (t - 1) * severity for t in tint))


def stray_light(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Hard beams from nowhere, against the windows."""
    beams = []
    for _ in range(3):
        origin = (rng.uniform(0.2, 0.8) * room.width, room.height - 0.05, rng.uniform(0.5, 0.9) * room.depth)
        target = (rng.uniform(0, 1) * room.width, rng.uniform(0, 1.2), rng.uniform(0, 0.4) * room.depth)
        level = 130.0 * severity
        beams.append((origin, target, (level, level * 0.95, level * 0.85), rng.uniform(14, 24)))
    return _spoilt(room, stray=tuple(beams) if severity > 0 else ())


DARKEST_STOPS, BRIGHTEST_STOPS = -3.6, 3.4
TINTS = ((0.45, 1.25, 0.5), (1.25, 0.5, 1.2), (0.4, 0.75, 1.6), (1.6, 0.75, 0.3))

KINDS = {
    "distortion": (bent_furniture, bulging_walls, warped_picture, smeared_picture),
    "harmony": (clashing_furniture, clashing_shell),
    "layout": (floating, jumbled, wrong_scale, crowded_to_a_side),
    "lighting": (too_dark, too_bright, flat_light, colour_cast, stray_light),
}
EXCLUDE_EACH_OTHER = ({"too_dark", "too_bright"},)


def spoil(room: Room, dimension: str, severity: float, rng: np.random.Generator) -> tuple[Room, tuple[str, ...]]:
    """The room with one or two kinds of fault of a dimension at this severity, and the names of the kinds."""
    kinds = _chosen(KINDS[dimension], rng)
    for kind in kinds:
        room = kind(room, float(severity), rng)
    return room, tuple(kind.__name__ for kind in kinds)


def _chosen(kinds, rng):
    """One kind, or two that go together."""
    while True:
        chosen = [kinds[i] for i in rng.permutation(len(kinds))[: rng.integers(1, 3)]]
        names = {kind.__name__ for kind in chosen}
        if not any(pair <= names for pair in EXCLUDE_EACH_OTHER):
            return chosen


def _spoilt(room, **values):
    return replace(room, spoil=replace(room.spoil, **values))


def _moved(room, change):
    """The room with ``change(index, item)`` applied to each piece; what stands on a piece moves along with it."""
    changed = {i: replace(item, **change(i, item)) for i, item in enumerate(room.items) if item.rides is None}
    for i, item in enumerate(room.items):
        if item.rides is not None:
            before, after = room.items[item.rides], changed.get(item.rides, room.items[item.rides])
            top = before.y + before.size[1] * before.scale[1]
            raised = after.y + after.size[1] * after.scale[1] - top
            changed[i] = replace(item, x=item.x + after.x - before.x, y=item.y + raised, z=item.z + after.z - before.z)
    return replace(room, items=tuple(changed[i] for i in range(len(room.items))))


