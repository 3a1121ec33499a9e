"""Pieces built from simple solids that are not in the furniture archive: low table, sideboard, lamps, rug, picture.

Each builder gets (placement, lamp emission, generator) and returns parts in the piece's own frame: standing on y = 0, centred,
front towards +z, metres.
"""

from __future__ import annotations

import numpy as np

from make.render import textures
from make.render.meshes import Material, Part, box, lathe, sheet
from make.render.rooms import Placement


def _legs(width: float, depth: float, height: float, thick: float, material: Material) -> list[Part]:
    return [
        box((thick, height, thick), (sx * (width / 2 - thick), height / 2, sz * (depth / 2 - thick)), material)
        for sx in (-1, 1)
        for sz in (-1, 1)
    ]


def coffee_table(item: Placement, _lamp: tuple[float, ...], rng: np.random.Generator) -> list[Part]:
    """A low table: square with legs, or round on a foot."""
    width, height, depth = item.size
    wood = Material(item.hard, gloss=0.3)
    if rng.uniform() < 0.3:
        radius = min(width, depth) / 2
        profile = [
            (0, 0),
            (radius * 0.6, 0),
            (radius * 0.6, 0.03),
            (0.05, 0.05),
            (0.05, height - 0.04),
            (radius, height - 0.04),
            (radius, height),
            (0, height),
        ]
        return [lathe(profile, (0, 0, 0), wood)]
    return [
        box((width, 0.05, depth), (0, height - 0.025, 0), wood),
        box((width - 0.12, 0.02, depth - 0.12), (0, 0.13, 0), wood),
    ] + _legs(width, depth, height - 0.05, 0.05, wood)


def sideboard(item: Placement, _lamp: tuple[float, ...], _rng: np.random.Generator) -> list[Part]:
    """A low cabinet with doors, on short legs."""
    width, height, depth = item.size
    wood, dark = Material(item.hard, gloss=0.1), Material(tuple(c * 0.35 for c in item.hard))
    body = height - 0.12
    parts = [box((width, body, depth), (0, 0.12 + body / 2, 0), wood, "body")]
    for i in range(3):
        centre = (i - 1) * width / 3
        parts.append(box((width / 3 - 0.02, body - 0.04, 0.012), (centre, 0.12 + body / 2, depth / 2), wood, "door"))
        parts.append(box((0.1, 0.015, 0.02), (centre, height - 0.08, depth / 2 + 0.012), dark, "handle"))
    return parts + _legs(width, depth, 0.12, 0.05, dark)


def floor_lamp(item: Placement, lamp: tuple[float, ...], _rng: np.random.Generator) -> list[Part]:
    """A standing lamp with a glowing shade."""
    width, height, _ = item.size
    metal = Material((0.12, 0.11, 0.1), gloss=0.5)
    stem = [(0, 0), (0.14, 0), (0.14, 0.02), (0.012, 0.03), (0.012, height - 0.05)]
    shade = [(width / 2, height - 0.34), (width * 0.36, height)]
    return [lathe(stem, (0, 0, 0), metal, 16), lathe(shade, (0, 0, 0), Material(item.soft, emission=lamp), 20, "shade")]


def pendant(item: Placement, lamp: tuple[float, ...], _rng: np.random.Generator) -> list[Part]:
    """A hanging lamp: a shade with a glowing globe, on a cord up to the ceiling."""
    width, height, _ = item.size
    shade = [(width * 0.5, height * 0.2), (width * 0.42, height * 0.55), (0.04, height)]
    globe = [(0.09 * np.sin(a), 0.02 + height * 0.3 - 0.09 * np.cos(a)) for a in np.linspace(0, np.pi, 9)]
    return [
        lathe(shade, (0, 0, 0), Material(item.soft), 24, "shade"),
        lathe(globe, (0, 0, 0), Material((0.8, 0.8, 0.8), emission=lamp), 16, "globe"),
        box((0.012, 0.95 - height, 0.012), (0, (0.95 + height) / 2, 0), Material((0.1, 0.1, 0.1))),
    ]


def rug(item: Placement, _lamp: tuple[float, ...], rng: np.random.Generator) -> list[Part]:
    """A rug lying on the floor, plain or bordered."""
    width, height, depth = item.size
    other = tuple(min(0.9, c * (0.45 if np.mean(item.soft) > 0.3 else 1.9)) for c in item.soft)
    picture = textures.bordered(rng, item.soft, other) if item.pattern == "bordered" else textures.carpet(rng, item.soft)
    top = sheet((-width / 2, height, depth / 2), (width, 0, 0), (0, 0, -depth), Material(item.soft, picture), name="rug")
    return [top, box((width, height * 0.9, depth), (0, height * 0.45, 0), Material(item.soft))]


def picture(item: Placement, _lamp: tuple[float, ...], rng: np.random.Generator) -> list[Part]:
    """A framed abstract painting in `soft`, `hard` and their mixtures, its back on the wall."""
    width, height, depth = item.size
    tones = [
        item.soft,
        item.hard,
        tuple(0.5 * (a + b) for a, b in zip(item.soft, item.hard, strict=True)),
        (0.75, 0.73, 0.68),
        tuple(c * 0.4 for c in item.soft),
    ]
    canvas = sheet(
        (-width / 2 + 0.03, 0.03, depth / 2 + 0.002),
        (width - 0.06, 0, 0),
        (0, height - 0.06, 0),
        Material((0.6, 0.6, 0.6), textures.painting(rng, tones)),
        name="canvas",
    )
    frame = Material(tuple(c * 0.5 for c in item.hard))
    return [canvas, box((width, height, depth), (0, height / 2, 0), frame)]


BUILDERS = {
    "coffee table": coffee_table,
    "sideboard": sideboard,
    "floor lamp": floor_lamp,
    "pendant": pendant,
    "rug": rug,
    "picture": picture,
}
