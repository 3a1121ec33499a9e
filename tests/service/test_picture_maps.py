"""POST /explain: the map of a picture is that of ``Scorer.explain``, and requests without a map are refused clearly."""

from __future__ import annotations

import base64

import httpx
import numpy as np
import pytest

from helpers import SMALL_BUNDLE
from saiqa import Scorer, facts, image_map
from saiqa.files.folders import demo_rooms
from saiqa.pictures import overlay
from saiqa.scorer import DEMO_CAVEAT
from saiqa.service.site import PAGE
from serving import PICTURES, form, served_here

ROOM = demo_rooms()[6]


@pytest.fixture(scope="module")
def url():
    with served_here(Scorer(demo=True, device="cpu", dtype="float32"), megapixels=1) as address:
        yield address


@pytest.fixture(scope="module")
def ask(url):
    def explain(**body):
        return httpx.post(f"{url}/explain", **body, timeout=300, trust_env=False)

    return explain


def test_a_map_is_that_of_the_scorer(ask, url):
    plain = Scorer(demo=True, device="cpu", dtype="float32")
    for dimension in facts.DIMENSIONS:
        answer = ask(files=form(ROOM.read_bytes(), kind="jpg"), data={"dimensions": dimension})
        assert answer.status_code == 200, answer.text
        body, wanted = answer.json(), plain.explain(ROOM, dimension)
        assert (body["name"], body["dimension"], body["method"]) == ("0.jpg", dimension, wanted.method)
        assert np.array(body["map"]) == pytest.approx(np.array(wanted.map), abs=1e-5)
        assert (
            body["standing"] == image_map.standing(dimension, True) and body["caveat"] == DEMO_CAVEAT and body["error"] is None
        )
    maps = httpx.get(f"{url}/health", trust_env=False).json()["maps"]
    assert maps == {name: image_map.standing(name, True) for name in facts.DIMENSIONS}


def test_base64_is_taken_and_a_broken_picture_is_an_error(ask):
    data = base64.b64encode(ROOM.read_bytes()).decode()
    sent = ask(json={"images": [{"name": "a", "data": data}], "dimensions": ["layout"]}).json()
    assert sent["name"] == "a" and len(sent["map"]) == 5
    for broken in (b"no picture", ROOM.read_bytes()[:2000]):
        answer = ask(files=form(broken, kind="jpg"), data={"dimensions": "layout"})
        assert answer.status_code == 200 and answer.json()["map"] == []
        assert answer.json()["error"].startswith("cannot read the image")


@pytest.mark.parametrize(
    ("pictures", "dimensions"), [(PICTURES[:1], None), (PICTURES[:2], "layout"), (PICTURES[:1], "layout,harmony")]
)
def test_a_map_is_of_one_picture_and_dimension(ask, pictures, dimensions):
    answer = ask(files=form(*pictures), data={"dimensions": dimensions} if dimensions else {})
    assert answer.status_code == 422 and "one image and one" in answer.json()["detail"]


def test_another_checkpoint_says_that_nobody_checked():
    with served_here(Scorer(SMALL_BUNDLE, device="cpu")) as address:
        body = {"files": form(PICTURES[0]), "data": {"dimensions": "lighting"}}
        answer = httpx.post(f"{address}/explain", **body, timeout=300, trust_env=False).json()
        assert answer["map"] and answer["standing"].startswith(image_map.UNCHECKED) and answer["caveat"] is None


def test_an_engine_without_maps_says_so():
    with served_here(Scorer(SMALL_BUNDLE, device="cpu", views=2)) as address:
        answer = httpx.post(
            f"{address}/explain", files=form(PICTURES[0]), data={"dimensions": "layout"}, timeout=300, trust_env=False
        )
        assert answer.status_code == 501 and "a single view" in answer.json()["detail"]
        assert httpx.get(f"{address}/health", trust_env=False).json()["maps"] == {}
        assert httpx.get(f"{address}/explain", trust_env=False).status_code == 405


def test_the_page_draws_as_the_overlay_does():
    text = (PAGE / "where.js").read_text(encoding="utf-8")
    for name in ("STRONGEST", "FULL", "WEAKEST"):
        assert f"const {name} = {getattr(overlay, name)};" in text
    assert f"const RED = {list(overlay.RED)};" in text
