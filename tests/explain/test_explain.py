"""explain.py: its files, its output, and its refusals."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image

from helpers import SMALL_BUNDLE
from saiqa import facts, image_map
from saiqa.files import folders

ROOMS = folders.demo_rooms()


def test_a_map_of_each_room(run_main, tmp_path):
    ran = run_main("explain.py", ROOMS[6], ROOMS[7], "--demo", "--dimension", "layout", "--output_dir", tmp_path)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert len(lines) == 2 and all(" layout " in line and " points" in line for line in lines)
    assert "no judge of real ones" in ran.err and "and no better for sunken" in ran.err
    for room in ROOMS[6:8]:
        with Image.open(tmp_path / f"{room.stem}_layout.png") as drawn:
            assert drawn.size == Image.open(room).size and drawn.format == "PNG"
    assert len(list(tmp_path.iterdir())) == 2


def test_all_dimensions_are_drawn_each_in_its_way(run_main, tmp_path):
    ran = run_main("explain.py", ROOMS[0], "--demo", "--json", "--device", "cpu", "--output_dir", tmp_path)
    assert ran.code == 0, ran.err
    assert [one["dimension"] for one in ran.json["maps"]] == list(facts.DIMENSIONS)
    assert all(len(one["map"]) == 5 and one["method"] == image_map.DEFAULTS[one["dimension"]] for one in ran.json["maps"])
    assert all(f"{image_map.standing(dimension, True)}\n" in ran.err for dimension in facts.DIMENSIONS)


def test_another_checkpoint_is_told_that_nobody_checked(run_main, tmp_path):
    flags = ("--model_path", SMALL_BUNDLE, "--data_root", tmp_path, "--device", "cpu", "--output_dir", tmp_path / "maps")
    ran = run_main("explain.py", ROOMS[0], *flags)
    assert ran.code == 0 and "validated on the demo's checkpoint only" in ran.err


def test_pictures_of_one_name_and_a_broken_one(run_main, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(ROOMS[0], tmp_path / folder / "room.jpg")
    (tmp_path / "b" / "zero.jpg").write_bytes(b"")
    maps = tmp_path / "maps"
    dimension = "harmony"
    flags = ("--demo", "--dimension", dimension, "--device", "cpu", "--output_dir", maps)
    ran = run_main("explain.py", tmp_path / "a", tmp_path / "b", *flags)
    assert ran.code == 3 and "zero.jpg: " in ran.err and "1 of 3 images have no map" in ran.err
    assert sorted(path.name for path in maps.iterdir()) == [f"room-2_{dimension}.png", f"room_{dimension}.png"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--demo", "--dimension", "beauty"], "'beauty' is not among"),
        ([], "no pictures given"),
        (["--demo", "--engine", "swift"], "--engine swift has no maps"),
        (["--demo", "--dtype", "int8"], "no maps in --dtype int8"),
        (["nowhere.jpg", "--demo"], "nowhere.jpg is not there"),
        (["https://example.org/a.jpg", "--demo"], "is not a local file"),
        (["--demo", "--method", "magic"], "invalid choice: 'magic'"),
    ],
)
def test_mistakes_are_one_line(run_main, flags, says):
    ran = run_main("explain.py", *flags)
    assert ran.code == 2 and says in ran.err and ran.err.count("\n") == 1


def test_a_picture_is_not_written_over(run_main, tmp_path):
    dimension = "harmony"
    names = ("room.jpg", f"room_{dimension}.png")
    for name in names:
        Image.open(ROOMS[0]).save(tmp_path / name)
    paths = [tmp_path / name for name in names]
    ran = run_main("explain.py", *paths, "--demo", "--dimension", dimension, "--output_dir", tmp_path)
    assert ran.code == 2 and "both read and written" in ran.err
