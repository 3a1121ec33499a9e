"""Answers of a service with a calibration: intervals, and no score that is not sure enough."""

from __future__ import annotations

import io

import httpx
import pytest
from PIL import Image

from helpers import SMALL_BUNDLE
from saiqa import Scorer, facts
from saiqa.reward import Reward, UnscoredError
from serving import PICTURES, served, served_here, write_calibration

OTHERS = [name for name in facts.DIMENSIONS if name != "layout"]


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    return write_calibration(Scorer(SMALL_BUNDLE, device="cpu"), tmp_path_factory.mktemp("made") / "calibration.json")


def asked(url: str) -> dict:
    answer = httpx.post(f"{url}/score", files=[("images", ("a.png", PICTURES[0]))], timeout=300, trust_env=False)
    assert answer.status_code == 200
    return answer.json()["results"][0]


def test_every_score_has_an_interval_and_every_unsure_one_stays_away(calibration):
    scorer = Scorer(SMALL_BUNDLE, device="cpu", calibration=calibration)
    whole = scorer.score(PICTURES[0])
    with served_here(scorer) as url:
        result = asked(url)
        assert result["unsure"] == [] and result["scores"] == pytest.approx(whole.scores, abs=1e-5)
        for name, score in result["scores"].items():
            half = 0.25 if name == "layout" else 1.0
            assert result["intervals"][name] == pytest.approx([max(1, score - half), min(5, score + half)], abs=1e-5)
    scorer = Scorer(SMALL_BUNDLE, device="cpu", calibration=calibration)
    with served_here(scorer, max_width=1) as url:
        assert httpx.get(f"{url}/health", trust_env=False).json()["max_width"] == 1
        result = asked(url)
        assert (list(result["scores"]), result["unsure"], result["overall"]) == (["layout"], OTHERS, None)
        assert result["error"] is None and result["verdict"] == "not sure of distortion, harmony, lighting"
        assert set(result["intervals"]) == set(facts.DIMENSIONS)
        with pytest.raises(UnscoredError, match="not sure of distortion"):
            Reward(service=url)([Image.open(io.BytesIO(PICTURES[0])).convert("RGB")])


def test_the_flags_of_the_command(calibration, tmp_path):
    flags = ["--model_path", SMALL_BUNDLE, "--device", "cpu", "--calibration", calibration, "--confidence", "0.99"]
    with served(tmp_path / "log", *flags, "--max_width", "3.9") as service:
        health = httpx.get(f"{service.url}/health", trust_env=False).json()
        assert (health["confidence"], health["max_width"]) == (0.99, 3.9)
        result = asked(service.url)
        # 20 pictures cannot support 99%: every interval is the whole scale, and no score is sure.
        assert result["intervals"] == {name: [1, 5] for name in facts.DIMENSIONS}
        assert (result["scores"], result["unsure"]) == ({}, list(facts.DIMENSIONS))


@pytest.mark.parametrize("flag", [("--confidence", "0.5"), ("--max_width", "1")])
def test_flags_of_intervals_need_a_calibration(run_main, flag):
    ran = run_main("serve.py", "--demo", *flag)
    assert ran.code == 2 and "--calibration FILE" in ran.err


def test_a_service_without_a_calibration_promises_nothing():
    with served_here(Scorer(SMALL_BUNDLE, device="cpu")) as url:
        health = httpx.get(f"{url}/health", trust_env=False).json()
        assert (health["confidence"], health["max_width"]) == (None, None)
        result = asked(url)
        assert (result["intervals"], result["unsure"]) == ({}, [])
