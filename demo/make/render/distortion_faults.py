"""Faults of distortion: bent furniture and walls, wrong materials, pictures out of shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from make.render import changes, textures
from make.render.rooms import FLAT, Bend, Cover, Room

LARGEST_TWIST, LARGEST_SHEAR, LARGEST_WAVE, LARGEST_MELT = 75, 0.75, 0.2, 0.75  # twist in degrees
LARGEST_BULGE = 0.42


def bent_furniture(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Furniture twisted, sheared, wavy and sagging."""

    def bend() -> Bend:
        twist, shear, wave, melt = rng.uniform(0.6, 1, 4) * severity * rng.permutation([1, 1, 0.5, 0.25])
        return Bend(
            twist=LARGEST_TWIST * twist * rng.choice([-1, 1]),
            shear=tuple(LARGEST_SHEAR * shear * rng.uniform(0.5, 1, 2) * rng.choice([-1, 1], 2)),
            wave=LARGEST_WAVE * wave,
            melt=LARGEST_MELT * melt,
            phase=rng.uniform(0, 6.28),
        )

    return replace(room, items=tuple(item if item.kind in FLAT else replace(item, bend=bend()) for item in room.items))


def bulging_walls(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Walls, floor and ceiling lines that are not straight."""
    return changes.reshelled(room, bulge=LARGEST_BULGE * severity, waves=rng.uniform(0.9, 1.6))


def wrong_material(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Walls, floor or furniture of an impossible material: bricks, grass, rust, water."""
    first, second = (str(name) for name in rng.permutation(textures.ODD)[:2])
    room = changes.reshelled(room, **{str(rng.choice(["wall", "floor"])): Cover(first, 0.9 * severity)})
    covered = rng.uniform(size=len(room.items)) < 0.7
    items = (
        replace(item, cover=Cover(second, 0.9 * severity)) if odd else item
        for item, odd in zip(room.items, covered, strict=True)
    )
    return replace(room, items=tuple(items))


def warped_picture(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Local swirls and swellings of the picture, as image generators make them."""
    return changes.spoilt(room, warp=severity)


def rippled_picture(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Straight lines that wave through the whole picture."""
    return changes.spoilt(room, ripple=severity)


def smeared_picture(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Patches with stretched texture."""
    return changes.spoilt(room, smear=severity)
