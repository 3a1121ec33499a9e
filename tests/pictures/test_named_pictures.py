"""Naming the pictures for score_images.py: files, folders, patterns, lists, stdin, and mistakes in these."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import SMALL_BUNDLE, TOOLS, paint, write_csv, write_jsonl
from saiqa.pictures.lists import Lists


@pytest.fixture
def expand(tmp_path):
    def run(*typed: str | Path, stdin: str = "", column: str = "image") -> tuple[list[str], list[str]]:
        notes: list[str] = []
        lists = Lists(column, tmp_path / "data", io.StringIO(stdin), notes.append)
        return list(lists.expand(list(map(str, typed)))), notes

    return run


def test_files_folders_patterns_and_stdin(folder, expand):
    everything, _ = expand(folder)
    relative = [str(Path(path).relative_to(folder)) for path in everything]
    assert relative == ["z.webp", "a/room.png", "a/deep/007.jpg", "b/room.png"]
    assert expand(f"{folder}/*/room.png")[0] == [f"{folder}/a/room.png", f"{folder}/b/room.png"]
    assert expand(f"{folder}/**/*.jpg")[0] == [f"{folder}/a/deep/007.jpg"]
    assert expand(f"{folder}/[ab]")[0] == everything[1:]
    assert expand("-", stdin=f"{folder}/z.webp\n\n{folder}/a/room.png\n")[0] == [f"{folder}/z.webp", f"{folder}/a/room.png"]
    one = paint(folder / "odd[1].tmp.PNG")
    assert expand(one)[0] == [str(one)]
    odd = paint(folder / "odd.dat.png").rename(folder / "odd.dat")
    assert expand(odd)[0] == [str(odd)]


def test_an_image_named_twice_is_taken_once(folder, expand):
    paths, notes = expand(folder / "z.webp", folder, f"{folder}//z.webp")
    assert len(paths) == 4 and paths[0] == str(folder / "z.webp")
    assert "2 images are named more than once" in notes[-1]


def test_lists(folder, expand, tmp_path):
    write_csv(tmp_path / "list.csv", [{"id": "007", "file": "renders/z.webp"}, {"id": "8", "file": str(folder / "a/room.png")}])
    assert expand(tmp_path / "list.csv", column="file")[0] == [f"{folder}/z.webp", f"{folder}/a/room.png"]
    write_jsonl(tmp_path / "list.jsonl", [{"images": ["renders/z.webp"]}, {"image": "renders/b/room.png"}])
    assert expand(tmp_path / "list.jsonl")[0] == [f"{folder}/z.webp", f"{folder}/b/room.png"]
    picture = paint(tmp_path / "data" / "images" / "lighting" / "images" / "1.png")
    write_jsonl(tmp_path / "list.jsonl", [{"images": ["SA-BENCH/images/lighting/images/1.png"]}])
    assert expand(tmp_path / "list.jsonl")[0] == [str(picture)]


@pytest.mark.parametrize(
    ("typed", "code", "says"),
    [
        (["nothing.png"], 2, "nothing.png is not there"),
        (["empty"], 2, "no image in empty"),
        (["nothing*.png"], 2, "nothing matches nothing*.png"),
        (["list.csv"], 2, "has no column image. Its columns are path"),
        (["list.csv", "--image_column", "path"], 2, "list.csv, line 3: no path"),
        (["broken.jsonl"], 2, "broken.jsonl, line 1: not JSON"),
        (["room.png", "--resume"], 2, "--resume needs an output file"),
        (["room.png", "--output_csv", "a.txt"], 2, "does not end in .csv"),
        (["list.csv", "--image_column", "path", "--output_csv", "list.csv"], 2, ""),
        (["room.png", "--output_csv", "/proc/nowhere/o.csv"], 1, "cannot write"),
        (["room.png", "--weights", "none.json"], 2, "none.json is not there"),
        ([], 2, "no pictures given"),
    ],
)
def test_mistakes_are_one_line_and_load_nothing(tmp_path, score, monkeypatch, typed, code, says):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "room.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("path,x\nroom.png,1\n,2\n")
    (tmp_path / "broken.jsonl").write_text("{\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    ran = score(*typed)
    assert (ran.code, ran.out) == (code, "")
    assert says in ran.err and "Traceback" not in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_list_is_never_overwritten(folder, tmp_path, score):
    write_csv(tmp_path / "list.csv", [{"image": str(folder / "z.webp")}])
    ran = score(tmp_path / "list.csv", "--output_csv", tmp_path / "list.csv")
    assert ran.code == 2 and "is both read and written" in ran.err
    with (tmp_path / "list.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["image"]


def test_names_that_are_not_utf8_are_refused(folder, expand):
    from saiqa.errors import InputError

    Path(os.fsdecode(bytes(folder) + b"/\xff.png")).write_bytes((folder / "a/room.png").read_bytes())
    with pytest.raises(InputError, match="is not UTF-8"):
        expand(folder)


def test_a_list_on_stdin(folder, tmp_path):
    command = [sys.executable, str(TOOLS / "score_images.py"), "-", "--model_path", str(SMALL_BUNDLE), "--device", "cpu"]
    listed = f"{folder}/z.webp\n{folder}/a/room.png\n"
    done = subprocess.run([*command, "--json"], input=listed, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [value["images"] for value in json.loads(done.stdout)["images"]] == [[path] for path in listed.split()]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "the list on stdin is empty" in done.stderr
