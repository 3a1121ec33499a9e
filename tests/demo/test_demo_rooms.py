"""The generator of the demo's rooms, without rendering: what it draws, and what a fault may change."""

from __future__ import annotations

import csv
import itertools

import numpy as np
import pytest

from helpers import REPOSITORY
from make.render import faults, generator, layout_faults, palettes, placed_rooms, places, raters, rooms

SEEDS = range(40)


def pieces(room):
    return [item for item in room.items if rooms.standing(item)]


def test_the_same_seed_gives_the_same_room():
    assert generator.generate(11) == generator.generate(11)
    assert generator.generate(11) != generator.generate(12)


def test_all_room_types_are_drawn():
    assert {generator.generate(seed).kind for seed in SEEDS} == set(rooms.ROOM_TYPES)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_fault_furniture_stands_inside_and_apart(seed):
    room = generator.generate(seed)
    assert len(room.items) >= generator.FEWEST_PIECES
    for item in pieces(room):
        corners = item.corners()
        assert item.y == 0
        assert corners.min() > -0.06 and corners[:, 0].max() < room.width + 0.06
    footprints = [item.corners(-0.04) for item in pieces(room) if "chair" not in item.kind and item.kind != "stool"]
    for i, first in enumerate(footprints):
        assert not any(rooms.overlapping(first, second) for second in footprints[i + 1 :])


@pytest.mark.parametrize("kind", [kind for kinds in faults.KINDS.values() for kind in kinds], ids=lambda k: k.__name__)
def test_a_fault_does_nothing_at_0_and_something_at_1_and_leaves_the_nuisances_alone(kind):
    room = generator.generate(5)
    spoilt = kind(room, 1.0, np.random.default_rng(0))
    assert spoilt != room
    for name in ("kind", "width", "depth", "height", "camera", "light", "windows", "door"):
        assert getattr(spoilt, name) == getattr(room, name)
    unspoilt = kind(room, 0.0, np.random.default_rng(0))
    assert _numbers(unspoilt) == pytest.approx(_numbers(room))


def _numbers(room):
    """The numbers that a fault of severity 0 must not change: places, sizes, colours, and the levels of faults."""
    spoil, shell = room.spoil, room.shell
    values = [spoil.smear, spoil.warp, spoil.ripple, spoil.stops, spoil.flat, spoil.contrast, *spoil.cast, shell.bulge]
    for item in room.items:
        values += [item.x, item.y, item.z, item.angle, item.tilt, *item.scale, *item.size, *item.soft, *item.hard]
        bend = item.bend or rooms.Bend()
        values += [bend.twist, *bend.shear, bend.wave, bend.melt]
    covers = [cover.share for cover in (shell.wall, shell.floor, *(item.cover for item in room.items)) if cover]
    values += [max(covers, default=0.0), len(room.items), len(spoil.stray)]
    return [*values, *np.ravel(room.palette.art), *room.palette.wall, *room.palette.curtain]


ALL_KINDS = [(dimension, kind) for dimension, kinds in faults.KINDS.items() for kind in kinds]


@pytest.mark.parametrize(("dimension", "kind"), ALL_KINDS, ids=[kind.__name__ for _, kind in ALL_KINDS])
def test_a_fault_stays_the_same_fault_while_it_grows(dimension, kind):
    """Only the amount of a fault depends on the severity: a series shows one growing fault."""
    for seed in range(3):
        room = generator.generate(seed)
        half, full = (kind(room, severity, np.random.default_rng(seed)) for severity in (0.5, 1.0))
        assert half != full
        for name in ("stops", "flat", "contrast", "warp", "ripple", "smear"):
            assert abs(getattr(full.spoil, name)) >= abs(getattr(half.spoil, name))
        if len(half.items) == len(full.items) == len(room.items):
            for item, little, much in zip(room.items, half.items, full.items, strict=True):
                if little.model == item.model:
                    moved = np.hypot(little.x - item.x, little.z - item.z), np.hypot(much.x - item.x, much.z - item.z)
                    assert moved[1] >= moved[0] - 1e-9


@pytest.mark.parametrize("kind", faults.KINDS["layout"], ids=lambda kind: kind.__name__)
def test_a_fault_of_layout_empties_no_view_and_blocks_none(kind):
    """Furniture stays in view, unless an empty room is the fault, and none stands where the camera is."""
    for seed in range(20):
        spoilt = kind(generator.generate(seed), 1.0, np.random.default_rng(seed))
        standing = pieces(spoilt)
        seen = [item for item in standing if 0 <= item.x <= spoilt.width and 0 <= item.z <= 0.75 * spoilt.depth]
        assert seen or kind is layout_faults.too_empty
        eye = np.array([spoilt.camera.eye[0], spoilt.camera.eye[2]])
        for item in standing:
            corners = item.corners()
            inside = (corners.min(0) <= eye).all() and (eye <= corners.max(0)).all()
            assert not inside, (seed, item.model)


LEAST_BLOCKED = {layout_faults.jumbled: 0.4, layout_faults.crowded_to_a_side: 0.3, layout_faults.too_full: 0.8}  # of the doors


@pytest.mark.parametrize(("kind", "least"), LEAST_BLOCKED.items(), ids=[kind.__name__ for kind in LEAST_BLOCKED])
def test_faults_of_layout_block_doors_and_fair_rooms_do_not(kind, least):
    def blocked(room):
        return any(rooms.overlapping(piece.corners(), rooms.before_door(room)) for piece in pieces(room))

    with_door = [room for room in map(generator.generate, range(120)) if room.door is not None]
    spoilt = [kind(room, 1.0, np.random.default_rng(room.seed)) for room in with_door]
    assert not any(map(blocked, with_door))
    assert np.mean([blocked(room) for room in spoilt]) > least


def test_a_piece_that_is_tipped_over_stands_on_its_lower_edge():
    from make.render import scene

    heights = []
    for seed in range(10):
        room = layout_faults.jumbled(generator.generate(seed), 0.8, np.random.default_rng(seed))
        for item in pieces(room):
            if item.model in scene.solids.BUILDERS:
                assert abs(item.tilt) > 10
                heights += [min(part.positions[:, 1].min() for part in scene._piece(room, item, None))]
    assert heights and min(heights) > -1e-6 and max(heights) < 0.05  # legs are slightly inside the edge


def test_pieces_that_ride_keep_their_carrier_when_others_go():
    for seed in SEEDS:
        thinned = layout_faults.too_empty(generator.generate(seed), 0.6, np.random.default_rng(seed))
        for item in thinned.items:
            assert item.rides is None or thinned.items[item.rides].y + 0.05 < item.y + thinned.items[item.rides].size[1]
            assert item.rides is None or thinned.items[item.rides].rides is None


def test_a_hue_is_turned_and_a_rich_colour_stays_as_rich():
    from make.render import textures

    rich = textures.colour(0.1, 0.8, 0.7)
    hue, saturation, _ = textures.hue_saturation_value(palettes.turned(rich, 0.5, 1.0))
    assert hue == pytest.approx(0.6, abs=1e-6) and saturation == pytest.approx(0.8, abs=1e-6)
    assert palettes.turned(rich, 0.5, 0.0) == pytest.approx(rich)


def test_what_stands_on_a_table_moves_with_it():
    for seed in SEEDS:
        room = generator.generate(seed)
        riders = [i for i, item in enumerate(room.items) if item.rides is not None]
        if riders:
            moved = layout_faults.crowded_to_a_side(room, 1.0, np.random.default_rng(1))
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


def test_the_places_of_faults_are_those_of_the_rooms_that_have_any():
    stored = np.load(REPOSITORY / "demo" / "places.npz")
    with open(REPOSITORY / "demo/SA-BENCH/annotations/scenes.csv", encoding="utf-8", newline="") as file:
        scenes = {row["id"]: row for row in csv.DictReader(file)}
    wanted = {
        name: row["faults"]
        for name, row in scenes.items()
        if row["split"] in ("val", "test") and places.CHANNELS.keys() >= set(row["faults"].split("+"))
    }
    assert dict(zip(stored["ids"], stored["kinds"], strict=True)) == wanted
    share = np.unpackbits(stored["places"], axis=-1)[:, :, :56].mean((1, 2))
    assert stored["places"].shape[1:] == (42, 7) and (share < 0.95).all() and np.median(share) < 0.5
    assert (share > 0).mean() > 0.98  # the mildest faults may be invisible


def test_fresh_rooms_are_not_the_demos_and_all_their_faults_have_a_place():
    with open(REPOSITORY / "demo/SA-BENCH/annotations/scenes.csv", encoding="utf-8", newline="") as file:
        known = {row["scene_seed"] for row in csv.DictReader(file)}
    for dimension in ("harmony", "layout"):
        found = list(itertools.islice(placed_rooms.rooms(placed_rooms.SEED, dimension), 5))
        again = list(itertools.islice(placed_rooms.rooms(placed_rooms.SEED, dimension), 5))
        assert len({one.id for one in found}) == 5 and [one.id for one in found] == [one.id for one in again]
        assert not known.intersection(str(one.room.seed) for one in found)
        kinds = {kind for one in found for kind in one.kinds}
        assert kinds <= places.CHANNELS.keys() - placed_rooms.SPREAD_OUT
        assert kinds <= {kind.__name__ for kind in faults.KINDS[dimension]}
