"""The Python interface: pictures in any form as input, typed results as output."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from helpers import GOOD, SMALL_BUNDLE, TOOLS
from saiqa import ImageScore, Scorer, facts, overall
from saiqa.engines import Failure, Rating
from saiqa.errors import InputError
from saiqa.image_score import image_score
from saiqa.scorer import CHUNK_IMAGES


@pytest.fixture(scope="module")
def scorer(tmp_path_factory) -> Scorer:
    return Scorer(SMALL_BUNDLE, device="cpu", data_root=tmp_path_factory.mktemp("no-annotations"))


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(5).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def as_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_every_form_of_a_picture_has_the_same_score(scorer, picture, tmp_path):
    path = tmp_path / "room.png"
    picture.save(path)
    forms = [path, str(path), picture, as_png(picture), bytearray(as_png(picture)), np.asarray(picture)]
    results = scorer.score(forms)
    assert [result.name for result in results] == [str(path)] * 2 + [f"image {n}" for n in (3, 4, 5, 6)]
    assert all(isinstance(result, ImageScore) and result.error is None for result in results)
    for result in results:
        assert result.scores == pytest.approx(results[0].scores, abs=1e-5)


def test_a_result_is_what_its_probabilities_say(scorer, picture):
    [result] = scorer.score([picture])
    assert list(result.scores) == list(result.probabilities) == list(facts.DIMENSIONS)
    for dimension, words in result.probabilities.items():
        assert list(words) == list(facts.WORDS)
        assert math.fsum(words.values()) == pytest.approx(1)
        expected = sum(p * facts.WORD_VALUES[word] for word, p in words.items())
        assert result.scores[dimension] == pytest.approx(expected)
    assert result.overall == pytest.approx(sum(result.scores.values()) / 4)


def test_dimensions_asked_for(scorer, picture):
    [result] = scorer.score([picture], dimensions=["lighting", "harmony"])
    assert list(result.scores) == ["harmony", "lighting"]
    assert result.overall == pytest.approx(sum(result.scores.values()) / 2)


def test_one_bad_picture_fails_alone(scorer, picture, tmp_path):
    torn = as_png(picture)[:200]
    results = scorer.score([b"no picture", picture, tmp_path / "missing.png", torn, b""])
    assert [result.error is None for result in results] == [False, True, False, False, False]
    assert all(result.scores == {} and result.overall is None for result in results if result.error)
    assert "this is not a JPEG" in results[0].error
    assert "missing.png" in results[2].error


def test_many_pictures_are_read_piece_by_piece(scorer, picture):
    read = []

    def pictures():
        for number in range(3 * CHUNK_IMAGES):
            read.append(number)
            yield picture if number % 50 == 0 else b"no picture"

    first = next(scorer.stream(pictures(), ["lighting"]))
    assert first.error is None and len(read) == CHUNK_IMAGES
    results = scorer.score(pictures(), ["lighting"])
    assert [number for number, result in enumerate(results) if not result.error] == [0, 50, 100, 150]
    assert results[-1].name == f"image {3 * CHUNK_IMAGES}"


@pytest.mark.parametrize("images", ["room.png", b"bytes", Image.new("RGB", (8, 8))], ids=lambda value: type(value).__name__)
def test_a_stream_is_of_many(scorer, images):
    with pytest.raises(TypeError, match="give a list"):
        scorer.stream(images)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.int64), np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8)],
)
def test_arrays_of_another_kind_are_refused(scorer, array):
    with pytest.raises(ValueError, match="an array must be"):
        scorer.score([array])


def test_what_is_no_image_is_refused(scorer):
    with pytest.raises(TypeError, match="int is not an image"):
        scorer.score([3])


def test_unknown_names_are_refused(scorer, picture):
    with pytest.raises(ValueError, match="dimension must be one of"):
        scorer.score([picture], ["beauty"])
    with pytest.raises(ValueError, match="not 'lighting'"):
        scorer.score([picture], "lighting")
    with pytest.raises(ValueError, match="engine must be one of"):
        Scorer(SMALL_BUNDLE, engine="none")


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        Scorer(tmp_path / "nothing")


def test_weights(scorer, picture, tmp_path):
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"weights": {"distortion": 0.5, "harmony": 0.0, "layout": 0.0, "lighting": 0.5}}))
    weighted = Scorer(SMALL_BUNDLE, device="cpu", data_root=tmp_path, weights=path)
    [result] = weighted.score([picture])
    assert result.overall == pytest.approx((result.scores["distortion"] + result.scores["lighting"]) / 2)
    with pytest.raises(ValueError, match="all 0"):
        weighted.score([picture], ["harmony"])


def test_the_sentences_are_those_of_the_annotations_if_there(scorer, make_data_root):
    assert scorer.prompt_source == "this project's own wording (tools/prompt_configs.py)"
    root = make_data_root(["lighting"])
    mixed = Scorer(SMALL_BUNDLE, data_root=root.path)
    assert "lighting: the annotations in " in mixed.prompt_source
    assert "harmony: this project's own wording" in mixed.prompt_source
    root = make_data_root()
    assert Scorer(SMALL_BUNDLE, data_root=root.path).prompt_source.startswith("the annotations in ")


def test_a_score_that_is_missing_has_a_reason():
    answers = {"layout": Rating(GOOD), "lighting": Failure("no rating word")}
    result = image_score("a", answers)
    assert (list(result.scores), result.overall, result.error) == (["layout"], None, "lighting: no rating word")
    result = image_score("a", {"layout": Failure("torn"), "lighting": Failure("torn")})
    assert result.error == "torn"
    result = image_score("a", {"layout": Rating({**GOOD, "bad": float("nan")})})
    assert "bad is not a finite number" in result.error


# ---- the overall score -----------------------------------------------------------------------------------------------

FOUR = {"distortion": 1.0, "harmony": 2.0, "layout": 3.0, "lighting": 5.0}


def test_overall_is_a_weighted_mean():
    assert overall.overall_score(FOUR) == pytest.approx(2.75)
    weights = {"distortion": 0.1, "harmony": 0.2, "layout": 0.3, "lighting": 0.4}
    assert overall.overall_score(FOUR, weights) == pytest.approx(3.4)
    assert overall.overall_score({"layout": 3.0, "lighting": 5.0}, {"layout": 0.3, "lighting": 0.1}) == pytest.approx(3.5)
    with pytest.raises(ValueError):
        overall.overall_score({})
    with pytest.raises(ValueError, match="no weight for harmony"):
        overall.overall_score({"harmony": 2.0}, {"layout": 1.0})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot read"),
        ("[]", 'no "weights"'),
        ('{"weights": {"distortion": 1}}', "not for the four dimensions"),
        ('{"weights": {"distortion": 0.5, "harmony": 0.5, "layout": 0.5, "lighting": 0.5}}', "sum to 2"),
        ('{"weights": {"distortion": -0.5, "harmony": 0.5, "layout": 0.5, "lighting": 0.5}}', "at least 0"),
        ('{"weights": {"distortion": NaN, "harmony": 0.5, "layout": 0.5, "lighting": 0}}', "at least 0"),
        ('{"weights": {"distortion": "1", "harmony": 0, "layout": 0, "lighting": 0}}', "at least 0"),
    ],
)
def test_broken_weights_are_refused(tmp_path, text, says):
    path = tmp_path / "weights.json"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        overall.read_weights(path)
    with pytest.raises(InputError, match="is not there"):
        overall.read_weights(tmp_path / "none.json")


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, saiqa; print(sorted({'torch', 'numpy', 'PIL', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=TOOLS, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_one_image_has_one_result(scorer, picture, tmp_path):
    path = tmp_path / "room.png"
    picture.save(path)
    for one in (path, str(path), picture, as_png(picture), np.asarray(picture), io.BytesIO(path.read_bytes())):
        result = scorer(one, ["layout"])
        assert isinstance(result, ImageScore) and set(result.scores) == {"layout"}
    assert scorer.score(path, ["layout"]) == scorer(path, ["layout"])
    assert len(scorer.frame(picture, ["layout"])) == 1
    assert [result.name for result in scorer([path, picture])] == [str(path), "image 2"]


def test_pixels_in_every_form(scorer, picture):
    """uint8 and floats from 0 to 1, arrays and tensors, colour and grey."""
    import torch

    pixels = np.asarray(picture)
    floats, tensor = pixels / 255, torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    results = scorer.score([pixels, floats, floats.astype("float32"), tensor, tensor / 255], ["layout"])
    for result in results[1:]:
        assert result.scores == pytest.approx(results[0].scores, abs=1e-5)
    grey = np.asarray(picture.convert("L"))
    both = scorer.score([grey, grey[:, :, None], picture.convert("L")], ["layout"])
    assert all(result.scores == pytest.approx(both[0].scores, abs=1e-5) for result in both[1:])
    for wrong in (floats * 2, np.full((8, 8, 3), np.nan), pixels.astype("int32"), tensor[:2]):
        with pytest.raises(ValueError, match=r"must|between|not all numbers"):
            scorer(wrong)


def test_a_picture_keeps_the_name_of_its_file(scorer, picture, tmp_path):
    path = tmp_path / "room.png"
    picture.save(path)
    with Image.open(path) as opened, open(path, "rb") as file:
        assert [result.name for result in scorer.score([opened, file])] == [str(path)] * 2


def test_a_table_and_plain_values(scorer, picture, tmp_path, capsys):
    missing = tmp_path / "missing.png"
    table = scorer.frame([picture, missing], progress=True)
    assert "score: 2/2" in capsys.readouterr().err
    assert list(table.columns) == ["image", *facts.DIMENSIONS, "overall", "error"]
    assert table["layout"].notna().tolist() == [True, False] and "No such file" in table["error"][1]
    one = scorer(picture)
    assert one.to_dict()["layout"] == one.scores["layout"] and json.dumps(one.to_dict())


def test_notebooks_show_bars_and_a_thumbnail(scorer, picture, tmp_path):
    path = tmp_path / "<room>.png"
    picture.save(path)
    shown = scorer(path)._repr_html_()
    assert shown.count("<tr") == 5 and "data:image/jpeg;base64," in shown and "<room>" not in shown
    assert "<img" not in scorer(picture)._repr_html_()
