"""Procedural textures: linear RGB arrays (rows, columns, 3) in 0..1 that repeat seamlessly in both directions.

Each function takes a random generator and colours in linear RGB; one tile covers `TILE_METRES` of floor or wall.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

TILE_METRES = 2.0
SIDE = 256


def colour(hue: float, saturation: float, value: float) -> tuple[float, ...]:
    """Linear RGB of a hue, saturation, value triple (each 0..1) as a screen would show it."""
    return tuple(float(c) ** 2.2 for c in colorsys.hsv_to_rgb(hue % 1.0, min(1, saturation), min(1, value)))


def hue_saturation_value(rgb: Sequence[float]) -> tuple[float, float, float]:
    """The hue, saturation, value triple of a linear RGB one; the inverse of `colour`."""
    return colorsys.rgb_to_hsv(*(max(0.0, float(c)) ** (1 / 2.2) for c in rgb))


def noise(rng: np.random.Generator, cells: tuple[int, int] = (8, 8), octaves: int = 3, side: int = SIDE) -> np.ndarray:
    """Smooth periodic noise (side, side) of about -1..1, `cells` bumps per tile along rows and columns."""
    total, weight = np.zeros((side, side)), 1.0
    for _ in range(octaves):
        grid = rng.uniform(-1, 1, cells)
        total += weight * _stretched(_stretched(grid, side, 0), side, 1)
        cells, weight = (min(side, cells[0] * 2), min(side, cells[1] * 2)), weight / 2
    return total


def _stretched(grid: np.ndarray, side: int, axis: int) -> np.ndarray:
    place = np.arange(side) / side * grid.shape[axis]
    low, share = place.astype(int), place % 1.0
    share = share * share * (3 - 2 * share)
    share = share[:, None] if axis == 0 else share[None, :]
    high = (low + 1) % grid.shape[axis]
    return np.take(grid, low, axis) * (1 - share) + np.take(grid, high, axis) * share


def _tinted(base: Sequence[float] | np.ndarray, factor: np.ndarray) -> np.ndarray:
    return np.clip(np.asarray(base) * np.asarray(factor)[..., None], 0.0, 0.95).astype(np.float32)


def planks(rng: np.random.Generator, base: Sequence[float], rows: int = 12) -> np.ndarray:
    """Floor boards along the columns with grain, joints and board-to-board variation."""
    board = np.arange(SIDE) * rows // SIDE
    start = rng.integers(0, SIDE, rows)[board]
    column = (np.arange(SIDE)[None, :] + start[:, None]) % SIDE
    half = column // (SIDE // 2)
    tone = rng.uniform(0.78, 1.12, (rows, 2))[board[:, None], half]
    grain = 1 + 0.13 * noise(rng, (64, 4), 2)
    joint = np.ones((SIDE, SIDE))
    joint[np.arange(SIDE) * rows % SIDE < rows, :] = 0.55
    joint[column % (SIDE // 2) < 2] = 0.55
    return _tinted(base, tone * grain * joint)


def tiles(rng: np.random.Generator, base: Sequence[float], count: int = 4, checker: bool = False) -> np.ndarray:
    """Square floor tiles with joints; every other one darker for a checker."""
    cell = np.arange(SIDE) * count // SIDE
    tone = rng.uniform(0.92, 1.06, (count, count))[cell[:, None], cell[None, :]]
    if checker:
        tone = tone * np.where((cell[:, None] + cell[None, :]) % 2, 0.45, 1.0)
    edge = (np.arange(SIDE) % (SIDE // count)) < 3
    tone = np.where(edge[:, None] | edge[None, :], 0.6, tone)
    return _tinted(base, tone * (1 + 0.05 * noise(rng, (8, 8), 3)))


def carpet(rng: np.random.Generator, base: Sequence[float]) -> np.ndarray:
    """A short pile: fine speckle over slow variation."""
    return _tinted(base, 1 + 0.16 * rng.uniform(-1, 1, (SIDE, SIDE)) + 0.06 * noise(rng, (6, 6), 2))


def plaster(rng: np.random.Generator, base: Sequence[float]) -> np.ndarray:
    """A painted wall: nearly even."""
    return _tinted(base, 1 + 0.025 * noise(rng, (4, 4), 3))


def stripes(rng: np.random.Generator, base: Sequence[float], other: Sequence[float], count: int = 8) -> np.ndarray:
    """Vertical stripes of two colours."""
    column = (np.arange(SIDE) * count * 2 // SIDE) % 2
    pattern = np.where(column[None, :, None] == 0, np.asarray(base), np.asarray(other))
    return _tinted(np.broadcast_to(pattern, (SIDE, SIDE, 3)), 1 + 0.02 * noise(rng, (4, 4), 2))


def checks(rng: np.random.Generator, base: Sequence[float], other: Sequence[float], count: int = 6) -> np.ndarray:
    """A chessboard of two colours."""
    cell = np.arange(SIDE) * count * 2 // SIDE
    mask = (cell[:, None] + cell[None, :]) % 2 == 0
    return _tinted(np.where(mask[..., None], np.asarray(base), np.asarray(other)), 1 + 0.03 * noise(rng, (4, 4), 2))


def dots(rng: np.random.Generator, base: Sequence[float], other: Sequence[float], count: int = 6) -> np.ndarray:
    """Round dots of one colour on another."""
    place = (np.arange(SIDE) * count / SIDE) % 1.0 - 0.5
    mask = place[:, None] ** 2 + place[None, :] ** 2 < 0.09
    return _tinted(np.where(mask[..., None], np.asarray(other), np.asarray(base)), 1 + 0.02 * noise(rng, (4, 4), 2))


def bordered(rng: np.random.Generator, base: Sequence[float], other: Sequence[float]) -> np.ndarray:
    """A rug with a border and a middle field; not periodic."""
    place = np.abs(np.linspace(-1, 1, SIDE))
    ring = np.maximum(place[:, None], place[None, :])
    mask = ((ring > 0.78) & (ring < 0.88)) | (ring < 0.12 + 0.3 * rng.uniform())
    return _tinted(np.where(mask[..., None], np.asarray(other), np.asarray(base)), 1 + 0.12 * rng.uniform(-1, 1, (SIDE, SIDE)))


def painting(rng: np.random.Generator, colours: list[tuple[float, ...]]) -> np.ndarray:
    """An abstract picture of overlapping bands and discs in the given colours; not periodic."""
    picture = np.empty((SIDE, SIDE, 3))
    picture[:] = colours[0]
    row, column = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    for _ in range(rng.integers(3, 8)):
        paint = np.asarray(colours[rng.integers(len(colours))])
        x, y, radius = rng.uniform(0, 1, 3)
        shape = rng.integers(3)
        if shape == 0:
            mask = (row - y) ** 2 + (column - x) ** 2 < (0.35 * radius + 0.05) ** 2
        elif shape == 1:
            mask = np.abs(row - y - 0.5 * (x - 0.5) * column) < 0.12 * radius + 0.03
        else:
            mask = (np.abs(row - y) < 0.25 * radius + 0.05) & (np.abs(column - x) < 0.2)
        picture[mask] = paint
    return _tinted(picture, 1 + 0.05 * noise(rng, (16, 16), 2))


def outlook(rng: np.random.Generator) -> np.ndarray:
    """The view through a window: sky above a soft skyline, in relative radiance (sky about 1); not periodic."""
    row = np.linspace(1, 0, SIDE)[:, None]
    zenith, horizon = np.array([0.62, 0.78, 1.0]), np.array([0.95, 0.97, 1.0])
    sky = horizon + (zenith - horizon) * np.clip(row * 1.3 - 0.3, 0, 1)[..., None]
    cloud = np.clip(noise(rng, (4, 3), 4), 0, 1)[..., None]
    view = np.broadcast_to(sky, (SIDE, SIDE, 3)) * (1 - 0.3 * cloud) + 0.35 * cloud
    skyline = 0.25 + 0.1 * rng.uniform() + 0.05 * noise(rng, (1, 6), 3)[0]
    green = np.asarray(colour(rng.uniform(0.18, 0.38), 0.35, 0.6)) * (1 + 0.3 * noise(rng, (16, 16), 2))[..., None]
    return np.where((row < skyline[None, :])[..., None], green, view).astype(np.float32)


BRICK, GRASS, RUST, WATER = ODD = ("brick", "grass", "rust", "water")


def odd(rng: np.random.Generator, which: str) -> np.ndarray:
    """Materials that no furniture has: brick, grass, rust, water."""
    if which == BRICK:
        course = np.arange(SIDE) * 16 // SIDE
        shifted = np.arange(SIDE)[None, :] + (course % 2)[:, None] * (SIDE // 16)
        mortar = (shifted % (SIDE // 8) < 3) | (np.arange(SIDE) % (SIDE // 16) < 3)[:, None]
        face = _tinted(colour(0.03, 0.65, 0.65), 1 + 0.3 * noise(rng, (16, 16), 2))
        return np.where(mortar[..., None], 0.5, face).astype(np.float32)
    if which == GRASS:
        return _tinted(colour(0.28, 0.75, 0.55), 1 + 0.9 * noise(rng, (64, 64), 2))
    if which == RUST:
        mix = np.clip(0.5 + noise(rng, (8, 8), 5), 0, 1)[..., None]
        return (mix * colour(0.06, 0.85, 0.55) + (1 - mix) * colour(0.5, 0.25, 0.5)).astype(np.float32)
    return _tinted(colour(0.52, 0.7, 0.8), 1 + 0.8 * np.abs(noise(rng, (6, 12), 4)))
