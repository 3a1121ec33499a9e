"""Faults of lighting: exposure, contrast, colour, and light from nowhere."""

import numpy as np

from make.render import changes
from make.render.rooms import Room


def too_dark(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Underexposed."""
    return changes.spoilt(room, stops=DARKEST_STOPS * severity)


def too_bright(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Overexposed: windows and light surfaces burn out."""
    return changes.spoilt(room, stops=BRIGHTEST_STOPS * severity)


def flat_light(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Light without shadow or direction, flatly exposed."""
    return changes.spoilt(room, flat=0.95 * severity, contrast=FLATTEST_CONTRAST * severity)


def harsh_contrast(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Blown-out highlights next to black shadows."""
    return changes.spoilt(room, contrast=HARSHEST_CONTRAST * severity)


def colour_cast(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Light of an unnatural colour."""
    tint = TINTS[rng.integers(len(TINTS))]
    return changes.spoilt(room, cast=tuple(t**severity for t in tint))


def stray_light(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Hard beams from nowhere, against the windows."""
    beams = []
    for _ in range(3):
        origin = (rng.uniform(0.2, 0.8) * room.width, room.height - 0.05, rng.uniform(0.5, 0.9) * room.depth)
        target = (rng.uniform(0, 1) * room.width, rng.uniform(0, 1.2), rng.uniform(0, 0.4) * room.depth)
        level = STRONGEST_BEAM * severity
        beams.append((origin, target, (level, level * 0.95, level * 0.85), rng.uniform(14, 24)))
    return changes.spoilt(room, stray=tuple(beams) if severity > 0 else ())


DARKEST_STOPS, BRIGHTEST_STOPS, HARSHEST_CONTRAST, FLATTEST_CONTRAST = -3.6, 3.4, 1.6, -0.5
STRONGEST_BEAM = 80.0
TINTS = ((0.35, 1.25, 0.4), (1.25, 0.4, 1.2), (0.3, 0.75, 1.7), (1.7, 0.75, 0.2))
