"""An image's score does not depend on the other images in the call: within 1e-6 in float32, 0.005 in bfloat16."""

from __future__ import annotations

import random

import pytest
import torch
from PIL import Image

from helpers import SMALL_BUNDLE, read_jsonl
from saiqa import facts
from saiqa.engines import Request, load_engine
from saiqa.files import folders
from saiqa.scoring import score_of

DEMO = folders.roots(demo=True)
CHECKPOINTS = {"reference": SMALL_BUNDLE, "demo": DEMO.models / facts.tuned_model()}
BOUND = {"float32": 1e-6, "bfloat16": 0.005}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Pictures of rooms, two of each of three sizes."""
    folder = tmp_path_factory.mktemp("images")
    rooms = sorted((DEMO.data / facts.IMAGES_FOLDER.format(dimension="lighting")).glob("*.jpg"))[:6]
    sizes = [(256, 192), (100, 300), (640, 90)]
    paths = []
    for number, room in enumerate(rooms):
        paths.append(folder / f"{number}.png")
        Image.open(room).resize(sizes[number % len(sizes)]).save(paths[-1])
    assert len(paths) == 6
    return paths


@pytest.fixture(scope="module", params=[(c, d) for c in CHECKPOINTS for d in BOUND], ids="-".join)
def case(request, images):
    """An engine, the bound of its dtype, and the scores of all images and dimensions in one call."""
    checkpoint, dtype = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIN_PIXELS", str(128 * 128))  # small images keep the tests short
        patch.setenv("MAX_PIXELS", str(28_000))
        engine = load_engine("prefill", CHECKPOINTS[checkpoint], device="cpu", dtype=dtype)
    return engine, BOUND[dtype], scores(engine, ask(images))


def ask(images, dimensions=facts.DIMENSIONS):
    return [Request(image, facts.query(d, 4), facts.answer_prefix(d)) for d in dimensions for image in images]


def scores(engine, requests) -> dict:
    rated = zip(requests, engine.rate(requests), strict=True)
    return {(request.image, request.prompt): score_of(rating.logprobs) for request, rating in rated}


def largest_difference(one, other):
    assert one.keys() <= other.keys() and one
    return max(abs(one[key] - other[key]) for key in one)


def test_alone_or_together(case, images):
    engine, bound, together = case
    assert len({round(score, 4) for score in together.values()}) > len(images)  # the scores differ between images
    alone = {}
    for request in ask(images):
        alone |= scores(engine, [request])
    assert largest_difference(alone, together) <= bound


def test_any_order(case, images):
    engine, bound, together = case
    shuffled = random.Random(4).sample(ask(images), k=4 * len(images))
    assert largest_difference(scores(engine, shuffled), together) <= bound


@pytest.mark.parametrize("batch_size, token_budget", [(1, 10**6), (3, 10**6), (64, 10**6), (64, 700)])
def test_any_batch(case, images, batch_size, token_budget, monkeypatch):
    engine, bound, together = case
    monkeypatch.setattr(engine, "batch_size", batch_size)
    monkeypatch.setattr(engine, "token_budget", token_budget)
    assert largest_difference(scores(engine, ask(images)), together) <= bound


def test_any_selection_of_dimensions(case, images):
    engine, bound, together = case
    for dimension in facts.DIMENSIONS:
        assert largest_difference(scores(engine, ask(images, [dimension])), together) <= bound


def test_any_number_of_threads(case, images):
    engine, bound, _ = case
    before = torch.get_num_threads()
    measured = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            measured.append(scores(engine, ask(images)))
    finally:
        torch.set_num_threads(before)
    assert largest_difference(*measured) <= bound


def test_twice_the_same_command_writes_the_same_bytes(make_data_root, run_main):
    data = make_data_root()
    written = []
    for _ in range(2):
        assert run_main("infer.py", *data.flags).code == 0
        written.append([path.read_bytes() for d in facts.DIMENSIONS for path in (data.ratings(d), data.scores(d))])
        for path in data.results.iterdir():
            path.unlink()
    assert written[0] == written[1]


def test_resuming_and_another_batch_size_change_no_score(make_data_root, run_main):
    """The result of five images, and the same result extended from three of them."""
    data = make_data_root(["lighting"])
    infer = ["infer.py", *data.flags, "--dimension", "lighting", "--mode", "infer"]
    assert run_main(*infer).code == 0
    whole = {line["images"][0]: score_of(line["logits"]) for line in read_jsonl(data.ratings("lighting"))}
    late = [data.image("lighting", i) for i in data.ids[3:]]
    for path in late:
        path.rename(path.with_suffix(".away"))
    data.ratings("lighting").unlink()
    assert run_main(*infer).code == 3
    for path in late:
        path.with_suffix(".away").rename(path)
    assert run_main(*infer, "--resume", "--batch_size", "2").code == 0
    resumed = {line["images"][0]: score_of(line["logits"]) for line in read_jsonl(data.ratings("lighting"))}
    assert list(resumed) == list(whole)
    assert largest_difference(resumed, whole) <= BOUND["float32"]
