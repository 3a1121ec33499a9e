"""score_images.py from end to end, with the real engine on a small real bundle."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from helpers import (
    NO_ANNOTATIONS,
    SMALL_BUNDLE,
    TOOLS,
    Ran,
    interruptible,
    read_csv,
    read_jsonl,
    run_command,
    write_csv,
    write_jsonl,
)
from saiqa import facts
from saiqa.files import folders
from saiqa.pictures.lists import Lists
from saiqa.scorer import Scorer


def paint(path: Path, seed: int = 0) -> Path:
    """A small picture, another for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64 + seed % 3, 48), (37 * seed % 256, 91 * seed % 256, 200 - seed % 200)).save(path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four pictures, two of them of one name, among other files."""
    root = tmp_path / "renders"
    for seed, name in enumerate(("b/room.png", "a/room.png", "a/deep/007.jpg", "z.webp")):
        paint(root / name, seed)
    paint(root / ".hidden" / "x.png")
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture
def score(run_main, tmp_path):
    """Run the command on the small bundle, without annotations."""

    def run(*args: str | Path) -> Ran:
        flags = ["--model_path", SMALL_BUNDLE, "--data_root", NO_ANNOTATIONS, "--device", "cpu"]
        return run_main("score_images.py", *args, *flags)

    return run


ALL_FOUR = ["a/room.png", "a/deep/007.jpg", "b/room.png", "z.webp"]


def names(rows: list[dict], root: Path) -> list[str]:
    return [str(Path(row["image"]).relative_to(root)) for row in rows]


# ---- results ---------------------------------------------------------------------------------------------------------


def test_a_folder_to_table_csv_and_jsonl(folder, score, tmp_path):
    ran = score(folder, "--output_csv", tmp_path / "o.csv", "--output_jsonl", tmp_path / "o.jsonl")
    assert ran.code == 0, ran.err
    rows, lines = read_csv(tmp_path / "o.csv"), read_jsonl(tmp_path / "o.jsonl")
    assert list(rows[0]) == ["image", *facts.DIMENSIONS, "overall", "error"]
    assert sorted(names(rows, folder)) == sorted(ALL_FOUR)
    assert [line["images"] for line in lines] == [[row["image"]] for row in rows]
    for row, line in zip(rows, lines, strict=True):
        assert {name: float(row[name]) for name in facts.DIMENSIONS} == line["scores"]
        assert float(row["overall"]) == line["overall"] == pytest.approx(sum(line["scores"].values()) / 4)
        assert 1 <= line["overall"] <= 5 and "probabilities" not in line
    heading, *table = ran.out.splitlines()
    assert heading.split() == [*facts.DIMENSIONS, "overall", "image"]
    assert [line.split()[-1] for line in table] == [row["image"] for row in rows]
    assert table[0].split()[0] == f"{lines[0]['scores']['distortion']:.3f}"
    assert "1 .txt" in ran.err and "this project's own wording" in ran.err


def test_the_scores_are_those_of_the_python_interface(folder, score, tmp_path):
    ran = score(folder, "--json", "--probabilities")
    scorer = Scorer(SMALL_BUNDLE, data_root=tmp_path, device="cpu")
    results = scorer.score([value["images"][0] for value in ran.json["images"]])
    for value, result in zip(ran.json["images"], results, strict=True):
        assert value["scores"] == result.scores
        assert value["probabilities"] == result.probabilities
    assert (ran.json["n"], ran.json["failed"], ran.json["model"]) == (4, [], SMALL_BUNDLE.name)


def test_probabilities_in_every_output(folder, score, tmp_path):
    ran = score(folder / "z.webp", "--probabilities", "--output_csv", tmp_path / "o.csv")
    [row] = read_csv(tmp_path / "o.csv")
    words = {word: float(row[f"layout_{word}"]) for word in facts.WORDS}
    assert sum(words.values()) == pytest.approx(1)
    assert float(row["layout"]) == pytest.approx(sum(p * facts.WORD_VALUES[w] for w, p in words.items()))
    assert ran.out.splitlines()[2].split()[:2] == ["distortion", "excellent"]


def test_one_dimension(folder, score, tmp_path):
    ran = score(folder, "--dimension", "lighting", "--output_csv", tmp_path / "o.csv")
    assert ran.out.splitlines()[0].split() == ["lighting", "overall", "image"]
    assert list(read_csv(tmp_path / "o.csv")[0]) == ["image", "lighting", "overall", "error"]


def test_weights(folder, score, tmp_path):
    weights = tmp_path / "weights.json"
    weights.write_text(json.dumps({"weights": dict.fromkeys(facts.DIMENSIONS, 0.0) | {"layout": 1.0}}))
    images = score(folder, "--weights", weights, "--json").json["images"]
    assert all(value["overall"] == value["scores"]["layout"] for value in images)
    ran = score(folder, "--weights", weights, "--dimension", "lighting")
    assert ran.code == 2 and "are all 0" in ran.err


def test_the_run_record(folder, score, tmp_path):
    score(folder, "--dimension", "layout", "--output_csv", tmp_path / "o.csv")
    record = json.loads((tmp_path / "o.run.json").read_text())
    assert record["prompts"]["layout"]["query"] == facts.query("layout", 4)
    assert (record["engine"]["engine"], record["identity"]["dtype"], record["n"]) == ("prefill", "float32", 4)
    assert record["model_path"] == str(SMALL_BUNDLE)


# ---- what cannot be read ---------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_listed_and_tried_again(folder, score, tmp_path):
    broken = folder / "a" / "broken.png"
    broken.write_text("no picture")
    outputs = ["--output_csv", tmp_path / "o.csv", "--output_jsonl", tmp_path / "o.jsonl"]
    ran = score(folder, *outputs, "--json")
    assert ran.code == 3
    assert [failure["image"] for failure in ran.json["failed"]] == [str(broken)]
    assert f"{broken}: cannot read the image" in ran.err and "1 of 5 images lack a score" in ran.err
    [row] = [row for row in read_csv(tmp_path / "o.csv") if row["error"]]
    assert (row["image"], row["overall"], row["layout"]) == (str(broken), "", "")
    before = {row["image"]: row for row in read_csv(tmp_path / "o.csv") if not row["error"]}

    paint(broken, 9)
    paint(folder / "zz.png", 10)
    ran = score(folder, *outputs, "--resume")
    assert ran.code == 0, ran.err
    assert "4 of 6 images are scored already" in ran.err
    rows = read_csv(tmp_path / "o.csv")
    assert len(rows) == len(read_jsonl(tmp_path / "o.jsonl")) == 6
    assert {row["image"]: row for row in rows if row["image"] in before} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.csv", "o.jsonl", "o.run.json", "renders"]


def test_an_earlier_result_stays_where_nothing_could_be_scored(folder, score, tmp_path):
    score(folder, "--output_csv", tmp_path / "o.csv")
    before = (tmp_path / "o.csv").read_bytes()
    for path in folder.rglob("*.*g"):
        path.write_text("no picture")
    (folder / "z.webp").unlink()
    ran = score(folder, "--output_csv", tmp_path / "o.csv")
    assert ran.code == 3 and "nothing was written" in ran.err
    assert (tmp_path / "o.csv").read_bytes() == before


def test_listed_images_that_are_missing_fail_alone(folder, score, tmp_path):
    write_csv(tmp_path / "list.csv", [{"image": "renders/z.webp"}, {"image": "renders/gone.png"}])
    ran = score(tmp_path / "list.csv", "--json")
    assert ran.code == 3
    assert [len(value["scores"]) for value in ran.json["images"]] == [4, 0]
    assert "No such file" in ran.json["images"][1]["error"]


# ---- resume ----------------------------------------------------------------------------------------------------------


def test_an_interrupted_run_is_continued_to_the_same_scores(folder, score, tmp_path):
    for seed in range(66):
        paint(folder / f"{seed:03}.png", seed)
    whole, resumed = tmp_path / "whole.csv", tmp_path / "resumed.csv"
    asked = ["--dimension", "lighting", "--output_csv"]
    assert score(folder, *asked, whole).code == 0
    flags = ["--model_path", SMALL_BUNDLE, "--data_root", NO_ANNOTATIONS, "--device", "cpu"]
    command = [sys.executable, TOOLS / "score_images.py", folder, *asked, resumed, *flags]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(list(map(str, command)), **streams, preexec_fn=interruptible)
    partial = folders.partial_path(resumed)
    while process.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") > 30):
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode == 130 and "continue with --resume" in error, error
    assert not resumed.exists()
    ran = score(folder, *asked, resumed, "--resume")
    assert ran.code == 0, ran.err
    assert "of 70 images are scored already" in ran.err
    assert not partial.exists()
    pairs = list(zip(read_csv(resumed), read_csv(whole), strict=True))
    assert all(one["image"] == other["image"] for one, other in pairs)
    assert [float(one["lighting"]) for one, _ in pairs] == pytest.approx([float(row["lighting"]) for _, row in pairs], abs=1e-6)


def test_another_run_is_not_continued(folder, score, tmp_path):
    output = ["--output_csv", tmp_path / "o.csv"]
    assert score(folder, "--dimension", "layout", *output).code == 0
    ran = score(folder, "--dimension", "lighting", *output, "--resume")
    assert ran.code == 2 and "is of another run: prompt was" in ran.err
    assert not folders.partial_path(tmp_path / "o.csv").exists()
    assert score(folder, "--dimension", "layout", *output, "--resume").code == 0
    (tmp_path / "o.run.json").unlink()
    ran = score(folder, "--dimension", "layout", *output, "--resume")
    assert ran.code == 2 and "nothing tells how" in ran.err


def test_probabilities_that_a_finished_result_lacks_are_made(folder, score, tmp_path):
    output = ["--output_csv", tmp_path / "o.csv"]
    score(folder, *output)
    without = read_csv(tmp_path / "o.csv")
    ran = score(folder, *output, "--resume", "--probabilities")
    assert "scored already" not in ran.err
    rows = read_csv(tmp_path / "o.csv")
    assert [{name: row[name] for name in without[0]} for row in rows] == without
    assert "4 of 4 images are scored already" in score(folder, *output, "--resume", "--probabilities").err
    assert read_csv(tmp_path / "o.csv") == rows


# ---- what is typed ---------------------------------------------------------------------------------------------------


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
        (["room.png", "--resume"], 2, "--resume continues a file"),
        (["room.png", "--output_csv", "a.txt"], 2, "does not end in .csv"),
        (["list.csv", "--image_column", "path", "--output_csv", "list.csv"], 2, ""),
        (["room.png", "--output_csv", "/proc/nowhere/o.csv"], 1, "cannot write"),
        (["room.png", "--weights", "none.json"], 2, "none.json is not there"),
        ([], 2, "no pictures are named"),
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


def test_the_demo_scores_its_own_rooms(tmp_path):
    image = next((folders.roots(demo=True).data / "images" / "lighting" / "images").iterdir())
    ran = run_command("score_images.py", "--demo", image, "--json")
    assert ran.code == 0, ran.err
    assert "the annotations in " in ran.err and "no judge of real ones" in ran.err
    assert len(ran.json["images"][0]["scores"]) == 4
