"""The example engine to copy: the rest of the program needs only a line in ``ENGINES``."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from helpers import SMALL_BUNDLE
from saiqa import Scorer, engines

SPEC = "saiqa.engines.example:ExampleEngine"


def grey(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def scorer(monkeypatch) -> Scorer:
    monkeypatch.setitem(engines.ENGINES, "example", SPEC)
    return Scorer(SMALL_BUNDLE, engine="example", device="cpu")


def test_brighter_is_better_and_a_broken_picture_fails_alone(scorer):
    dark, broken, middle, bright = scorer.score([grey(0), b"no picture", grey(128), grey(255)])
    assert dark.overall < middle.overall < bright.overall
    assert broken.error and broken.overall is None


def test_its_ratings_are_distributions_that_depend_on_no_batch(scorer):
    requests = [engines.Request(Image.open(io.BytesIO(grey(level))), "", "") for level in (0, 90, 200)]
    together = scorer.engine.rate(requests)
    assert together == [scorer.engine.rate([request])[0] for request in requests]
    assert all(isinstance(rating, engines.Rating) for rating in together)


def test_commands_do_not_offer_it():
    assert SPEC not in engines.ENGINES.values()
