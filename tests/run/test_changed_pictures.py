"""A score belongs to the picture at the time of the request, and a rating is kept only while its picture is unchanged."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from helpers import SMALL_BUNDLE, read_jsonl, write_jsonl

PICTURES = sorted((SMALL_BUNDLE / "images").glob("ref_[345].*"))


@pytest.fixture(scope="module")
def expected(scorer):
    return [result.scores for result in scorer.score([Image.open(path).convert("RGB") for path in PICTURES])]


def frames_in_a_file(folder):
    for picture in PICTURES:
        Image.open(picture).convert("RGB").save(folder / "frame.png")
        yield folder / "frame.png"


def frames_in_an_array(folder):
    array = np.zeros((1, 1, 3), np.uint8)
    for picture in PICTURES:
        new = np.asarray(Image.open(picture).convert("RGB"))
        array = array if array.shape == new.shape else np.empty_like(new)
        array[:] = new
        yield array
        array[:] = 0


def frames_in_a_picture(folder):
    for picture in PICTURES:
        canvas = Image.open(picture).convert("RGB")
        yield canvas
        canvas.paste((0, 0, 0), (0, 0, *canvas.size))


@pytest.mark.parametrize("frames", (frames_in_a_file, frames_in_an_array, frames_in_a_picture))
def test_what_is_filled_anew_for_the_next_frame_is_scored_frame_by_frame(frames, scorer, expected, tmp_path):
    found = [result.scores for result in scorer.stream(frames(tmp_path))]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def replace_keeping_the_time(picture, source):
    before = picture.stat()
    shutil.copy(source, picture)
    with picture.open("ab") as file:
        file.write(b"\0" * (before.st_size - picture.stat().st_size))
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def asked(tmp_path):
    """Two pictures with the same size in bytes, questions about them, and the flags of the commands."""
    folder = tmp_path / "SA-BENCH" / "images"
    folder.mkdir(parents=True)
    paths = [folder / name for name in ("a.jpg", "b.jpg")]
    for path in paths:
        shutil.copy(PICTURES[2], path)
    questions = [
        {"images": [str(path)], "query": "<image>\nHow is the lighting?", "response": "The lighting is good."} for path in paths
    ]
    write_jsonl(tmp_path / "lighting_3k_test_prompt4.jsonl", questions)
    flags = ["--dimension", "lighting", "--mode", "infer", "--model_path", SMALL_BUNDLE, "--device", "cpu"]
    files = ["--test_jsonl", tmp_path / "lighting_3k_test_prompt4.jsonl", "--output_jsonl", tmp_path / "out.jsonl"]
    return paths, [*flags, *files], tmp_path / "out.jsonl"


def test_a_changed_picture_is_rated_again(asked, run_main):
    (first, _), flags, output = asked
    assert run_main("infer.py", *flags).code == 0
    before = read_jsonl(output)
    assert before[0]["picture"]["bytes"] == first.stat().st_size
    assert "complete" in run_main("infer.py", *flags, "--resume").err
    shutil.copy(PICTURES[0], first)
    ran = run_main("infer.py", *flags, "--resume")
    assert ran.code == 0 and "1 pictures have changed since they were rated" in ran.err
    after = read_jsonl(output)
    assert [line["images"] for line in after] == [line["images"] for line in before]
    assert after[0]["logits"] != before[0]["logits"] and after[1]["logits"] == before[1]["logits"]


def test_digests_tell_a_picture_that_kept_its_size_and_time(asked, run_main):
    (first, _), flags, output = asked
    assert run_main("infer.py", *flags, "--digests").code == 0
    before = read_jsonl(output)
    replace_keeping_the_time(first, PICTURES[0])
    assert first.stat().st_size == before[0]["picture"]["bytes"]
    ran = run_main("infer.py", *flags, "--resume", "--digests")
    assert "1 pictures have changed" in ran.err
    assert read_jsonl(output)[0]["logits"] != before[0]["logits"]


def test_score_images_scores_a_changed_picture_again(asked, run_main, tmp_path):
    (first, second), _, _ = asked
    flags = [first, second, "--model_path", SMALL_BUNDLE, "--device", "cpu", "--output_jsonl", tmp_path / "scores.jsonl"]
    assert run_main("score_images.py", *flags).code == 0
    before = read_jsonl(tmp_path / "scores.jsonl")
    shutil.copy(PICTURES[0], first)
    ran = run_main("score_images.py", *flags, "--resume")
    assert ran.code == 0 and "1 pictures have changed" in ran.err
    after = read_jsonl(tmp_path / "scores.jsonl")
    assert after[0]["scores"] != before[0]["scores"] and after[1] == before[1]
