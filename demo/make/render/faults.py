"""Faults of a room in one dimension, dialled from 0 (none) to 1 (obvious to anybody).

Each kind is a function of (room, severity, rng) to the spoilt room. What it does grows with the severity, at about the same
pace for all kinds of a dimension; where and in which direction is drawn from ``rng``, the same at every severity. Everything
else about the room (palette, camera, size, furniture, daylight) was drawn before and knows nothing of the severity.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from make.render import furniture, palettes, textures
from make.render.rooms import FLAT, HUNG, Bend, Cover, Placement, Room, overlapping, standing

# ---- distortion ----------------------------------------------------------------------------------------------------------

LARGEST_TWIST, LARGEST_SHEAR, LARGEST_WAVE, LARGEST_MELT = 75, 0.75, 0.2, 0.75  # twist in degrees
LARGEST_BULGE = 0.42


def bent_furniture(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Furniture twisted, sheared, wavy and sagging."""

    def bend():
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
    return _reshelled(room, bulge=LARGEST_BULGE * severity, waves=rng.uniform(0.9, 1.6))


def wrong_material(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Walls, floor or furniture of a material they are never made of: bricks, grass, rust, water."""
    first, second = (str(name) for name in rng.permutation(textures.ODD)[:2])
    room = _reshelled(room, **{str(rng.choice(["wall", "floor"])): Cover(first, 0.9 * severity)})
    covered = rng.uniform(size=len(room.items)) < 0.7
    items = (
        replace(item, cover=Cover(second, 0.9 * severity)) if odd else item
        for item, odd in zip(room.items, covered, strict=True)
    )
    return replace(room, items=tuple(items))


def warped_picture(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Local swirls and swellings of the picture, as image generators make them."""
    return _spoilt(room, warp=severity)


def rippled_picture(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Straight lines that wave through the whole picture."""
    return _spoilt(room, ripple=severity)


def smeared_picture(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Stretched patches in which texture is drawn out."""
    return _spoilt(room, smear=severity)


# ---- harmony -------------------------------------------------------------------------------------------------------------


def clashing_furniture(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Furniture whose hues fight with each other."""
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
    """Walls, floor, curtains, rugs and pictures that fight with each other and with the furniture."""
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
    """Checks, dots and stripes on walls, rugs and furniture, several at once and none like another."""
    names = [str(name) for name in rng.permutation(["checks", "dots", "stripes"])]

    def pattern(number, base):
        other = palettes.turned(base, rng.uniform(0.2, 0.8), 1.0)
        light, dark = (0.85, 0.84, 0.8), (0.03, 0.03, 0.035)
        return Cover(names[number % 3], severity, (other, light if sum(other) < 1.0 else dark))

    room = _reshelled(room, **{str(rng.choice(["wall", "floor"])): pattern(0, room.palette.wall)})
    items = tuple(
        replace(item, cover=pattern(1 + i, item.soft)) if item.kind not in HUNG else item for i, item in enumerate(room.items)
    )
    return replace(room, items=items)


def mixed_styles(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Pieces turning to odd woods and fabrics, no two seats alike, and one after another to other styles."""
    order = rng.permutation(len(room.items))
    strangers = set(order[: round(severity * len(order))].tolist())
    items = []
    for i, item in enumerate(room.items):
        choice, wood = rng.uniform(), palettes.ODD_WOODS[rng.integers(len(palettes.ODD_WOODS))]
        fabric = palettes.turned(item.soft, rng.uniform(0.2, 0.8), severity)
        model = _other_model(item, choice) if i in strangers else item
        items.append(replace(model, hard=palettes.mixed(item.hard, wood, severity), soft=fabric))
    return _resettled(room, items)


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


# ---- layout --------------------------------------------------------------------------------------------------------------

LARGEST_SHIFT, LARGEST_TURN, LARGEST_TILT = (1.8, 1.5), 140, 50  # metres across and deep, degrees
DEEPEST_SUNK, LARGEST_LEAN = (0.4, 0.65), 25  # shares of the height, degrees
DEEPEST_SEEN = 0.66  # of the room's depth: what stands nearer to the camera may leave the picture or fill it


def floating(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Furniture that hangs in the air."""
    heights = rng.uniform(0.5, 1.1, len(room.items))

    def lift(i, item):
        clear = max(0.0, room.height - 0.1 - item.size[1])
        return {"y": item.y + severity * min(heights[i], clear)} if standing(item) else {}

    return _moved(room, lift)


def sunken(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Furniture sunk askew into the floor and the walls."""
    depths = rng.uniform(*DEEPEST_SUNK, len(room.items))
    leans = rng.uniform(0.5, 1, len(room.items)) * rng.choice([-LARGEST_LEAN, LARGEST_LEAN], len(room.items))

    def sink(i, item):
        if not standing(item):
            return {}
        towards = -1.0 if item.x < room.width / 2 else 1.0
        y, x = -severity * depths[i] * item.size[1], item.x + towards * 0.25 * severity
        return {"y": y, "x": x, "tilt": item.tilt + float(severity * leans[i])}

    return _moved(room, sink)


def jumbled(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Furniture pushed through each other, turned the wrong way and tipped over."""
    shifts = rng.uniform(-1, 1, (len(room.items), 2)) * LARGEST_SHIFT
    turns, tilts = (
        rng.uniform(0.4, 1, len(room.items)) * rng.choice([-largest, largest], len(room.items))
        for largest in (LARGEST_TURN, LARGEST_TILT)
    )

    def move(i, item):
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

    return _moved(room, move)


def wrong_scale(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Pieces far too large beside pieces far too small."""
    large = rng.uniform(size=len(room.items)) < 0.5

    def scale(i, item):
        if not standing(item):
            return {}
        near = item.z + item.size[2] / 2 > DEEPEST_SEEN * room.depth
        largest = min(2.0, (room.height - 0.1) / item.size[1], 0.75 * room.width / max(item.size[0], item.size[2]))
        factor = 1 + (largest - 1) * severity if large[i] and not near and largest > 1.3 else 1 - 0.6 * severity
        return {"scale": tuple(s * factor for s in item.scale)}

    return _moved(room, scale)


def crowded_to_a_side(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Everything pushed into one corner of the room."""
    x, z = rng.choice([0.16, 0.84]) * room.width, 0.25 * room.depth

    def move(_, item):
        if item.rides is not None or item.kind == "picture":
            return {}
        return {"x": item.x + (x - item.x) * 0.85 * severity, "z": item.z + (z - item.z) * 0.6 * severity}

    return _moved(room, move)


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
    """Twice the furniture that the room holds; what comes first stands farthest from the camera, so that nothing hides it."""
    extras = []
    for _ in range(MOST_EXTRA_PIECES):
        model = rng.choice(furniture.of_kind(*FILLERS))
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

# ---- lighting ------------------------------------------------------------------------------------------------------------


def too_dark(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Underexposed."""
    return _spoilt(room, stops=DARKEST_STOPS * severity)


def too_bright(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Overexposed: windows and light surfaces burn out."""
    return _spoilt(room, stops=BRIGHTEST_STOPS * severity)


def flat_light(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Light without shadow or direction, flatly exposed."""
    return _spoilt(room, flat=0.95 * severity, contrast=FLATTEST_CONTRAST * severity)


def harsh_contrast(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Blown-out highlights beside black shadows."""
    return _spoilt(room, contrast=HARSHEST_CONTRAST * severity)


def colour_cast(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Light of a colour no lamp has."""
    tint = TINTS[rng.integers(len(TINTS))]
    return _spoilt(room, cast=tuple(t**severity for t in tint))


def stray_light(room: Room, severity: float, rng: np.random.Generator) -> Room:
    """Hard beams from nowhere, against the windows."""
    beams = []
    for _ in range(3):
        origin = (rng.uniform(0.2, 0.8) * room.width, room.height - 0.05, rng.uniform(0.5, 0.9) * room.depth)
        target = (rng.uniform(0, 1) * room.width, rng.uniform(0, 1.2), rng.uniform(0, 0.4) * room.depth)
        level = STRONGEST_BEAM * severity
        beams.append((origin, target, (level, level * 0.95, level * 0.85), rng.uniform(14, 24)))
    return _spoilt(room, stray=tuple(beams) if severity > 0 else ())


DARKEST_STOPS, BRIGHTEST_STOPS, HARSHEST_CONTRAST, FLATTEST_CONTRAST = -3.6, 3.4, 1.6, -0.5
STRONGEST_BEAM = 80.0
TINTS = ((0.35, 1.25, 0.4), (1.25, 0.4, 1.2), (0.3, 0.75, 1.7), (1.7, 0.75, 0.2))

Kind = Callable[[Room, float, np.random.Generator], Room]
KINDS = {
    "distortion": (bent_furniture, bulging_walls, wrong_material, warped_picture, rippled_picture, smeared_picture),
    "harmony": (clashing_furniture, clashing_shell, loud_patterns, mixed_styles),
    "layout": (floating, sunken, jumbled, wrong_scale, crowded_to_a_side, too_empty, too_full),
    "lighting": (too_dark, too_bright, flat_light, harsh_contrast, colour_cast, stray_light),
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
# Kinds that development alone makes: no light has to be traced for them.
DEVELOPED = {
    "distortion": (warped_picture, rippled_picture, smeared_picture),
    "lighting": (too_dark, too_bright, flat_light, harsh_contrast, colour_cast),
}
SHARE_OF_TWO = 0.3
EACH_OF_TWO = 0.75  # what each of two kinds is dialled to, so that together they spoil as much as one


def spoil(room: Room, kinds: Sequence[Kind], severity: float, rng: np.random.Generator) -> tuple[Room, tuple[str, ...]]:
    """The room with one or two of these kinds of fault at this severity, and their names."""
    kinds = _chosen(kinds, rng)
    for kind in kinds:
        room = kind(room, float(severity) * (EACH_OF_TWO if len(kinds) == 2 else 1.0), rng)
    return room, tuple(kind.__name__ for kind in kinds)


def _chosen(kinds, rng):
    """One kind, or two that go together."""
    while True:
        chosen = [kinds[i] for i in rng.permutation(len(kinds))[: 2 if rng.uniform() < SHARE_OF_TWO else 1]]
        names = {kind.__name__ for kind in chosen}
        if not any(pair <= names for pair in EXCLUDE_EACH_OTHER):
            return chosen


def _spoilt(room, **values):
    return replace(room, spoil=replace(room.spoil, **values))


def _reshelled(room, **values):
    return replace(room, shell=replace(room.shell, **values))


def _moved(room, change):
    """The room with ``change(index, item)`` applied to each piece; what stands on a piece moves along with it."""
    return _resettled(room, [replace(item, **change(i, item)) for i, item in enumerate(room.items)])


def _resettled(room, items):
    """The room with its pieces replaced one for one; what stands on a piece follows that piece's top."""
    settled = list(items)
    for i, item in enumerate(items):
        if item.rides is not None:
            before, after = room.items[item.rides], items[item.rides]
            top = before.y + before.size[1] * before.scale[1]
            raised = after.y + after.size[1] * after.scale[1] - top
            settled[i] = replace(item, x=item.x + after.x - before.x, y=item.y + raised, z=item.z + after.z - before.z)
    return replace(room, items=tuple(settled))
