"""Faults of a room in one dimension, with a severity from 0 (none) to 1 (obvious to anybody).

Each kind is a function of (room, severity, rng) that returns the spoilt room. Its effect grows with the severity, at about the
same pace for all kinds of a dimension; position and direction are drawn from ``rng``, the same at every severity. Everything
else about the room (palette, camera, size, furniture, daylight) was drawn before and does not depend on the severity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from make.render import distortion_faults, harmony_faults, layout_faults, lighting_faults
from make.render.rooms import Room

Kind = Callable[[Room, float, np.random.Generator], Room]
KINDS = {
    "distortion": (
        distortion_faults.bent_furniture,
        distortion_faults.bulging_walls,
        distortion_faults.wrong_material,
        distortion_faults.warped_picture,
        distortion_faults.rippled_picture,
        distortion_faults.smeared_picture,
    ),
    "harmony": (
        harmony_faults.clashing_furniture,
        harmony_faults.clashing_shell,
        harmony_faults.loud_patterns,
        harmony_faults.mixed_styles,
    ),
    "layout": (
        layout_faults.floating,
        layout_faults.sunken,
        layout_faults.jumbled,
        layout_faults.wrong_scale,
        layout_faults.crowded_to_a_side,
        layout_faults.too_empty,
        layout_faults.too_full,
    ),
    "lighting": (
        lighting_faults.too_dark,
        lighting_faults.too_bright,
        lighting_faults.flat_light,
        lighting_faults.harsh_contrast,
        lighting_faults.colour_cast,
        lighting_faults.stray_light,
    ),
}
# Kinds that undo or hide each other.
EXCLUDE_EACH_OTHER = (
    {"too_dark", "too_bright"},
    {"floating", "sunken"},
    {"too_empty", "too_full"},
    {"flat_light", "harsh_contrast"},
    {"flat_light", "stray_light"},
    {"too_dark", "stray_light"},
    {"loud_patterns", "mixed_styles"},
)
# Kinds of the development step alone: they need no ray tracing.
DEVELOPED = {
    "distortion": (distortion_faults.warped_picture, distortion_faults.rippled_picture, distortion_faults.smeared_picture),
    "lighting": (
        lighting_faults.too_dark,
        lighting_faults.too_bright,
        lighting_faults.flat_light,
        lighting_faults.harsh_contrast,
        lighting_faults.colour_cast,
    ),
}
SHARE_OF_TWO = 0.3
EACH_OF_TWO = 0.75  # severity of each of two kinds, relative to a single one with the same total effect


def spoil(room: Room, kinds: Sequence[Kind], severity: float, rng: np.random.Generator) -> tuple[Room, tuple[str, ...]]:
    """The room with one or two of these kinds of fault at this severity, and their names."""
    kinds = _chosen(kinds, rng)
    for kind in kinds:
        room = kind(room, float(severity) * (EACH_OF_TWO if len(kinds) == 2 else 1.0), rng)
    return room, tuple(kind.__name__ for kind in kinds)


def _chosen(kinds: Sequence[Kind], rng: np.random.Generator) -> list[Kind]:
    """One kind, or two that go together."""
    while True:
        chosen = [kinds[i] for i in rng.permutation(len(kinds))[: 2 if rng.uniform() < SHARE_OF_TWO else 1]]
        names = {kind.__name__ for kind in chosen}
        if not any(pair <= names for pair in EXCLUDE_EACH_OTHER):
            return chosen
