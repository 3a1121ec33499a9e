"""A room's description to parts: shell with openings, windows and door, and every piece where it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from make.render import solids, textures
from make.render.furniture import MODELS, Catalogue
from make.render.meshes import Material, Part, box, sheet, tip, turn
from make.render.rooms import LEFT, Bend, Cover, Opening, Placement, Room

Surface = TypeVar("Surface", bound=np.ndarray | tuple)  # a picture or a plain colour

WHITE = (0.82, 0.82, 0.8)
SKIRTING = 0.09


def parts_of(room: Room, catalogue: Catalogue) -> list[Part]:
    """All parts of the room in world coordinates."""
    return [*shell_parts(room), *(part for parts in piece_parts(room, catalogue) for part in parts)]


def shell_parts(room: Room) -> list[Part]:
    """The room without its pieces."""
    rng = np.random.default_rng([room.seed & 0xFFFFFFFF, 17])
    parts = _shell(room, rng)
    for window in room.windows:
        parts += _window(room, window, rng)
    if room.door is not None:
        parts += _door(room, room.door)
    return _as_shell_bulges(room, parts)


def piece_parts(room: Room, catalogue: Catalogue) -> list[list[Part]]:
    """The parts of each piece, in the order of ``room.items``."""
    return [_as_shell_bulges(room, _piece(room, item, catalogue)) for item in room.items]


def _as_shell_bulges(room: Room, parts: list[Part]) -> list[Part]:
    return [_bulged(part, room) for part in parts] if room.shell.bulge else parts


def _shell(room: Room, rng: np.random.Generator) -> list[Part]:
    wall = Material(room.palette.wall, _wall_texture(room, rng))
    floor = Material(room.palette.floor, _floor_texture(room, rng), gloss=0.3 if room.floor != "carpet" else 0.0)
    w, d, h = room.width, room.depth, room.height
    parts = [
        sheet((0, 0, d), (w, 0, 0), (0, 0, -d), floor, (24, 24), "floor", textures.TILE_METRES),
        sheet((0, h, 0), (w, 0, 0), (0, 0, d), Material(WHITE), (24, 24), "ceiling"),
        sheet((w, 0, d), (-w, 0, 0), (0, h, 0), wall, (4, 4), "front", textures.TILE_METRES),
    ]
    for side in FRAMES:
        holes = [opening for opening in room.windows if opening.wall == side]
        for x0, x1, y0, y1 in _around(holes, FRAMES[side](room)[2], h):
            panel = _on_wall(room, side, x0, x1, y0, y1, 0.0, wall)
            parts.append(panel)
        for x0, x1 in _skirting(room, side, holes):
            parts.append(_slab(room, side, x0, x1, 0, SKIRTING, 0.015, Material(WHITE)))
    return parts


FRAMES: dict[str, Callable[[Room], tuple[np.ndarray, np.ndarray, float, np.ndarray]]] = {
    "back": lambda r: (np.zeros(3), np.array([1.0, 0, 0]), r.width, np.array([0, 0, 1.0])),
    "left": lambda r: (np.zeros(3), np.array([0, 0, 1.0]), r.depth, np.array([1.0, 0, 0])),
    "right": lambda r: (np.array([r.width, 0, 0]), np.array([0, 0, 1.0]), r.depth, np.array([-1.0, 0, 0])),
}


def _around(holes: Sequence[Opening], length: float, height: float) -> list[tuple[float, float, float, float]]:
    """Rectangles (from, to, low, high) that cover a wall except for its one opening."""
    if not holes:
        return [(0, length, 0, height)]
    hole = holes[0]
    a, b, low, high = hole.start, hole.start + hole.width, hole.bottom, hole.bottom + hole.height
    return [(0, a, 0, height), (b, length, 0, height), (a, b, 0, low), (a, b, high, height)]


def _on_wall(
    room: Room,
    side: str,
    x0: float,
    x1: float,
    y0: float,
    y1: float,
    off: float,
    material: Material,
    name: str = "wall",
    steps: tuple[int, int] | None = None,
) -> Part:
    """A sheet on a wall from x0 to x1 along it and y0 to y1 up, `off` metres into the room, uv in tiles."""
    origin, along, _, inward = FRAMES[side](room)
    up = np.array([0, 1.0, 0])
    steps = steps or (max(2, int((x1 - x0) * 6)), max(2, int((y1 - y0) * 6)))
    part = sheet(origin + x0 * along + y0 * up + off * inward, (x1 - x0) * along, (y1 - y0) * up, material, steps, name)
    assert part.uv is not None
    uv = (part.uv * (x1 - x0, y1 - y0) + (x0, y0)) / textures.TILE_METRES
    return replace(part, uv=uv)


def _slab(
    room: Room,
    side: str,
    x0: float,
    x1: float,
    y0: float,
    y1: float,
    thick: float,
    material: Material,
    name: str = "slab",
    off: float = 0.0,
) -> Part:
    """A cuboid lying on a wall, `thick` metres proud of it."""
    origin, along, _, inward = FRAMES[side](room)
    size = np.abs((x1 - x0) * along + np.array([0, y1 - y0, 0]) + thick * inward)
    centre = origin + (x0 + x1) / 2 * along + np.array([0, (y0 + y1) / 2, 0]) + (off + thick / 2) * inward
    return box(size, centre, material, name)


def _skirting(room: Room, side: str, holes: Sequence[Opening]) -> list[tuple[float, float]]:
    length = FRAMES[side](room)[2]
    gaps = [(o.start, o.start + o.width) for o in holes if o.bottom < SKIRTING]
    if room.door is not None and room.door.wall == side:
        gaps.append((room.door.start, room.door.start + room.door.width))
    edges = [0.0] + [edge for gap in sorted(gaps) for edge in gap] + [length]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]


def _wall_texture(room: Room, rng: np.random.Generator) -> np.ndarray:
    base = room.palette.wall
    if room.wall == "stripes":
        own = textures.stripes(rng, base, tuple(min(0.92, c * 0.9) for c in base))
    else:
        own = textures.plaster(rng, base)
    return _covered(own, room.shell.wall, np.random.default_rng([room.seed & 0xFFFFFFFF, 19]))


def _floor_texture(room: Room, rng: np.random.Generator) -> np.ndarray:
    own = getattr(textures, room.floor)(rng, room.palette.floor)
    return _covered(own, room.shell.floor, np.random.default_rng([room.seed & 0xFFFFFFFF, 23]))


def _covered(own: Surface, cover: Cover | None, rng: np.random.Generator) -> Surface | np.ndarray:
    """The picture of a surface (rows, columns, 3), or its colour (3,), under a cover if there is one."""
    if cover is None or cover.share == 0:
        return own
    over = getattr(textures, cover.name)(rng, *cover.colours) if cover.colours else textures.odd(rng, cover.name)
    return ((1 - cover.share) * np.asarray(own) + cover.share * over).astype(np.float32)


def _window(room: Room, window: Opening, rng: np.random.Generator) -> list[Part]:
    """The glowing view, reveal, frame with a bar, sill and curtains."""
    a, b = window.start, window.start + window.width
    low, high = window.bottom, window.bottom + window.height
    tint = tuple(room.light.sky * t for t in room.light.sky_tint)
    glow = Material((0.0, 0.0, 0.0), textures.outlook(rng), emission=tint)
    panel = _on_wall(room, window.wall, a, b, low, high, -0.1, glow, "outlook", (1, 1))
    panel = replace(panel, uv=np.array([(0, 0), (1, 0), (0, 1), (1, 1)], float))
    if window.wall == LEFT:
        panel = replace(panel, faces=panel.faces[:, ::-1])
    white, parts = Material(WHITE), [panel]
    bar = 0.05
    for x0, x1, y0, y1 in (
        (a, b, low, low + bar),
        (a, b, high - bar, high),
        (a, a + bar, low, high),
        (b - bar, b, low, high),
        ((a + b) / 2 - bar / 2, (a + b) / 2 + bar / 2, low, high),
    ):
        parts.append(_slab(room, window.wall, x0, x1, y0, y1, 0.12, white, "frame", -0.1))
    if low > 0.5:
        parts.append(_slab(room, window.wall, a - 0.08, b + 0.08, low - 0.04, low, 0.12, white, "sill"))
    return parts + _curtains(room, window, rng)


def _curtains(room: Room, window: Opening, rng: np.random.Generator) -> list[Part]:
    cloth = Material(room.palette.curtain)
    bottom = 0.05 if rng.uniform() < 0.6 else max(0.05, window.bottom - 0.2)
    top, fold, parts = min(room.height - 0.05, window.bottom + window.height + 0.12), rng.uniform(0.25, 0.4), []
    inward = FRAMES[window.wall](room)[3]
    for start in (window.start - fold + 0.08, window.start + window.width - 0.08):
        part = _on_wall(room, window.wall, start, start + fold, bottom, top, 0.09, cloth, "curtain", (40, 1))
        wave = 0.03 * np.sin(np.linspace(0, 2 * np.pi * 5, 41))
        parts.append(replace(part, positions=part.positions + np.tile(wave, 2)[:, None] * inward))
    rod = _slab(
        room,
        window.wall,
        window.start - fold,
        window.start + window.width + fold,
        top,
        top + 0.025,
        0.025,
        Material((0.2, 0.18, 0.16)),
        "rod",
        0.08,
    )
    return [*parts, rod]


def _door(room: Room, door: Opening) -> list[Part]:
    a, b, top = door.start, door.start + door.width, door.height
    leaf = Material(tuple(0.5 * (c + 0.8) for c in room.palette.wall), gloss=0.0)
    dark = Material(tuple(0.8 * c for c in leaf.rgb))
    parts = [
        _slab(room, door.wall, a, b, 0, top, 0.03, leaf, "door"),
        _slab(room, door.wall, b - 0.12, b - 0.07, 1.0, 1.12, 0.08, Material((0.4, 0.38, 0.35), gloss=0.6), "knob"),
    ]
    for y0, y1 in ((0.2, 0.95), (1.15, top - 0.2)):
        parts.append(_slab(room, door.wall, a + 0.15, b - 0.15, y0, y1, 0.04, dark, "panel"))
    for x0, x1, y0, y1 in ((a - 0.07, a, 0, top + 0.07), (b, b + 0.07, 0, top + 0.07), (a, b, top, top + 0.07)):
        parts.append(_slab(room, door.wall, x0, x1, y0, y1, 0.05, Material(WHITE), "frame"))
    return parts


def _bulged(part: Part, room: Room) -> Part:
    """The part with walls, floor and ceiling lines waved by up to `bulge` metres."""
    amount, waves = room.shell.bulge, room.shell.waves
    x, y, z = part.positions.T
    k = 2 * np.pi * waves
    offset = np.stack(
        [
            np.sin(k * y / room.height + 3 * z / room.depth),
            0.7 * np.sin(k * x / room.width + 1.5),
            0.8 * np.sin(k * y / room.height + 4 * x / room.width),
        ],
        1,
    )
    if part.name == "front":
        return part
    return replace(part, positions=part.positions + amount * offset)


def _piece(room: Room, item: Placement, catalogue: Catalogue) -> list[Part]:
    lamp = tuple(room.light.lamps * t for t in room.light.lamp_tint)
    if item.model in solids.BUILDERS:
        parts = solids.BUILDERS[item.model](item, lamp, np.random.default_rng([room.seed & 0xFFFFFFFF, _key(item)]))
    else:
        parts = [_dressed(part, item, lamp, catalogue) for part in catalogue.parts(item.model)]
    if item.cover is not None and item.cover.share:
        parts = [_wrapped(part, item.cover, [room.seed & 0xFFFFFFFF, 29, _key(item)]) for part in parts]
    if item.bend is not None:
        parts = [replace(part, positions=bent(part.positions, item.size[1], item.bend), normals=None) for part in parts]
    matrix = turn(item.angle) @ tip(item.tilt) @ np.diag(item.scale)
    return [part.moved(matrix, np.array([item.x, item.y, item.z])) for part in parts]


def _key(item: Placement) -> int:
    return sum(map(ord, item.model))


def _dressed(part: Part, item: Placement, lamp: tuple[float, ...], catalogue: Catalogue) -> Part:
    """A catalogue part in the placement's colours; lamps glow, screens are dark."""
    model = MODELS[item.model]
    if item.kind == "table lamp" and part.name == "Material.002":
        return part.looking(emission=tuple(0.5 * c for c in lamp))
    if item.kind == "television" and part.name in ("screen", "white_glossy_plastic"):
        return part.looking(rgb=(0.02, 0.02, 0.025))
    target = item.soft if part.name in model.soft else item.hard if part.name in model.hard else None
    if target is None:
        return part
    if isinstance(part.material.texture, str):
        grey = catalogue.texture(part.material.texture).mean(-1, keepdims=True)
        tinted = np.clip(grey / max(1e-3, float(grey.mean())) * np.asarray(target, np.float32), 0, 0.9)
        return part.looking(rgb=target, texture=tinted)
    return part.looking(rgb=target)


def _wrapped(part: Part, cover: Cover, seed: list[int]) -> Part:
    """The part with a cover, projected from above and the side; glass and lamps are unchanged."""
    if part.material.opacity < 1 or part.material.emission is not None:
        return part
    x, y, z = part.positions.T
    uv = np.stack([x + 0.6 * z, y + 0.6 * z], 1)
    return replace(part.looking(texture=_covered(part.material.rgb, cover, np.random.default_rng(seed))), uv=uv)


def bent(positions: np.ndarray, height: float, bend: Bend) -> np.ndarray:
    """Positions (n, 3) in a piece's own frame, deformed; `height` in metres is the piece's."""
    x, y, z = positions.T
    up = y / max(height, 1e-6)
    angle = np.deg2rad(bend.twist) * up
    x, z = x * np.cos(angle) + z * np.sin(angle), -x * np.sin(angle) + z * np.cos(angle)
    x = x + bend.shear[0] * y + bend.wave * np.sin(2 * np.pi * (1.2 * up + 0.5 * z) + bend.phase)
    z = z + bend.shear[1] * y + bend.wave * np.sin(2 * np.pi * (0.9 * up + 0.5 * positions[:, 0]) + 2 * bend.phase)
    sag = 0.5 + 0.5 * np.sin(3.1 * x + 2.3 * z + bend.phase)
    y = y * (1 - bend.melt * (0.25 + 0.6 * sag))
    spread = 1 + bend.melt * 0.7 * np.clip(0.5 - up, 0, 1)
    return np.stack([x * spread, y, z * spread], 1)
