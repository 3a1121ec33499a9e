"""Places pieces of furniture in a room where they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from make.render import furniture
from make.render.meshes import turn
from make.render.rooms import BACK, FACING, FLAT, LEFT, RIGHT, Placement, Room, before_door, overlapping, rectangle, standing


class Arranger:
    """Places pieces in a room one after another, and refuses those that do not fit."""

    def __init__(self, room: Room, rng: np.random.Generator):
        self.room, self.rng = room, rng
        self.items: list[Placement] = []
        eye = room.camera.eye
        self.reserved = [rectangle(eye[0] - 0.7, eye[0] + 0.7, eye[2] - 1.15, room.depth)]
        if room.door is not None:
            self.reserved.append(before_door(room))

    def fits(self, item: Placement, margin: float = 0.02) -> bool:
        """Whether the piece lies inside the room, clear of the others and of the floor that must stay free."""
        shape = item.corners(margin)
        room = self.room
        if shape.min() < 0 or shape[:, 0].max() > room.width or shape[:, 1].max() > room.depth - 0.3:
            return False
        if item.kind in FLAT:
            return True
        if any(overlapping(shape, zone) for zone in self.reserved):
            return False
        return not any(overlapping(shape, other.corners()) for other in self.items if standing(other))

    def add(self, item: Placement, margin: float = 0.02) -> int | None:
        """The index of the piece once placed, or None where it does not fit."""
        if not self.fits(item, margin):
            return None
        self.items.append(item)
        return len(self.items) - 1

    def piece(self, model: furniture.Model, x: float = 0.0, z: float = 0.0, angle: float = 0.0, **more: Any) -> Placement:
        """A placement of a catalogue model, in the room's colours."""
        palette = self.room.palette
        soft = palette.accent if model.kind in ("armchair", "chair", "desk chair", "small plant") else palette.textile
        return Placement(model.name, model.kind, model.size, x, z, angle, **{"soft": soft, "hard": palette.wood} | more)

    def made(
        self, kind: str, size: tuple[float, float, float], x: float = 0.0, z: float = 0.0, angle: float = 0.0, **more: Any
    ) -> Placement:
        """A placement of a piece that is built from simple solids."""
        colours = {"soft": self.room.palette.textile, "hard": self.room.palette.wood}
        return Placement(kind, kind, size, x, z, angle, **colours | more)

    def against(self, item: Placement, walls: list[str], tries: int = 24, clear: float = 0.03) -> int | None:
        """Place the piece with its back to a wall, away from windows if it is tall; its index or None."""
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

    def _at_window(self, wall: str, along: float, half: float) -> bool:
        return any(
            window.wall == wall and along - half < window.start + window.width + 0.3 and along + half > window.start - 0.3
            for window in self.room.windows
        )

    def beside(
        self, index: int, item: Placement, right: float, ahead: float, angle: float = 0.0, margin: float = 0.02
    ) -> int | None:
        """Place the piece `right` and `ahead` metres from piece `index`, as seen in the direction of that piece's front."""
        anchor = self.items[index]
        offset = turn(anchor.angle) @ (right, 0.0, ahead)
        return self.add(replace(item, x=anchor.x + offset[0], z=anchor.z + offset[2], angle=anchor.angle + angle), margin)

    def upon(self, index: int, item: Placement, right: float = 0.0, angle: float = 0.0) -> None:
        """Stand a small piece on top of piece `index`."""
        base = self.items[index]
        offset = turn(base.angle) @ (right, 0.0, 0.0)
        self.items.append(
            replace(item, x=base.x + offset[0], z=base.z + offset[2], y=base.size[1], angle=base.angle + angle, rides=index)
        )

    def picture(self, index: int, low: float = 0.35) -> None:
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

    def rug(self, x: float, z: float, size: tuple[float, float], angle: float = 0.0) -> None:
        """Lay a rug, shrunk until it fits."""
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

    def choose(self, *kinds: str) -> furniture.Model:
        """A random model of the kinds, of the room's style if there is one."""
        models = furniture.of_kind(*kinds, style=self.room.style)
        return self.rng.choice(models)  # type: ignore[arg-type]  # numpy's stubs accept no lists of objects

    def greenery(self, count: int = 1) -> None:
        """Plants along the walls."""
        for _ in range(count):
            self.against(self.piece(self.choose("plant")), [BACK, LEFT, RIGHT], clear=0.1)

    def storage(self, *kinds: str, walls: Sequence[str] = (BACK, LEFT, RIGHT)) -> int | None:
        """A cupboard or the like against a wall, with a small thing on it when it is low."""
        index = self.against(self.piece(self.choose(*kinds)), list(walls))
        if index is not None and self.items[index].size[1] < 1.0:
            self.upon(index, self.piece(self.choose("small plant", "table lamp")))
            self.picture(index, low=0.6)
        return index

    def floor_lamp(self, index: int) -> None:
        """A standing lamp at either side of piece `index`."""
        lamp = self.made("floor lamp", (0.4, 1.6, 0.4), soft=self.room.palette.curtain)
        reach = self.items[index].size[0] / 2 + 0.3
        if self.beside(index, lamp, reach, -0.1) is None:
            self.beside(index, lamp, -reach, -0.1)
