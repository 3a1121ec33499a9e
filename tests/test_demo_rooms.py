"""The generator of the demo's rooms, without rendering: what it draws from, and what a fault may change."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from conftest import REPOSITORY

sys.path.append(str(REPOSITORY / "demo" / "build"))

import faults
import raters
import rooms

SEEDS = range(40)


def pieces(room):
    return [item for item in room.items if rooms.standing(item)]


def test_the_same_seed_gives_the_same_room():
    assert rooms.generate(11) == rooms.generate(11)
    assert rooms.generate(11) != rooms.generate(12)


def test_all_room_types_are_drawn():
    assert {rooms.generate(seed).kind for seed in SEEDS} == set(rooms.ROOM_TYPES)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_fault_furniture_stands_inside_and_apart(seed):
    room = rooms.generate(seed)
    assert len(room.items) >= rooms.FEWEST_PIECES
    for item in pieces(room):
        corners = item.corners()
        assert item.y == 0
        assert corners.min() > -0.06 and corners[:, 0].max() < room.width + 0.06
    footprints = [item.corners(-0.04) for item in pieces(room) if "chair" not in item.kind and item.kind != "stool"]
    for i, first in enumerate(footprints):
        assert not any(rooms.overlapping(first, second) for second in footprints[i + 1 :])


@pytest.mark.parametrize("kind", [kind for kinds in faults.KINDS.values() for kind in kinds], ids=lambda k: k.__name__)
def test_a_fault_does_nothing_at_0_and_something_at_1_and_leaves_the_nuisances_alone(kind):
    room = rooms.generate(5)
    spoilt = kind(room, 1.0, np.random.default_rng(0))
    assert spoilt != room
    for name in ("kind", "width", "depth", "height", "camera", "light", "windows", "door"):
        assert getattr(spoilt, name) == getattr(room, name)
    unspoilt = kind(room, 0.0, np.random.default_rng(0))
    assert _numbers(unspoilt) == pytest.approx(_numbers(room))


def _numbers(room):
    """The numbers that a fault of severity 0 must leave: places, sizes, colours, and the levels of what spoils."""
    spoil = replace(room.spoil, wall_waves=1.0)
    values = [spoil.wall_bulge, spoil.smear, spoil.warp, spoil.stops, spoil.flat, spoil.contrast, *spoil.cast]
    for item in room.items:
        values += [item.x, item.y, item.z, item.angle, *item.scale, *item.soft, *item.hard]
        bend = item.bend or rooms.Bend()
        values += [bend.twist, *bend.shear, bend.wave, bend.melt]
    return [*values, len(spoil.stray), *np.ravel(room.palette.art), *room.palette.wall, *room.palette.curtain]


def test_what_stands_on_a_table_moves_with_it():
    for seed in SEEDS:
        room = rooms.generate(seed)
        riders = [i for i, item in enumerate(room.items) if item.rides is not None]
        if riders:
            moved = faults.crowded_to_a_side(room, 1.0, np.random.default_rng(1))
            for i in riders:
                carrier = room.items[i].rides
                gap = room.items[i].x - room.items[carrier].x
                assert moved.items[i].x - moved.items[carrier].x == pytest.approx(gap)
            return
    pytest.fail("no room had anything on a table")


def test_raters_have_bias_and_spread_and_follow_the_severity():
    severity = np.linspace(0, 1, 400)
    marks = raters.ratings(severity, np.random.default_rng(3))
    assert marks.shape == (400, raters.RATERS) and marks.min() == 1 and marks.max() == 5
    assert marks[:40].mean() > 4.3 and marks[-40:].mean() < 1.7
    assert marks.std(axis=1).mean() > 0.2
    assert 0.95 < raters.ceiling(severity, marks.mean(axis=1)) < 1
