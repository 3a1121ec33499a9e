"""Pictures unlike those of the calibration: the distance, the engine's look vectors, and the commands."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import mahalanobis

from helpers import calibrated_demo, run_command
from saiqa import Scorer, calibration
from saiqa.calibration import Calibration
from saiqa.engines import Request
from saiqa.evaluate import familiar
from saiqa.evaluate.conformal import ConformalError
from saiqa.files.folders import demo_rooms
from saiqa.model.looks import BUCKETS, looks_of

RNG = np.random.default_rng(0)
MIXING = RNG.normal(size=(6, 6))


def drawn(count: int) -> np.ndarray:
    return RNG.normal(size=(count, 6)) @ MIXING


def test_the_distance_is_that_of_mahalanobis():
    looks = drawn(400)
    found = familiar.fit(looks.tolist())
    known = looks[::2]
    covariance = 0.95 * np.cov(known.T) + 0.05 * np.trace(np.cov(known.T)) / 6 * np.eye(6)
    for look in drawn(5):
        expected = mahalanobis(look, known.mean(0), np.linalg.inv(covariance))
        assert found.distance(look.tolist()) == pytest.approx(expected, rel=1e-3)


def test_few_of_the_kind_are_flagged_and_all_of_another():
    found = familiar.fit(drawn(2000).tolist())
    flagged = np.mean([not found.knows(look) for look in drawn(4000).tolist()])
    assert 0.002 < flagged < 0.025
    assert not any(found.knows(look) for look in (drawn(200) + 60).tolist())


@pytest.mark.parametrize(("looks", "says"), [([[1.0, 2.0]] * 50, "needs 100"), ([[1.0, 2.0]] * 200, "look the same")])
def test_what_cannot_be_known_is_refused(looks, says):
    with pytest.raises(ConformalError, match=says):
        familiar.fit(looks)


def test_so_many_do_not_come_by_chance():
    by_chance = [(0, 0), (0, 40), (1, 1), (1, 3), (12, 1000), (10_100, 1_000_000)]
    assert not any(calibration.is_of_another_kind(*case) for case in by_chance)
    assert all(calibration.is_of_another_kind(*case) for case in [(2, 2), (5, 40), (30, 1000)])


def test_a_look_is_of_its_picture_alone():
    visual = torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    alone, other = looks_of(visual, [20, 30]).tolist()
    assert len(alone) == 2 * BUCKETS and alone == pytest.approx(looks_of(visual[:20], [20])[0].tolist(), abs=1e-6)
    assert alone[0] == pytest.approx(visual[:20, :4].mean().item(), abs=1e-6) and alone != other
    engine = Scorer(demo=True, dtype="float32", device="cpu").engine
    rooms = [Request(room, "How?", "It is") for room in demo_rooms()[:4]]
    together = [rating.look for rating in engine.rate(rooms)]
    for request, look in zip(rooms, together, strict=True):
        assert engine.rate([request])[0].look == pytest.approx(look, abs=1e-4)


@pytest.fixture(scope="module")
def knowing(tmp_path_factory):
    """The demo's calibration, with the looks of its rooms."""
    folder = tmp_path_factory.mktemp("knowing")
    assert calibrated_demo(folder, "--pictures").json["pictures"] == 480
    assert (folder / "calibration.json").stat().st_size < 25_000
    return folder / "calibration.json"


@pytest.mark.slow
def test_what_is_no_room_is_said(knowing, tmp_path):
    noise = RNG.integers(0, 256, (4, 120, 160, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"noise {number}.png")
    Image.new("RGB", (1, 1), "red").save(tmp_path / "pixel.png")
    flags = ("score_images.py", "--demo", "--dtype", "float32", "--calibration", knowing, "--json")
    strange = run_command(*flags, tmp_path, "--max_width", "4")
    assert strange.code == 0, strange.err
    assert "of 5 images the like was not among" in strange.err and "of another kind" in strange.err
    for image in strange.json["images"]:  # no interval is valid for them, so no score is shown as sure
        assert image["notes"] == [calibration.UNLIKE] and image["scores"] == {} and image["overall"] is None
    rooms = run_command(*flags)
    assert rooms.code == 0 and "of another kind" not in rooms.err
    assert sum("notes" in image for image in rooms.json["images"]) <= 1


def test_the_scorer_says_so_too_and_broken_files_are_named(knowing, tmp_path):
    scorer = Scorer(demo=True, dtype="float32", device="cpu", calibration=knowing)
    assert scorer(Image.new("RGB", (200, 150), "black")).notes == (calibration.UNLIKE,)
    found = calibration.read(knowing)
    assert isinstance(found, Calibration) and found.familiar.n == 480
    value = json.loads(knowing.read_text())
    value["familiar"]["whitening"][3] = [1.0]
    (tmp_path / "broken.json").write_text(json.dumps(value))
    with pytest.raises(calibration.InputError, match="not a lower triangle"):
        calibration.read(tmp_path / "broken.json")


def test_pictures_are_seen_as_the_results_say_and_by_their_checkpoint(knowing, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(knowing.parent, results)
    files = sorted(results.glob("*.run.json"))
    flags = ("calibrate.py", results, "--demo", "--pictures", "--output", tmp_path / "calibration.json")
    for file in files:
        record = json.loads(file.read_text())
        record["engine"] |= {"min_pixels": 4096, "max_pixels": 4096}
        file.write_text(json.dumps(record))
    smaller = run_command(*flags)
    assert smaller.code == 0, smaller.err
    mean = calibration.read(tmp_path / "calibration.json").familiar.mean
    assert mean != pytest.approx(calibration.read(knowing).familiar.mean, abs=1e-3)
    for file in files:
        file.write_text(json.dumps({**json.loads(file.read_text()), "model_fingerprint": "0" * 64}))
    other = run_command(*flags)
    assert other.code == 2 and "no longer the checkpoint that made the results" in other.err
