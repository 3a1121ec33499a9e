"""Colours of a room: coordinated ones for rooms without faults, and their clashing variants for faults of harmony."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from make.render.textures import colour, hue_saturation_value

CLASHING_SATURATION = 0.62
ODD_WOODS = ((0.012, 0.011, 0.01), (0.82, 0.81, 0.78), (0.62, 0.22, 0.045), (0.2, 0.022, 0.016), (0.34, 0.34, 0.33))


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


def coordinated(rng: np.random.Generator) -> Palette:
    """A palette around one hue: quiet or rich, walls paler than textiles, one wood, one accent next to or opposite the hue.

    Rich rooms are as saturated as clashing ones, so that saturation alone says little about harmony.
    """
    hue, rich = rng.uniform(), rng.uniform(0.12, 0.75)
    accent_hue = hue + rng.choice([rng.uniform(-0.06, 0.06), 0.5 + rng.uniform(-0.04, 0.04)])

    def toned(hue: float, low: float, high: float, darkest: float, lightest: float) -> tuple[float, ...]:
        return colour(hue, rich * rng.uniform(low, high), rng.uniform(darkest, lightest))

    wall = toned(hue, 0.1, 0.3, 0.8, 0.95)
    if rng.uniform() < 0.35:
        wall = toned(hue, 0.4, 0.9, 0.6, 0.85)
    wood = colour(rng.uniform(0.055, 0.095), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.8))
    if rng.uniform() < 0.3:
        wood = colour(0.1, 0.05, rng.uniform(0.75, 0.92))
    floor = colour(rng.uniform(0.05, 0.1), rng.uniform(0.2, 0.55), rng.uniform(0.45, 0.8))
    textile = toned(hue + rng.uniform(-0.03, 0.03), 0.8, 1.2, 0.4, 0.78)
    accent = toned(accent_hue, 0.9, 1.3, 0.45, 0.75)
    curtain = toned(hue, 0.3, 1.0, 0.6, 0.9)
    rug = toned(hue + rng.uniform(-0.04, 0.04), 0.5, 1.1, 0.45, 0.85)
    return Palette(wall, floor, wood, textile, accent, curtain, rug, (textile, accent, wall, rug, wood))


def spread_turns(rng: np.random.Generator, count: int) -> np.ndarray:
    """`count` hue turns in random order, spread over the circle except near 0, where colours still match."""
    share = (np.arange(count) + rng.uniform(0.2, 0.8, count)) / max(count, 1)
    return rng.permutation(0.18 + 0.64 * share)


def turned(rgb: Sequence[float], turn: float, severity: float) -> tuple[float, ...]:
    """A colour with its hue turned by `turn` (1 is the whole circle) and saturated, in proportion to the severity."""
    hue, saturation, value = hue_saturation_value(rgb)
    clashing = colour(hue + turn, max(saturation, CLASHING_SATURATION), max(value, 0.5))
    return mixed(rgb, clashing, severity)


def mixed(first: Sequence[float], second: Sequence[float], share: float) -> tuple[float, ...]:
    """The colour `share` of the way from `first` to `second`."""
    return tuple(float(a + (b - a) * share) for a, b in zip(first, second, strict=True))
