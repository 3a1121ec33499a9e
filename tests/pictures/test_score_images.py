"""score_images.py end to end, with the real engine on a small real bundle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import (
    NO_ANNOTATIONS,
    SMALL_BUNDLE,
    TOOLS,
    interruptible,
    paint,
    read_csv,
    read_jsonl,
    run_command,
    write_csv,
)
from saiqa import facts
from saiqa.files import folders
from saiqa.scorer import Scorer

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


def test_the_demo_scores_its_own_rooms(tmp_path):
    image = next((folders.roots(demo=True).data / "images" / "lighting" / "images").iterdir())
    ran = run_command("score_images.py", "--demo", image, "--json")
    assert ran.code == 0, ran.err
    assert "the annotations in " in ran.err and "no judge of real ones" in ran.err
    assert len(ran.json["images"][0]["scores"]) == 4


# ---- unreadable images -----------------------------------------------------------------------------------------------


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


@pytest.mark.slow
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
