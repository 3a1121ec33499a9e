"""Maps of what lowers a score, with the demo's checkpoint: the properties of each method, and the scorer's part."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import SMALL_BUNDLE
from saiqa import Scorer, facts, image_map
from saiqa.engines import Request
from saiqa.engines.region_maps import rated
from saiqa.errors import InputError, UsageError
from saiqa.files import folders
from saiqa.model import maps
from saiqa.pictures.overlay import overlay

ROOMS = folders.demo_rooms()


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(demo=True, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def question(scorer) -> maps.Asked:
    sentences = scorer.sentences["layout"]
    return rated(scorer.engine, Request(ROOMS[6], sentences.query, sentences.before))[1]


@pytest.fixture(scope="module")
def regions(question) -> torch.Tensor:
    _, rows, columns = question.picture.grid[0].tolist()
    return maps.regions(rows // 2, columns // 2, 8)[0]


@pytest.mark.parametrize("method", maps.METHODS.values(), ids=maps.METHODS)
def test_a_map_is_finite_and_differs_from_place_to_place(method, question, regions):
    points = method(question, regions)
    assert points.shape == (len(regions),) and points.isfinite().all()
    assert points.std() > 1e-4 and points.abs().max() < 4


@pytest.mark.parametrize("name", ["hidden", "replaced", "painted", "gradient", "towards"])
def test_hiding_nothing_changes_nothing(name, question, regions):
    points = maps.METHODS[name](question, torch.zeros_like(regions[:2]))
    assert points.tolist() == pytest.approx([0, 0], abs=1e-5)


def test_the_whole_picture_is_like_itself(question, regions):
    """A uniform picture has no place that is worse than another."""
    visual = question.visual.mean(0).expand_as(question.visual)
    uniform = replace(question, visual=visual)
    for name in ("replaced", "gradient", "alike", "towards"):
        assert maps.METHODS[name](uniform, regions).tolist() == pytest.approx([0] * len(regions), abs=1e-5), name


def scored(asked: maps.Asked) -> float:
    with torch.no_grad():
        return asked.scores(asked.visual[None]).item()


def masked(asked: maps.Asked, region: torch.Tensor, blind_from: int) -> float:
    """The score of a full pass in which the tokens from ``blind_from`` on do not attend to a region [groups]."""
    embeds = torch.cat([asked.before, asked.visual, asked.after])
    seen = torch.ones(len(embeds), len(embeds), dtype=torch.bool).tril()
    first = len(asked.before)
    seen[blind_from:, first : first + len(region)] &= ~region
    mask = torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)[None, None]
    with torch.no_grad():
        read = asked.model.llm.model(inputs_embeds=embeds[None], attention_mask=mask, use_cache=False)
        return asked.of_hidden(read.last_hidden_state[:, -1]).item()


def test_hidden_is_one_masked_pass_for_each_region(question, regions):
    """The question does not attend to the region; the token that ends the picture, which precedes the question, does."""
    asks_from = len(question.before) + len(question.visual) + 1
    points = maps.hidden(question, regions)
    for number in (0, 11, len(regions) - 1):
        wanted = masked(question, regions[number], asks_from) - scored(question)
        assert points[number].item() == pytest.approx(wanted, abs=1e-5)


def test_what_is_hidden_reaches_the_question_through_the_picture_alone(question):
    """Changing the last embedding changes the score, little if hidden from the question, not if also from the end token."""
    last = torch.zeros(1, len(question.visual), dtype=torch.bool)
    last[0, -1] = True
    other = replace(question, visual=torch.where(last[0, :, None], 5 * question.visual[3], question.visual))
    plain = abs(scored(question) - scored(other))
    hidden = abs(*(maps.hidden(question, last) - maps.hidden(other, last) + scored(question) - scored(other)).tolist())
    mark = len(question.before) + len(question.visual)
    assert hidden < plain / 2 and plain > 1e-3
    assert masked(question, last[0], mark) == pytest.approx(masked(other, last[0], mark), abs=1e-6)


def test_regions_cover_every_group_once():
    for rows, columns, most, size in ((5, 7, 8, (5, 7)), (40, 21, 8, (8, 8)), (1, 30, 8, (1, 8))):
        found, shape = maps.regions(rows, columns, most)
        assert shape == size and found.shape == (size[0] * size[1], rows * columns)
        assert (found.sum(0) == 1).all() and found.any(1).all()


def test_passes_in_parts_are_passes_at_once(question, regions, monkeypatch):
    whole = [maps.hidden(question, regions), maps.alike(question, regions)]
    monkeypatch.setattr(maps, "MOST_TOKENS", 700)
    parts = [maps.hidden(question, regions), maps.alike(question, regions)]
    for one, other in zip(whole, parts, strict=True):
        assert one.tolist() == pytest.approx(other.tolist(), abs=1e-5)


def test_pixels_of_a_picture_that_was_seen_once_are_those_of_one_that_is_seen_again(scorer, regions):
    sentences = scorer.sentences["lighting"]
    request = Request(ROOMS[6], sentences.query, sentences.before)
    (rating, again, _), (same, once, _) = rated(scorer.engine, request), rated(scorer.engine, request, with_slope=True)
    assert rating == same and once.picture.visual.requires_grad and not again.picture.visual.requires_grad
    assert maps.pixels(once, regions).tolist() == pytest.approx(maps.pixels(again, regions).tolist(), abs=1e-6)


# ---- the scorer's part -----------------------------------------------------------------------------------------------


def test_explain(scorer):
    found = scorer.explain(ROOMS[6], "layout")
    assert (found.name, found.dimension, found.method) == (str(ROOMS[6]), "layout", image_map.DEFAULTS["layout"])
    assert found.score == scorer.score(ROOMS[6], ["layout"]).scores["layout"]
    assert (len(found.map), len(found.map[0])) == (5, 7)
    row, column = found.worst
    assert found.map[row][column] == max(map(max, found.map))
    assert found.box(70, 50) == (10 * column, 10 * row, 10 * column + 10, 10 * row + 10)
    assert scorer.explain(ROOMS[6].read_bytes(), "layout").map == found.map
    assert scorer.explain(ROOMS[6], "layout").to_dict()["image"] == str(ROOMS[6])


def test_the_names_of_the_methods_are_those_of_the_model():
    assert tuple(maps.METHODS) == image_map.METHODS
    assert set(image_map.DEFAULTS) == set(facts.DIMENSIONS) and set(image_map.DEFAULTS.values()) <= set(maps.METHODS)
    assert set(image_map.BLIND) <= set(image_map.FOUND) == set(facts.DIMENSIONS)


def test_mistakes_are_clear(scorer, tmp_path):
    for options in ({"dimension": "beauty"}, {"dimension": "layout", "method": "magic"}):
        with pytest.raises(ValueError, match="must be one of"):
            scorer.explain(ROOMS[0], **options)
    (tmp_path / "no.jpg").write_bytes(b"no picture")
    for image in (tmp_path / "no.jpg", tmp_path / "away.jpg", io.BytesIO(b"no picture")):
        with pytest.raises(InputError):
            scorer.explain(image, "layout")
    with pytest.raises(UsageError, match="int8"):
        Scorer(demo=True, device="cpu", dtype="int8").explain(ROOMS[0], "layout")
    with pytest.raises(TypeError, match="is not an image"):
        scorer.explain(3, "layout")


def test_another_checkpoint_in_bfloat16_has_maps_too(tmp_path):
    scorer = Scorer(SMALL_BUNDLE, device="cpu", dtype="bfloat16", data_root=tmp_path)
    found = scorer.explain(Image.open(ROOMS[0]), "harmony")
    assert np.isfinite(found.map).all() and np.shape(found.map) == (8, 8)


def test_the_overlay_is_red_where_the_map_is_high():
    picture = Image.new("RGB", (80, 60), (90, 90, 90))
    found = image_map.ImageMap("x", "layout", 2.0, [[0.0, -0.5], [0.0, 0.4]], "towards")
    red = np.asarray(overlay(picture, found)).astype(int)
    assert red.shape == (60, 80, 3)
    assert red[50, 70, 0] - red[50, 70, 1] > 50 and abs(red[5, 5] - 90).max() < 5
    nothing = replace(found, map=[[0.0, -0.5], [0.0, 0.0]])
    assert overlay(picture, nothing).tobytes() == picture.tobytes()
