"""The embedded demo: its data in SA-BENCH's layout, its checkpoint, and the results of make demo."""

from __future__ import annotations

import csv
import functools
import hashlib
import itertools
import json
import subprocess

import numpy as np
import pytest
from PIL import Image

from helpers import REPOSITORY, run_command
from make.learn import study
from saiqa import Scorer, facts
from saiqa.engines import Rating, Request, load_engine
from saiqa.evaluate.figures import correlate
from saiqa.files import csv_files, folders, question_files
from saiqa.scoring import score_of, split_answer, word_of_mos

DEMO = folders.roots(demo=True)
CHECKPOINT = DEMO.models / facts.tuned_model(4)
TOLERANCE = 1e-4
LEAST_PLCC = {"distortion": 0.85, "harmony": 0.78, "layout": 0.78, "lighting": 0.86}
LEAST_POOLED_PLCC = 0.82
MOST_GIVEN_AWAY = {"distortion": 0.55, "harmony": 0.8, "layout": 0.35}
LEAST_RIDGE_BEHIND = 0.05
LEAST_FALLING = {"distortion": 0.8, "harmony": 0.8, "layout": 0.8, "lighting": 0.9}  # of the series


def table(dimension, split):
    found = csv_files.read_csv(folders.annotation_csv(DEMO.data, dimension, split), required=["id"])
    assert len(set(found.column("id"))) == len(found.rows)
    return found


@pytest.mark.parametrize("dimension", facts.DIMENSIONS)
def test_layout_and_size(dimension):
    for split, least in (("train", 600), ("val", 120), ("test", 120)):
        rows = table(dimension, split).rows
        assert len(rows) >= least
        raters = [name for name in rows[0] if name.startswith(f"{dimension}_score_") and name[-1].isdigit()]
        for row in rows:
            mos = sum(int(row[name]) for name in raters) / len(raters)
            assert abs(float(row[f"{dimension}_score_mos"]) - mos) < 0.006
            assert 1 <= int(row[f"{dimension}_score_mos_int"]) <= 5
        for version in facts.PROMPT_VERSIONS:
            examples = question_files.read_records(folders.annotation_jsonl(DEMO.data, dimension, split, version))
            assert [folders.image_id(example.image) for example in examples] == [row["id"] for row in rows]
            for example, row in zip(examples, rows, strict=True):
                assert example.query == facts.query(dimension, version)
                assert split_answer(example.response)[1] == word_of_mos(row[f"{dimension}_score_mos"])
                assert folders.resolve_image(example.image, DEMO.data).is_file()


def test_no_image_is_in_two_splits():
    """No file occurs twice, and no room is in two splits or twice in one dimension."""
    with open(DEMO.data / "annotations" / "scenes.csv", newline="") as file:
        scenes = [(row["split"], row["dimension"], row["scene_seed"]) for row in csv.DictReader(file)]
    assert len(set(scenes)) == len(scenes)
    rooms = {split: {seed for name, _, seed in scenes if name == split} for split in ("train", "val", "test")}
    assert all(rooms.values())
    with open(study.SERIES / "series.csv", newline="") as file:
        rooms["series"] = {row["scene_seed"] for row in csv.DictReader(file)}
    assert not any(first & second for first, second in itertools.combinations(rooms.values(), 2))
    pictures = list(DEMO.data.glob("images/*/images/*.jpg"))
    assert len(pictures) == len(scenes)
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures}) == len(pictures)


def test_what_is_committed_stays_small():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "demo"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    assert sum((REPOSITORY / name).stat().st_size for name in listed if name) <= 45e6


def test_the_checkpoint_carries_its_pixel_bounds_and_no_code():
    config = json.loads((CHECKPOINT / "config.json").read_text())
    assert config["architectures"] == ["Ovis2_5"] and config["max_pixels"] == 40_000
    assert not list(CHECKPOINT.glob("*.py"))
    assert not list(CHECKPOINT.glob("*.bin"))


@pytest.fixture(scope="module")
def requests():
    asked = []
    for dimension in facts.DIMENSIONS:
        for example in question_files.read_records(folders.annotation_jsonl(DEMO.data, dimension, "test", 4)):
            image = folders.resolve_image(example.image, DEMO.data)
            asked.append(Request(image, example.query, split_answer(example.response)[0]))
    return asked


@pytest.mark.slow
def test_prefill_and_swift_agree_on_every_test_image(requests):
    prefill = load_engine("prefill", CHECKPOINT, device="cpu", dtype="float32").rate(requests)
    swift = load_engine("swift", CHECKPOINT, device="cpu", dtype="float32", batch_size=32).rate(requests)
    for request, ours, theirs in zip(requests, prefill, swift, strict=True):
        assert isinstance(theirs, Rating), theirs
        assert theirs.text.startswith(request.answer_prefix)
        for word in facts.WORDS:
            assert abs(ours.logprobs[word] - theirs.logprobs[word]) < TOLERANCE, request.image


@pytest.mark.slow
def test_the_three_stages_and_pooling(tmp_path):
    """The commands of `make demo`, with separate results."""
    ran = run_command("infer.py", "--demo", "--results_dir", tmp_path, "--json")
    assert ran.code == 0, ran.err
    pooled = run_command("evaluate_correlation.py", "--results_dir", tmp_path, "--json")
    assert pooled.code == 0, pooled.err
    figures = pooled.json["dimensions"]
    assert set(figures) == set(facts.DIMENSIONS)
    assert all(figure["n"] >= 120 for figure in figures.values())
    assert pooled.json["n"] == sum(figure["n"] for figure in figures.values())
    for dimension, least in LEAST_PLCC.items():
        assert figures[dimension]["plcc"] >= least
    assert pooled.json["plcc"] >= LEAST_POOLED_PLCC


@functools.cache  # it reads every picture of a dimension
def ridge_plcc(dimension):
    return correlate(*study.ridge_predictions(dimension)).plcc


@pytest.mark.parametrize(("dimension", "most"), MOST_GIVEN_AWAY.items())
def test_global_statistics_do_not_give_the_score_away(dimension, most):
    assert ridge_plcc(dimension) < most


@pytest.fixture(scope="module")
def scorer():
    return Scorer(demo=True, device="cpu")


@pytest.mark.parametrize("dimension", ["distortion", "harmony", "layout"])
def test_ridge_regression_on_global_statistics_stays_behind_the_model(dimension, scorer):
    mos = study.mean_opinions(dimension, "test")
    scored = scorer.score([study.image_file(dimension, name) for name in mos], [dimension])
    of_model = correlate([result.scores[dimension] for result in scored], list(mos.values()))
    assert ridge_plcc(dimension) < of_model.plcc - LEAST_RIDGE_BEHIND


@pytest.mark.parametrize(("dimension", "least"), LEAST_FALLING.items())
def test_scores_fall_along_graded_series(dimension, least, scorer):
    falling = study.falling_series(scorer, dimension)
    assert len(falling) >= 12
    assert sum(falling.values()) >= least * len(falling)


def test_light_gets_worse_step_by_step_in_a_series():
    """The pictures change at every step: no kind of fault has its full effect at once."""
    for name, paths in study.series("lighting").items():
        fair, *spoilt = (np.asarray(Image.open(path).convert("RGB"), float) for path in paths)
        changes = [0.0, *(np.abs(values - fair).mean() for values in spoilt)]
        assert np.diff(changes).min() > 0.05 * changes[-1], name


@pytest.mark.parametrize("dimension", facts.DIMENSIONS)
def test_the_raters_leave_almost_everything_attainable(dimension):
    for split in ("train", "test"):
        assert 0.95 < study.ceiling(dimension, split) < 0.99


@pytest.mark.slow
def test_swift_scores_through_the_command(tmp_path):
    common = ["--demo", "--dimension", "lighting", "--mode", "infer", "--limit", "4", "--results_dir", tmp_path]
    assert run_command("infer.py", *common, "--engine", "swift").code == 0
    result = tmp_path / "lighting_prompt4_sa-iqa-prompt4_limit4.jsonl"
    slow = [json.loads(line) for line in result.read_text().splitlines()]
    assert run_command("infer.py", *common).code == 0
    fast = [json.loads(line) for line in result.read_text().splitlines()]
    for one, other in zip(slow, fast, strict=True):
        assert one["images"] == other["images"] and "text" in one
        assert abs(score_of(one["logits"]) - score_of(other["logits"])) < TOLERANCE


def test_a_real_size_photograph_is_brought_within_the_bounds():
    engine = load_engine("prefill", CHECKPOINT, device="cpu")
    big = Image.linear_gradient("L").resize((4000, 3000)).convert("RGB")
    (answer,) = engine.rate([Request(big, facts.query("lighting"), facts.answer_prefix("lighting"))])
    assert isinstance(answer, Rating)
