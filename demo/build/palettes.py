"""Colours of a room: coordinated ones for rooms without fault, and clashing ones for faults of harmony."""

from dataclasses import dataclass

import numpy as np
from textures import colour


@dataclass(frozen=True)
class Palette:
    """Linear RGB triples by use; `art` is a tuple of them."""

    wall: tuple
    floor: tuple
    wood: tuple
    textile: tuple
    accent: tuple
    curtain: tuple
    rug: tuple
    art: tuple


def coordinated(rng):
    """A palette around one hue: quiet walls, one wood, textiles near the hue, one accent next to or opposite it."""
    hue = rng.uniform()
    accent_hue = hue + rng.choice([rng.uniform(-0.06, 0.06), 0.5 + rng.uniform(-0.04, 0.04)])
    wall = colour(hue, rng.uniform(0.02, 0.10), rng.uniform(0.80, 0.95))
    if rng.uniform() < 0.25:
        wall = colour(hue, rng.uniform(0.12, 0.22), rng.uniform(0.62, 0.8))
    wood = colour(rng.uniform(0.055, 0.095), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.8))
    if rng.uniform() < 0.3:
        wood = colour(0.1, 0.05, rng.uniform(0.75, 0.92))
    floor = colour(rng.uniform(0.05, 0.1), rng.uniform(0.2, 0.55), rng.uniform(0.45, 0.8))
    textile = colour(hue + rng.uniform(-0.03, 0.03), rng.uniform(0.12, 0.45), rng.uniform(0.4, 0.78))
    accent = colour(accent_hue, rng.uniform(0.25, 0.5), rng.uniform(0.45, 0.75))
    curtain = colour(hue, rng.uniform(0.03, 0.3), rng.uniform(0.65, 0.9))
    rug = colour(hue + rng.uniform(-0.04, 0.04), rng.uniform(0.1, 0.4), rng.uniform(0.45, 0.85))
    return Palette(wall, floor, wood, textile, accent, curtain, rug, (textile, accent, wall, rug, wood))


def clashing_colours(rng, count):
    """`count` saturated colours whose hues are spread around the circle, in random order."""
    hues = rng.uniform() + np.arange(count) / max(count, 1) + rng.uniform(-0.03, 0.03, count)
    return [colour(hue, rng.uniform(0.85, 1.0), rng.uniform(0.75, 1.0)) for hue in rng.permutation(hues)]


def mixed(first, second, share):
    """The colour `share` of the way from `first` to `second`."""
    return tuple(float(a + (b - a) * share) for a, b in zip(first, second, strict=True))
