"""The cases of the reference bundle: the question of each, and the expected answer of an engine."""

from __future__ import annotations

import json

from PIL import Image

from helpers import SMALL_BUNDLE
from saiqa.engines import Rating, Request
from saiqa.facts import WORDS

TOLERANCE = 1e-4  # of a log-probability in float32
CASES = json.loads((SMALL_BUNDLE / "expected.json").read_text())["cases"]

# The oracle's names for the cases with and without the system prompt of args.json.
OWN_SYSTEM, NO_SYSTEM = "_with_system", ""


def request_of(case) -> Request:
    return Request(SMALL_BUNDLE / case["image"], case["query"], case["answer_prefix"])


def assert_rated(answer, case, system=NO_SYSTEM):
    assert isinstance(answer, Rating)
    for word in WORDS:
        assert abs(answer.logprobs[word] - case[f"label_logprobs{system}"][word]) < TOLERANCE


def encoded_by_swift(engine, case) -> dict:
    """A case as encoded by ms-swift's template."""
    from swift import InferRequest

    image = Image.open(SMALL_BUNDLE / case["image"]).convert("RGB")
    template = engine.engine.template
    template.model = engine.engine.model
    return template.encode(InferRequest(messages=[{"role": "user", "content": case["query"]}], images=[image]))
