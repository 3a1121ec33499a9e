"""Faults of layout: furniture in impossible places, of the wrong size, too little or too much of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from make.render import changes, furniture
from make.render.rooms import Placement, Room, overlapping, standing

LARGEST_SHIFT, LARGEST_TURN, LARGEST_TILT = (1.8, 1.5), 140, 50  # metres horizontally and in depth, degrees
DEEPEST_SUNK, LARGEST_LEAN = (0.4, 0.65), 25  # shares of the height, degrees
DEEPEST_SEEN = 0.66  # of the room's depth: pieces nearer to the camera may leave the picture or fill it


def floating(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Furniture that hangs in the air."""
    heights = rng.uniform(0.5, 1.1, len(room.items))

    def lift(i: int, item: Placement) -> dict[str, float]:
        clear = max(0.0, room.height - 0.1 - item.size[1])
        return {"y": item.y + severity * min(heights[i], clear)} if standing(item) else {}

    return changes.moved(room, lift)


def sunken(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Furniture sunk askew into the floor and the walls."""
    depths = rng.uniform(*DEEPEST_SUNK, len(room.items))
    leans = rng.uniform(0.5, 1, len(room.items)) * rng.choice([-LARGEST_LEAN, LARGEST_LEAN], len(room.items))

    def sink(i: int, item: Placement) -> dict[str, float]:
        if not standing(item):
            return {}
        towards = -1.0 if item.x < room.width / 2 else 1.0
        y, x = -severity * depths[i] * item.size[1], item.x + towards * 0.25 * severity
        return {"y": y, "x": x, "tilt": item.tilt + float(severity * leans[i])}

    return changes.moved(room, sink)


def jumbled(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Pieces of furniture pushed through each other, turned the wrong way and tipped over."""
    shifts = rng.uniform(-1, 1, (len(room.items), 2)) * LARGEST_SHIFT
    turns, tilts = (
        rng.uniform(0.4, 1, len(room.items)) * rng.choice([-largest, largest], len(room.items))
        for largest in (LARGEST_TURN, LARGEST_TILT)
    )

    def move(i: int, item: Placement) -> dict[str, float]:
        if not standing(item):
            return {}
        x = np.clip(item.x + severity * shifts[i, 0], min(item.x, 0.15 * room.width), max(item.x, 0.85 * room.width))
        z = np.clip(item.z + severity * shifts[i, 1], min(item.z, 0.08 * room.depth), max(item.z, 0.6 * room.depth))
        tilt = float(severity * tilts[i])
        raised = item.size[2] * item.scale[2] / 2 * abs(np.sin(np.deg2rad(tilt)))  # onto its lower edge
        return {
            "x": float(x),
            "z": float(z),
            "y": item.y + raised,
            "angle": item.angle + severity * turns[i],
            "tilt": item.tilt + tilt,
        }

    return changes.moved(room, move)


def wrong_scale(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Pieces far too large next to pieces far too small."""
    large = rng.uniform(size=len(room.items)) < 0.5

    def scale(i: int, item: Placement) -> dict[str, tuple[float, ...]]:
        if not standing(item):
            return {}
        near = item.z + item.size[2] / 2 > DEEPEST_SEEN * room.depth
        largest = min(2.0, (room.height - 0.1) / item.size[1], 0.75 * room.width / max(item.size[0], item.size[2]))
        factor = 1 + (largest - 1) * severity if large[i] and not near and largest > 1.3 else 1 - 0.6 * severity
        return {"scale": tuple(s * factor for s in item.scale)}

    return changes.moved(room, scale)


def crowded_to_a_side(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Everything pushed into one corner of the room."""
    x, z = rng.choice([0.16, 0.84]) * room.width, 0.25 * room.depth

    def move(_: int, item: Placement) -> dict[str, float]:
        if item.rides is not None or item.kind == "picture":
            return {}
        return {"x": item.x + (x - item.x) * 0.85 * severity, "z": item.z + (z - item.z) * 0.6 * severity}

    return changes.moved(room, move)


def too_empty(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Hardly anything in the room."""
    movable = [i for i, item in enumerate(room.items) if item.rides is None]
    gone = set(rng.permutation(movable)[: round(severity * (len(movable) - 1))].tolist())
    gone |= {i for i, item in enumerate(room.items) if item.rides in gone}
    kept = [i for i in range(len(room.items)) if i not in gone]
    place = {old: new for new, old in enumerate(kept)}
    items = (room.items[i] for i in kept)
    return replace(room, items=tuple(replace(i, rides=i.rides if i.rides is None else place[i.rides]) for i in items))


def too_full(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Twice the furniture that fits; pieces are added from back to front, so that each added one is visible."""
    extras: list[Placement] = []
    for _ in range(MOST_EXTRA_PIECES):
        model = rng.choice(furniture.of_kind(*FILLERS))  # type: ignore[arg-type]  # numpy's stubs accept no lists of objects
        extra = Placement(
            model.name,
            model.kind,
            model.size,
            0.0,
            0.0,
            float(rng.uniform(-180, 180)),
            soft=room.palette.accent,
            hard=room.palette.wood,
        )
        for _ in range(12):
            x, z = rng.uniform(0.08, 0.92) * room.width, rng.uniform(0.08, DEEPEST_SEEN) * room.depth
            extra = replace(extra, x=float(x), z=float(z))
            if not any(standing(other) and overlapping(extra.corners(), other.corners()) for other in (*room.items, *extras)):
                break
        extras.append(extra)
    extras.sort(key=lambda extra: extra.z)
    return replace(room, items=(*room.items, *extras[: round(severity * MOST_EXTRA_PIECES)]))


MOST_EXTRA_PIECES = 20
FILLERS = ("chair", "armchair", "plant", "low shelf", "bedside table", "desk chair", "speaker", "stool")
