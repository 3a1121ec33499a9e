"""Description of a room: its pieces, openings, camera and light, and the changes that faults make.

The room fills 0..width (x), 0..height (y), 0..depth (z), in metres. The camera stands near the front wall (z = depth)
and looks towards the back wall (z = 0). Angles are degrees about the vertical; at 0 a piece of furniture faces +z.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from make.render import palettes
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

    def corners(self, margin: float = 0.0) -> np.ndarray:
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
    """What a fault does to the light or the finished picture; all 0 or empty if there is none."""

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


def overlapping(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two convex footprints, (n, 2) corners each, share any area."""
    for shape in (first, second):
        edges = np.roll(shape, -1, 0) - shape
        for normal in np.stack([-edges[:, 1], edges[:, 0]], 1):
            a, b = first @ normal, second @ normal
            if a.max() <= b.min() + 1e-6 or b.max() <= a.min() + 1e-6:
                return False
    return True


def rectangle(x0: float, x1: float, z0: float, z1: float) -> np.ndarray:
    """Corners (4, 2) of an upright rectangle of floor."""
    return np.array([(x0, z0), (x1, z0), (x1, z1), (x0, z1)])


def standing(item: Placement) -> bool:
    """Whether the piece stands on the floor and occupies space there."""
    return item.rides is None and item.kind not in FLAT + HUNG


def before_door(room: Room) -> np.ndarray:
    """Corners (4, 2) of the floor that must stay free at a room's door."""
    assert room.door is not None
    start, end = room.door.start, room.door.start + room.door.width
    if room.door.wall == BACK:
        return rectangle(start, end, 0, DOOR_REACH)
    near = 0 if room.door.wall == LEFT else room.width - DOOR_REACH
    return rectangle(near, near + DOOR_REACH, start, end)
