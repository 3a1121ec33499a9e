"""Several views of a picture: their pixels, and the score as that of the mean distribution."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers import run_command
from saiqa import Scorer, facts
from saiqa.engines import Failure, Rating
from saiqa.files.folders import demo_rooms
from saiqa.run import views


@pytest.fixture(scope="module")
def scorers():
    return {count: Scorer(demo=True, dtype="float32", device="cpu", views=count) for count in views.CHOICES}


def closer(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    across, down = round(width * 0.02), round(height * 0.02)
    return picture.crop((across, down, width - across, height - down))


def test_the_mean_of_the_distributions_of_every_view(scorers):
    room = Image.open(demo_rooms()[3]).convert("RGB")
    seen = [room, ImageOps.mirror(room), closer(room), ImageOps.mirror(closer(room))]
    alone = scorers[1].score(seen)
    for count in (2, 4):
        together = scorers[count](room)
        for dimension in facts.DIMENSIONS:
            expected = np.mean([result.scores[dimension] for result in alone[:count]])
            # The five words have nearly all of the probability, so the mean of the scores is the score of the mean.
            assert together.scores[dimension] == pytest.approx(expected, abs=2e-3)


def test_what_fails_fails_alone_and_notes_stay(scorers, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    clear = tmp_path / "clear.png"
    Image.open(demo_rooms()[0]).convert("RGBA").resize((64, 48)).save(clear)
    pixels = np.array(Image.open(clear))
    pixels[:20, :20, 3] = 0
    Image.fromarray(pixels).save(clear)
    one, other, last = scorers[2].score([broken, clear, demo_rooms()[0]])
    assert "cannot read the image" in one.error and not one.scores
    assert other.error is None and other.notes == ("transparent parts are seen over white",)
    assert last.scores


def test_the_mean_of_probabilities():
    ratings = [Rating({"good": np.log(0.2), "bad": np.log(0.7)}), Rating({"good": np.log(0.6), "bad": np.log(1e-30)})]
    found = views.mean(ratings, ("seen",))
    assert found.notes == ("seen",)
    assert {word: np.exp(log) for word, log in found.logprobs.items()} == pytest.approx({"good": 0.4, "bad": 0.35})
    assert views.mean([ratings[0], Failure("broken")], ()) == Failure("broken")


def test_the_commands_see_so_too_and_never_mix(scorers, tmp_path):
    output = tmp_path / "rooms.jsonl"
    flags = ("score_images.py", "--demo", "--dtype", "float32", "--device", "cpu", "--output_jsonl", output)
    ran = run_command(*flags, "--views", "2")
    assert ran.code == 0, ran.err
    record = json.loads((tmp_path / "rooms.run.json").read_text())
    assert record["engine"]["views"] == 2 and record["identity"]["engine"] == "prefill, 2 views"
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    for line, result in zip(lines, scorers[2].score(demo_rooms()), strict=True):
        assert line["scores"] == pytest.approx(result.scores, abs=1e-4)
    again = run_command(*flags, "--resume")
    assert again.code == 2 and "2 views" in again.err
    mapped = run_command("explain.py", "--demo", "--views", "2", "--output_dir", tmp_path / "maps")
    assert mapped.code == 2 and "a single view" in mapped.err


def test_so_many_views_are_refused():
    with pytest.raises(ValueError, match="views must be one of 1, 2, 4"):
        Scorer(demo=True, views=3)
