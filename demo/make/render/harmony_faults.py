"""Faults of harmony: hues, patterns and styles that do not go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from make.render import changes, furniture, palettes
from make.render.rooms import FLAT, HUNG, Cover, Placement, Room


def clashing_furniture(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Furniture with clashing hues."""
    turns = palettes.spread_turns(rng, 2 * len(room.items))
    items = tuple(
        replace(
            item,
            soft=palettes.turned(item.soft, turns[2 * i], severity),
            hard=palettes.turned(item.hard, turns[2 * i + 1], 0.9 * severity),
        )
        for i, item in enumerate(room.items)
    )
    return replace(room, items=items)


def clashing_shell(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Walls, floor, curtains, rugs and pictures that clash with each other and with the furniture."""
    old = room.palette
    wall, floor, curtain, rug, border, *art = palettes.spread_turns(rng, 5 + len(old.art))
    palette = replace(
        old,
        wall=palettes.turned(old.wall, wall, severity),
        floor=palettes.turned(old.floor, floor, 0.8 * severity),
        curtain=palettes.turned(old.curtain, curtain, severity),
        art=tuple(palettes.turned(colour, turn, severity) for colour, turn in zip(old.art, art, strict=True)),
    )
    items = tuple(
        replace(item, soft=palettes.turned(item.soft, rug, severity), hard=palettes.turned(item.hard, border, severity))
        if item.kind in FLAT
        else item
        for item in room.items
    )
    return replace(room, palette=palette, items=items)


def loud_patterns(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Checks, dots and stripes on walls, rugs and furniture, several at once and all different."""
    names = [str(name) for name in rng.permutation(["checks", "dots", "stripes"])]

    def pattern(number: int, base: Sequence[float]) -> Cover:
        other = palettes.turned(base, rng.uniform(0.2, 0.8), 1.0)
        light, dark = (0.85, 0.84, 0.8), (0.03, 0.03, 0.035)
        return Cover(names[number % 3], severity, (other, light if sum(other) < 1.0 else dark))

    room = changes.reshelled(room, **{str(rng.choice(["wall", "floor"])): pattern(0, room.palette.wall)})
    items = tuple(
        replace(item, cover=pattern(1 + i, item.soft)) if item.kind not in HUNG else item for i, item in enumerate(room.items)
    )
    return replace(room, items=items)


def mixed_styles(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Pieces with mismatched woods and fabrics, no two seats alike, and increasingly of other styles."""
    order = rng.permutation(len(room.items))
    strangers = set(order[: round(severity * len(order))].tolist())
    items = []
    for i, item in enumerate(room.items):
        choice, wood = rng.uniform(), palettes.ODD_WOODS[rng.integers(len(palettes.ODD_WOODS))]
        fabric = palettes.turned(item.soft, rng.uniform(0.2, 0.8), severity)
        model = _other_model(item, choice) if i in strangers else item
        items.append(replace(model, hard=palettes.mixed(item.hard, wood, severity), soft=fabric))
    return changes.resettled(room, items)


def _other_model(item: Placement, choice: float) -> Placement:
    """The piece as another model of its kind, if possible of another style; ``choice`` 0..1 picks."""
    if item.model not in furniture.MODELS:
        return item
    style = furniture.MODELS[item.model].style
    others = [model for model in furniture.of_kind(item.kind) if model.name != item.model]
    others = [model for model in others if model.style != style] or others
    if not others:
        return item
    model = others[int(choice * len(others))]
    return replace(item, model=model.name, size=model.size)
