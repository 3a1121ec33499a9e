"""Changes to a room that faults are composed of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from make.render.rooms import Placement, Room


def spoilt(room: Room, **values: Any) -> Room:
    return replace(room, spoil=replace(room.spoil, **values))


def reshelled(room: Room, **values: Any) -> Room:
    return replace(room, shell=replace(room.shell, **values))


def moved(room: Room, change: Callable[[int, Placement], Mapping[str, Any]]) -> Room:
    """The room with ``change(index, item)`` applied to each piece; what stands on a piece moves with it."""
    return resettled(room, [replace(item, **change(i, item)) for i, item in enumerate(room.items)])


def resettled(room: Room, items: Sequence[Placement]) -> Room:
    """The room with its pieces replaced one for one; what stands on a piece follows that piece's top."""
    settled = list(items)
    for i, item in enumerate(items):
        if item.rides is not None:
            before, after = room.items[item.rides], items[item.rides]
            top = before.y + before.size[1] * before.scale[1]
            raised = after.y + after.size[1] * after.scale[1] - top
            settled[i] = replace(item, x=item.x + after.x - before.x, y=item.y + raised, z=item.z + after.z - before.z)
    return replace(room, items=tuple(settled))
