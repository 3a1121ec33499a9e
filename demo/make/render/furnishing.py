"""How a room of each kind is furnished."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from make.render import furniture
from make.render.arranger import Arranger
from make.render.meshes import turn
from make.render.rooms import BACK, LEFT, RIGHT, Placement, Room


def furnish_living(room: Room, rng: np.random.Generator) -> list[Placement] | None:
    """Sofa, low table, armchairs, television or shelves, lamp, plants."""
    put = Arranger(room, rng)
    walls = [BACK, BACK, LEFT, RIGHT]
    sofa = put.against(put.piece(put.choose("sofa", "sofa", "corner sofa")), walls, tries=60)
    if sofa is None:
        sofa = put.against(put.piece(furniture.MODELS["sofa2"]), walls, tries=200)
    if sofa is None:
        return None
    seat = put.items[sofa]
    low = put.made("coffee table", (rng.uniform(0.8, 1.15), 0.42, rng.uniform(0.5, 0.65)), soft=room.palette.accent)
    table = put.beside(sofa, low, 0.0, seat.size[2] / 2 + 0.7)
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


def furnish_bedroom(room: Room, rng: np.random.Generator) -> list[Placement] | None:
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


def furnish_dining(room: Room, rng: np.random.Generator) -> list[Placement] | None:
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


def furnish_study(room: Room, rng: np.random.Generator) -> list[Placement] | None:
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
