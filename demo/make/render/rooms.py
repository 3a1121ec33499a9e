"""What a room is, and a seeded generator of furnished rooms without fault.

The room fills 0..width (x), 0..height (y), 0..depth (z), in metres. The camera stands near the front wall (z = depth)
and looks towards the back wall (z = 0). Angles are degrees about the vertical; at 0 a piece of furniture faces +z.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from make.render import furniture, palettes
from make.render.meshes import turn

ROOM_TYPES = ("living", "bedroom", "dining", "study")
BACK, LEFT, RIGHT = "back", "left", "right"
FACING = {BACK: 0.0, LEFT: 90.0, RIGHT: -90.0}
FLAT = ("rug",)
HUNG = ("picture", "pendant")
DOOR_REACH = 0.8  # metres of floor before a door


@dataclass(frozen=True)
class Bend:
    """A deformation of one piece: `twist` in degrees over its height, the others in metres per metre of height."""

    twist: float = 0.0
    shear: tuple = (0.0, 0.0)
    wave: float = 0.0
    melt: float = 0.0
    phase: float = 0.0


@dataclass(frozen=True)
class Cover:
    """What a surface is covered with: a pattern of `colours`, or a material that `textures.odd` knows.

    `share` goes from 0, the surface's own look, to 1, the cover alone.
    """

    name: str
    share: float
    colours: tuple = ()


@dataclass(frozen=True)
class Placement:
    """One piece: `size` (width, height, depth) before `scale`, (x, z) its centre, `y` the height of its underside.

    Degrees: `angle` about the vertical axis, `tilt` about the piece's own axis from left to right.
    """

    model: str
    kind: str
    size: tuple
    x: float
    z: float
    angle: float = 0.0
    tilt: float = 0.0
    y: float = 0.0
    scale: tuple = (1.0, 1.0, 1.0)
    soft: tuple = (0.5, 0.5, 0.5)
    hard: tuple = (0.4, 0.3, 0.2)
    pattern: str = ""
    cover: Cover | None = None
    bend: Bend | None = None
    rides: int | None = None

    def corners(self, margin=0.0):
        """The four corners (4, 2) of its footprint in (x, z), grown by `margin`."""
        half_x, half_z = self.size[0] * self.scale[0] / 2 + margin, self.size[2] * self.scale[2] / 2 + margin
        local = np.array([(-half_x, 0, -half_z), (half_x, 0, -half_z), (half_x, 0, half_z), (-half_x, 0, half_z)])
        return (local @ turn(self.angle).T)[:, [0, 2]] + (self.x, self.z)


@dataclass(frozen=True)
class Opening:
    """A window or door in a wall: from `start` along it (x or z), `bottom` above the floor."""

    wall: str
    start: float
    width: float
    bottom: float
    height: float


@dataclass(frozen=True)
class Camera:
    """Eye and target in metres, horizontal field of view in degrees."""

    eye: tuple
    target: tuple
    fov: float


@dataclass(frozen=True)
class Light:
    """Levels of the room's own lights; `sun` is the direction sunlight travels in, or None on a grey day."""

    sky: float = 6.0
    sky_tint: tuple = (1.0, 1.0, 1.0)
    sun: tuple | None = None
    sun_level: float = 30.0
    lamps: float = 9.0
    lamp_tint: tuple = (1.0, 0.8, 0.55)
    exposure_stops: float = 0.0


@dataclass(frozen=True)
class Shell:
    """What a fault does to walls and floor: `bulge` in metres, `waves` from floor to ceiling, covers."""

    bulge: float = 0.0
    waves: float = 1.0
    wall: Cover | None = None
    floor: Cover | None = None


@dataclass(frozen=True)
class Spoil:
    """What a fault does to the light or the finished picture; all 0 or empty where there is none."""

    smear: float = 0.0
    warp: float = 0.0
    ripple: float = 0.0
    stops: float = 0.0
    flat: float = 0.0
    contrast: float = 0.0
    cast: tuple = (1.0, 1.0, 1.0)
    stray: tuple = ()


@dataclass(frozen=True)
class Room:
    """A furnished room: everything a picture of it depends on."""

    kind: str
    seed: int
    width: float
    depth: float
    height: float
    style: str
    palette: palettes.Palette
    floor: str
    wall: str
    windows: tuple
    door: Opening | None
    camera: Camera
    light: Light
    items: tuple = ()
    shell: Shell = field(default_factory=Shell)
    spoil: Spoil = field(default_factory=Spoil)


def overlapping(first, second):
    """Whether two convex footprints, (n, 2) corners each, share any area."""
    for shape in (first, second):
        edges = np.roll(shape, -1, 0) - shape
        for normal in np.stack([-edges[:, 1], edges[:, 0]], 1):
            a, b = first @ normal, second @ normal
            if a.max() <= b.min() + 1e-6 or b.max() <= a.min() + 1e-6:
                return False
    return True


def rectangle(x0, x1, z0, z1):
    """Corners (4, 2) of an upright rectangle of floor."""
    return np.array([(x0, z0), (x1, z0), (x1, z1), (x0, z1)])


def standing(item):
    """Whether the piece stands on the floor and takes up room there."""
    return item.rides is None and item.kind not in FLAT + HUNG


def before_door(room):
    """Corners (4, 2) of the floor that a room's door needs free."""
    start, end = room.door.start, room.door.start + room.door.width
    if room.door.wall == BACK:
        return rectangle(start, end, 0, DOOR_REACH)
    near = 0 if room.door.wall == LEFT else room.width - DOOR_REACH
    return rectangle(near, near + DOOR_REACH, start, end)


class Arranger:
    """Puts pieces into a room one after another, refusing what does not fit."""

    def __init__(self, room, rng):
        self.room, self.rng, self.items = room, rng, []
        eye = room.camera.eye
        self.reserved = [rectangle(eye[0] - 0.7, eye[0] + 0.7, eye[2] - 1.15, room.depth)]
        if room.door is not None:
            self.reserved.append(before_door(room))

    def fits(self, item, margin=0.02):
        """Whether the piece lies inside the room, off the others and off what must stay free."""
        shape = item.corners(margin)
        room = self.room
        if shape.min() < 0 or shape[:, 0].max() > room.width or shape[:, 1].max() > room.depth - 0.3:
            return False
        if item.kind in FLAT:
            return True
        if any(overlapping(shape, zone) for zone in self.reserved):
            return False
        return not any(overlapping(shape, other.corners()) for other in self.items if standing(other))

    def add(self, item, margin=0.02):
        """The index of the piece once placed, or None where it does not fit."""
        if not self.fits(item, margin):
            return None
        self.items.append(item)
        return len(self.items) - 1

    def piece(self, model, x=0.0, z=0.0, angle=0.0, **more):
        """A placement of a catalogue model, in the room's colours."""
        palette = self.room.palette
        soft = palette.accent if model.kind in ("armchair", "chair", "desk chair", "small plant") else palette.textile
        return Placement(model.name, model.kind, model.size, x, z, angle, **{"soft": soft, "hard": palette.wood} | more)

    def made(self, kind, size, x=0.0, z=0.0, angle=0.0, **more):
        """A placement of a piece that is built from simple solids."""
        colours = {"soft": self.room.palette.textile, "hard": self.room.palette.wood}
        return Placement(kind, kind, size, x, z, angle, **colours | more)

    def against(self, item, walls, tries=24, clear=0.03):
        """Place the piece with its back to one of the walls, off windows when it is tall; its index or None."""
        for _ in range(tries):
            wall = walls[self.rng.integers(len(walls))]
            tall = item.size[1] > 1.2
            length = self.room.width if wall == BACK else self.room.depth - (2.2 if tall else 1.1)
            half, off = item.size[0] / 2 + 0.05, item.size[2] / 2 + clear
            if length < 2 * half:
                continue
            along = self.rng.uniform(half, length - half)
            x, z = {BACK: (along, off), LEFT: (off, along), RIGHT: (self.room.width - off, along)}[wall]
            if item.size[1] > 0.95 and self._at_window(wall, along, half):
                continue
            index = self.add(replace(item, x=x, z=z, angle=FACING[wall]))
            if index is not None:
                return index
        return None

    def _at_window(self, wall, along, half):
        return any(
            window.wall == wall and along - half < window.start + window.width + 0.3 and along + half > window.start - 0.3
            for window in self.room.windows
        )

    def beside(self, index, item, right, ahead, angle=0.0, margin=0.02):
        """Place the piece `right` and `ahead` metres from piece `index`, as seen along that one's front."""
        anchor = self.items[index]
        offset = turn(anchor.angle) @ (right, 0.0, ahead)
        return self.add(replace(item, x=anchor.x + offset[0], z=anchor.z + offset[2], angle=anchor.angle + angle), margin)

    def upon(self, index, item, right=0.0, angle=0.0):
        """Stand a small piece on top of piece `index`."""
        base = self.items[index]
        offset = turn(base.angle) @ (right, 0.0, 0.0)
        self.items.append(
            replace(item, x=base.x + offset[0], z=base.z + offset[2], y=base.size[1], angle=base.angle + angle, rides=index)
        )

    def picture(self, index, low=0.35):
        """Hang a picture on the wall behind piece `index`, unless a window or the door is there."""
        base = self.items[index]
        wall = next((w for w, angle in FACING.items() if angle == base.angle), None)
        along = base.x if wall == BACK else base.z
        width, height = self.rng.uniform(0.5, 1.2), self.rng.uniform(0.4, 0.7)
        door = self.room.door
        at_door = door is not None and door.wall == wall and abs(along - door.start - door.width / 2) < width
        if wall is None or at_door or self._at_window(wall, along, width / 2):
            return
        y = min(max(1.3, base.size[1] + low), self.room.height - height - 0.2)
        x, z = {BACK: (base.x, 0.02), LEFT: (0.02, base.z), RIGHT: (self.room.width - 0.02, base.z)}[wall]
        self.items.append(self.made("picture", (width, height, 0.03), x, z, FACING[wall], y=y))

    def rug(self, x, z, size, angle=0.0):
        """Lay a rug, made smaller until it fits."""
        for shrink in (1.0, 0.85, 0.7):
            item = self.made(
                "rug",
                (size[0] * shrink, 0.012, size[1] * shrink),
                x,
                z,
                angle,
                soft=self.room.palette.rug,
                pattern=str(self.rng.choice(["plain", "bordered", "bordered"])),
            )
            if self.add(item, 0.0) is not None:
                return

    def choose(self, *kinds):
        """A random model of the kinds, of the room's style where there is one."""
        return self.rng.choice(furniture.of_kind(*kinds, style=self.room.style))

    def greenery(self, count=1):
        """Plants along the walls."""
        for _ in range(count):
            self.against(self.piece(self.choose("plant")), [BACK, LEFT, RIGHT], clear=0.1)

    def storage(self, *kinds, walls=(BACK, LEFT, RIGHT)):
        """A cupboard or the like against a wall, with a small thing on it when it is low."""
        index = self.against(self.piece(self.choose(*kinds)), list(walls))
        if index is not None and self.items[index].size[1] < 1.0:
            self.upon(index, self.piece(self.choose("small plant", "table lamp")))
            self.picture(index, low=0.6)
        return index

    def floor_lamp(self, index):
        """A standing lamp at either side of piece `index`."""
        lamp = self.made("floor lamp", (0.4, 1.6, 0.4), soft=self.room.palette.curtain)
        reach = self.items[index].size[0] / 2 + 0.3
        if self.beside(index, lamp, reach, -0.1) is None:
            self.beside(index, lamp, -reach, -0.1)


def furnish_living(room, rng):
    """Sofa, low table, armchairs, television or shelves, lamp, plants."""
    put = Arranger(room, rng)
    walls = [BACK, BACK, LEFT, RIGHT]
    sofa = put.against(put.piece(put.choose("sofa", "sofa", "corner sofa")), walls, tries=60)
    if sofa is None:
        sofa = put.against(put.piece(furniture.MODELS["sofa2"]), walls, tries=200)
    if sofa is None:
        return None
    seat = put.items[sofa]
    table = put.made("coffee table", (rng.uniform(0.8, 1.15), 0.42, rng.uniform(0.5, 0.65)), soft=room.palette.accent)
    table = put.beside(sofa, table, 0.0, seat.size[2] / 2 + 0.7)
    if table is not None:
        put.rug(put.items[table].x, put.items[table].z, (2.4, 1.7), seat.angle)
        put.upon(table, put.piece(put.choose("small plant")), right=rng.uniform(-0.2, 0.2))
    model = put.choose("armchair")
    for side in rng.permutation([-1, 1])[: rng.integers(1, 3)]:
        put.beside(sofa, put.piece(model), side * (seat.size[0] / 2 + 0.25), seat.size[2] / 2 + 0.75, -side * 65)
    put.picture(sofa)
    put.floor_lamp(sofa)
    stand = put.against(put.made("sideboard", (1.5, 0.45, 0.42)), [w for w in (LEFT, RIGHT, BACK) if w != BACK])
    if stand is not None:
        put.upon(stand, put.piece(furniture.MODELS["led_tv"]))
    put.storage("bookcase", "cabinet", "low shelf")
    if rng.uniform() < 0.5:
        put.storage("bookcase", "low shelf", "cupboard")
    put.greenery(int(rng.integers(1, 3)))
    return put.items


def furnish_bedroom(room, rng):
    """Bed between bedside tables, wardrobe, a seat, rug, plants."""
    put = Arranger(room, rng)
    model = put.choose("bed")
    bed = put.against(put.piece(model), [BACK, BACK, BACK, LEFT, RIGHT], tries=80)
    if bed is None:
        bed = put.against(put.piece(furniture.MODELS["bed1"]), [BACK, LEFT, RIGHT], tries=200)
    if bed is None:
        return None
    base = put.items[bed]
    for side in (-1, 1):
        table = put.piece(put.choose("bedside table"))
        index = put.beside(bed, table, side * (base.size[0] / 2 + 0.32), -base.size[2] / 2 + 0.24)
        if index is not None:
            put.upon(index, put.piece(furniture.MODELS["desklamp"]))
    put.picture(bed)
    ahead = turn(base.angle) @ (0, 0, base.size[2] * 0.3)
    put.rug(base.x + ahead[0], base.z + ahead[2], (base.size[0] + 1.1, 1.6), base.angle)
    put.storage("wardrobe", "cupboard")
    put.storage("low shelf", "bookcase", "cupboard")
    put.against(put.piece(put.choose("armchair", "chair")), [LEFT, RIGHT, BACK], clear=0.15)
    if rng.uniform() < 0.5:
        put.storage("low shelf")
    put.greenery()
    return put.items


def furnish_dining(room, rng):
    """Table with chairs under a hanging lamp, sideboard, cupboards, plants."""
    put = Arranger(room, rng)
    table = put.piece(put.choose("table"))
    x, z = room.width * rng.uniform(0.42, 0.58), room.depth * rng.uniform(0.36, 0.44)
    angle = float(rng.choice([0.0, 90.0])) if room.width < 4.6 else 0.0
    index = put.add(replace(table, x=x, z=z, angle=angle))
    if index is None:
        index = put.add(replace(table, x=room.width / 2, z=room.depth * 0.4, angle=90.0))
    if index is None:
        return None
    anchor = put.items[index]
    put.rug(anchor.x, anchor.z, (anchor.size[0] + 1.1, anchor.size[2] + 1.3), anchor.angle)
    chair = put.choose("chair")
    half_x, half_z, reach = anchor.size[0] / 2, anchor.size[2] / 2, chair.depth / 2 + rng.uniform(0.03, 0.15)
    places = [(0, half_z + reach, 180), (0, -half_z - reach, 0), (half_x + reach, 0, -90), (-half_x - reach, 0, 90)]
    if anchor.size[0] > 1.5:
        places = places[2:] + [(s * 0.45, t * (half_z + reach), 180 if t > 0 else 0) for s in (-1, 1) for t in (-1, 1)]
    for right, ahead, facing in places:
        put.beside(index, put.piece(chair), right, ahead, facing + rng.uniform(-6, 6), margin=0.0)
    put.items.append(put.made("pendant", (0.5, 0.3, 0.5), anchor.x, anchor.z, y=room.height - 0.95, soft=room.palette.accent))
    board = put.against(put.made("sideboard", (1.5, 0.8, 0.45)), [BACK, LEFT, RIGHT])
    if board is not None:
        put.upon(board, put.piece(put.choose("small plant")), right=rng.uniform(-0.5, 0.5))
        put.picture(board)
    put.storage("cupboard", "bookcase", "cabinet")
    put.storage("low shelf", "bookcase")
    put.greenery(int(rng.integers(1, 3)))
    return put.items


def furnish_study(room, rng):
    """Desk and chair, shelves, a reading seat with a lamp, sometimes a piano."""
    put = Arranger(room, rng)
    desk = put.against(put.piece(put.choose("desk")), [BACK, LEFT, RIGHT], tries=80)
    if desk is None:
        return None
    base = put.items[desk]
    put.beside(desk, put.piece(put.choose("desk chair", "chair")), rng.uniform(-0.1, 0.1), base.size[2] / 2 + 0.42, 180)
    if base.size[1] < 0.9:
        put.upon(desk, put.piece(furniture.MODELS["desklamp"]), right=rng.choice([-0.5, 0.5]))
        put.picture(desk)
    put.storage("bookcase")
    put.storage("bookcase", "cabinet", "cupboard")
    if rng.uniform() < 0.4:
        piano = put.piece(furniture.MODELS["pianoAQueue"])
        put.add(replace(piano, x=room.width * 0.5, z=room.depth * 0.4, angle=float(rng.uniform(-40, 40))))
    seat = put.against(put.piece(put.choose("armchair")), [LEFT, RIGHT, BACK], clear=0.15)
    if seat is not None:
        put.floor_lamp(seat)
    put.storage("low shelf")
    put.rug(room.width / 2, room.depth * 0.42, (2.3, 1.6))
    put.greenery(int(rng.integers(1, 3)))
    return put.items


FURNISH = {"living": furnish_living, "bedroom": furnish_bedroom, "dining": furnish_dining, "study": furnish_study}
FEWEST_PIECES = 6


def generate(seed):
    """A furnished room without fault; the same seed gives the same room."""
    rng = np.random.default_rng(seed)
    while True:
        room = _empty_room(rng, int(seed) if np.isscalar(seed) else 0)
        items = FURNISH[room.kind](room, rng)
        if items is not None and len(items) >= FEWEST_PIECES:
            return replace(room, items=tuple(items))


def _empty_room(rng, seed):
    width, depth, height = rng.uniform(3.7, 5.2), rng.uniform(4.3, 5.6), rng.uniform(2.45, 2.9)
    windows = _windows(rng, width, depth, height)
    eye = (width * rng.uniform(0.25, 0.75), rng.uniform(1.35, 1.7), depth - 0.12)
    target = (width * rng.uniform(0.4, 0.6), rng.uniform(0.65, 0.9), depth * rng.uniform(0.2, 0.35))
    return Room(
        kind=str(rng.choice(ROOM_TYPES)),
        seed=seed,
        width=width,
        depth=depth,
        height=height,
        style=str(rng.choice(["modern", "classic"])),
        palette=palettes.coordinated(rng),
        floor=str(rng.choice(["planks", "planks", "planks", "tiles", "carpet"])),
        wall=str(rng.choice(["plaster", "plaster", "plaster", "stripes"])),
        windows=windows,
        door=_door(rng, windows, width, depth),
        camera=Camera(eye, target, rng.uniform(62, 75)),
        light=_light(rng, windows[0].wall),
    )


def _windows(rng, width, depth, height):
    """One or two windows on different walls, of one height; the first is where the sun comes from."""
    walls = rng.permutation([BACK, LEFT, RIGHT])[: rng.integers(1, 3)]
    bottom = float(rng.choice([0.12, 0.85, 0.95]))
    top = min(height - 0.25, 2.25)
    found = []
    for wall in walls:
        span = rng.uniform(1.0, 1.8)
        room_for_it = width if wall == BACK else depth - 1.6
        found.append(Opening(str(wall), rng.uniform(0.4, room_for_it - span - 0.4), span, bottom, top - bottom))
    return tuple(found)


def _door(rng, windows, width, depth):
    free = [wall for wall in (BACK, LEFT, RIGHT) if wall not in [window.wall for window in windows]]
    if rng.uniform() < 0.35:
        return None
    wall = str(rng.choice(free))
    return Opening(wall, rng.uniform(0.3, (width if wall == BACK else depth - 1.2) - 1.2), 0.86, 0.0, 2.05)


def _light(rng, wall):
    sun = None
    if rng.uniform() < 0.65:
        across, down, side = 1.0, rng.uniform(0.55, 1.0), rng.uniform(-0.5, 0.5)
        sun = {BACK: (side, -down, across), LEFT: (across, -down, side), RIGHT: (-across, -down, side)}[wall]
    warmth = rng.uniform(-0.06, 0.06)
    return Light(
        sky=rng.uniform(5.0, 8.0),
        sky_tint=(1 + warmth, 1.0, 1 - warmth),
        sun=sun,
        sun_level=rng.uniform(12, 26),
        lamps=rng.uniform(5.0, 11.0),
        exposure_stops=rng.uniform(-0.2, 0.2),
    )
