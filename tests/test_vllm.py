"""The vLLM engine on the reference bundle, held to the oracle and to prefill.

vLLM has an environment of its own (requirements-vllm.txt); in the project's, only what is said without it is tested.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from conftest import SMALL_BUNDLE, run_command
from saiqa.console import InputError
from saiqa.engines import Failure, Rating, Request, load_engine
from saiqa.engines.vllm_inputs import Inputs, Question, by_image
from saiqa.facts import WORDS
from saiqa.pixels import PixelBounds

TOLERANCE = 1e-4
CASES = json.loads((SMALL_BUNDLE / "expected.json").read_text())["cases"]

with_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: requirements-vllm.txt")


def request_of(case) -> Request:
    return Request(SMALL_BUNDLE / case["image"], case["query"], case["answer_prefix"])


def assert_alike(answer, logprobs):
    assert isinstance(answer, Rating), answer
    for word in WORDS:
        assert abs(answer.logprobs[word] - logprobs[word]) < TOLERANCE


@pytest.fixture(scope="module")
def engine():
    return load_engine("vllm", SMALL_BUNDLE, system="", dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def prefill():
    return load_engine("prefill", SMALL_BUNDLE, system="", device="cpu")


@pytest.fixture
def bounds(engine, prefill, monkeypatch):
    """Sets the bounds of both engines, which are otherwise the checkpoint's."""

    def give(bounds: PixelBounds) -> None:
        monkeypatch.setattr(engine.inputs, "bounds", bounds)
        monkeypatch.setattr(prefill, "bounds", bounds)

    return give


@with_vllm
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_each_case_alone(engine, case):
    (answer,) = engine.rate([request_of(case)])
    assert_alike(answer, case["label_logprobs"])


@with_vllm
def test_all_cases_in_one_call(engine, prefill):
    """Six pictures of different sizes, one of them with four dimensions; twice, the second time out of the cache."""
    requests = [request_of(case) for case in CASES]
    rated = prefill.rate(requests)
    for _ in range(2):
        for answer, case, other in zip(engine.rate(requests), CASES, rated, strict=True):
            assert_alike(answer, case["label_logprobs"])
            assert_alike(answer, other.logprobs)


@with_vllm
def test_order_changes_no_score(engine):
    answers = engine.rate([request_of(case) for case in reversed(CASES)])
    for answer, case in zip(answers, reversed(CASES), strict=True):
        assert_alike(answer, case["label_logprobs"])


@with_vllm
def test_the_system_prompt_is_told(engine, monkeypatch):
    monkeypatch.setattr(engine.inputs, "system", "You are a helpful assistant.")
    for answer, case in zip(engine.rate([request_of(case) for case in CASES]), CASES, strict=True):
        assert_alike(answer, case["label_logprobs_with_system"])


@with_vllm
@pytest.mark.parametrize("size", [(64, 96), (700, 30), (200, 200), (2100, 2000)])
@pytest.mark.parametrize("given", [PixelBounds(64 * 64, 160 * 160), PixelBounds(1024, 2**23)], ids=["demo", "wide"])
def test_pictures_enter_at_the_size_that_the_bounds_say(engine, prefill, bounds, given, size):
    """Also where vLLM would resize them: its own bounds are fixed."""
    bounds(given)
    picture = Image.effect_noise(size, 90).convert("RGB")
    request = Request(picture, CASES[0]["query"], CASES[0]["answer_prefix"])
    (answer,), (other,) = engine.rate([request]), prefill.rate([request])
    if isinstance(answer, Failure):
        assert given.max_pixels == 2**23 and size == (2100, 2000) and "tokens" in answer.reason  # more than it was loaded for
    else:
        assert_alike(answer, other.logprobs)


@with_vllm
def test_a_bad_image_fails_alone(engine, tmp_path):
    (tmp_path / "text.jpg").write_text("not a picture")
    bad = [Request(path, CASES[0]["query"], "The lighting is") for path in (tmp_path / "text.jpg", Path("gone.jpg"))]
    long = Request(SMALL_BUNDLE / CASES[0]["image"], "room " * 6000, "The lighting is")
    *failed, answer = engine.rate([*bad, long, request_of(CASES[0])])
    assert all(isinstance(failure, Failure) and failure.reason for failure in failed)
    assert "tokens" in failed[2].reason
    assert_alike(answer, CASES[0]["label_logprobs"])


@with_vllm
def test_marks_in_a_prompt_are_read_as_prefill_reads_them(engine, prefill):
    """A second <image> is text; the marks of a turn are those of a turn in both."""
    request = Request(SMALL_BUNDLE / CASES[0]["image"], "<image>An <image> <|im_end|> <video> of this room", "The lighting is")
    (answer,), (other,) = engine.rate([request]), prefill.rate([request])
    assert_alike(answer, other.logprobs)


@with_vllm
def test_what_it_says_of_itself(engine):
    described = engine.describe()
    assert described["engine"] == "vllm" and described["vllm"] and described["dtype"] == "float32"
    assert described["min_pixels"] == 448 * 448 and described["compile"] is False


@with_vllm
@pytest.mark.parametrize("device", ["cuda:7", "no such device"])
def test_another_device_is_refused(device):
    with pytest.raises(InputError, match="this vLLM computes on"):
        load_engine("vllm", SMALL_BUNDLE, device=device)


@with_vllm
def test_the_command_scores_the_demo(tmp_path):
    """The demo's checkpoint has small pictures and a small vocabulary of its own."""
    flags = ("--demo", "--dimension", "lighting", "--json", "--device", "cpu")
    scored = [run_command("score_images.py", *flags, "--engine", name) for name in ("vllm", "prefill")]
    assert [ran.code for ran in scored] == [0, 0], scored[0].err
    ours, theirs = ([image["overall"] for image in ran.json["images"]] for ran in scored)
    assert ours == pytest.approx(theirs, abs=1e-3) and ours


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_it_is_one_line():
    ran = run_command("score_images.py", "--demo", "--engine", "vllm")
    assert ran.code == 1 and "Traceback" not in ran.err
    assert "--engine vllm needs vllm, which is not installed" in ran.err and "requirements-vllm.txt" in ran.err


def test_flags_of_other_engines_are_refused():
    ran = run_command("score_images.py", "--demo", "--engine", "vllm", "--trust_remote_code")
    assert ran.code == 2 and "--trust_remote_code is for --engine swift" in ran.err


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_questions_are_those_of_the_reference(case):
    inputs = Inputs(SMALL_BUNDLE, "", None, upright=False)
    picture = inputs.picture(SMALL_BUNDLE / case["image"]).image
    question = inputs.question(request_of(case), picture)
    wanted = case["input_ids"] + case["answer_prefix_ids"]
    assert question.before + [-1] * question.visual + question.after == [max(token, -1) for token in wanted]
    assert question.misread(wanted) is None
    assert "resizes" in question.misread(wanted[:10] + wanted[9:])
    assert "other words" in question.misread([*wanted[:-1], wanted[-1] + 1])


def test_questions_about_one_image_come_together():
    requests = [Request(f"{n % 3}.png", "", "") for n in range(7)]
    assert list(by_image(requests)) == [[[0, 3, 6], [1, 4], [2, 5]]]
    assert [len(images) for images in by_image([Request(str(n), "", "") for n in range(130)])] == [64, 64, 2]
    assert len(Question([1], [2, 3], 6, [])) == 9
