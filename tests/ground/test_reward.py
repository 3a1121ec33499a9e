"""Rewards: inputs and outputs, locally and through a service, and the service's client."""

from __future__ import annotations

import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import SMALL_BUNDLE
from saiqa import Scorer, facts
from saiqa.errors import Failed, InputError
from saiqa.reward import Client, Reward, UnscoredError
from serving import TOLERANCE, png, served_here


@pytest.fixture(params=["local", "service"])
def reward(request, expected) -> Reward:
    if request.param == "local":
        return Reward(Scorer(SMALL_BUNDLE, device="cpu"))
    return Reward(service=request.getfixturevalue("service"))


# ---- inputs and outputs ----------------------------------------------------------------------------------------------


KINDS = {
    "tensor of floats": lambda pixels: torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255,
    "tensor of half floats": lambda pixels: (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255).to(torch.float16),
    "tensor of bytes": lambda pixels: torch.from_numpy(pixels).permute(0, 3, 1, 2),
    "list of tensors": lambda pixels: list(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255),
    "array": lambda pixels: pixels,
    "pictures": lambda pixels: [Image.fromarray(image) for image in pixels],
    "bytes": lambda pixels: [png(image) for image in pixels],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_gives_the_same_rewards(reward, pixels, expected, kind):
    rewards, info = reward(KINDS[kind](pixels), ["a room"] * 5, [{}] * 5)
    assert rewards == pytest.approx([result.overall for result in expected], abs=TOLERANCE)
    assert all(type(value) is float for value in rewards)
    assert list(info) == [*facts.DIMENSIONS, "overall", "errors"]
    for name in facts.DIMENSIONS:
        assert info[name] == pytest.approx([result.scores[name] for result in expected], abs=TOLERANCE)
    assert info["overall"] == rewards and info["errors"] == [None] * 5


def test_paths(reward, pixels, expected, tmp_path):
    for number, image in enumerate(pixels[:3]):
        (tmp_path / f"{number}.png").write_bytes(png(image))
    rewards, _ = reward([tmp_path / "0.png", str(tmp_path / "1.png"), tmp_path / "2.png"])
    assert rewards == pytest.approx([result.overall for result in expected[:3]], abs=TOLERANCE)


def test_chosen_dimensions(scorer, pixels, expected):
    rewards, info = Reward(scorer, dimensions=["lighting"])(pixels[:2])
    assert rewards == pytest.approx([result.scores["lighting"] for result in expected[:2]], abs=TOLERANCE)
    assert list(info) == ["lighting", "overall", "errors"]


def test_no_images_no_rewards(reward):
    assert reward([])[0] == []


@pytest.mark.parametrize("unreadable", ["bytes", "path", "nan"])
def test_an_image_without_a_score_never_gets_a_reward(reward, pixels, expected, unreadable):
    broken = {"bytes": b"no picture", "path": "nowhere.png", "nan": torch.full((3, 8, 8), math.nan)}[unreadable]
    batch = [png(pixels[0]), broken, png(pixels[1])]
    with pytest.raises(UnscoredError, match=r"1 of 3 images have no score \(image 1: .*unscored=\"nan\""):
        reward(batch)
    masking = Reward(reward.source, unscored="nan")
    rewards, info = masking(batch)
    assert math.isnan(rewards[1]) and all(math.isnan(info[name][1]) for name in facts.DIMENSIONS)
    assert [error is None for error in info["errors"]] == [True, False, True]
    assert [rewards[0], rewards[2]] == pytest.approx([result.overall for result in expected[:2]], abs=TOLERANCE)


@pytest.mark.parametrize(
    "images",
    [
        torch.full((1, 3, 8, 8), -0.5),  # the generator's value range, not the picture's
        torch.full((1, 3, 8, 8), 200.0),
        torch.zeros(1, 8, 8, 3),
        torch.zeros(3, 8, 8),
        np.full((1, 8, 8, 3), 200.0),
        np.zeros((1, 3, 8, 8), np.uint8),
    ],
)
def test_another_shape_or_range_is_refused_and_not_guessed(reward, images):
    with pytest.raises(ValueError, match=r"tensor|array"):
        reward(images)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scorer": object(), "service": "http://127.0.0.1:8000"},
        {"service": "127.0.0.1:8000"},
        {"scorer": object(), "dimensions": "layout"},
        {"scorer": object(), "dimensions": ["beauty"]},
        {"scorer": object(), "unscored": "0"},
    ],
)
def test_wrong_options(options):
    with pytest.raises(ValueError):
        Reward(**options)


def test_an_empty_address_is_none():
    with pytest.raises(ValueError, match="the base_url of a vLLM server"):
        Reward(base_url="")


def test_threads_share_a_reward(reward, pixels, expected):
    """Flow-GRPO calls from eight threads."""
    wrong = []

    def call(number: int) -> None:
        rewards, _ = reward(pixels[number : number + 2])
        wanted = [result.overall for result in expected[number : number + 2]]
        wrong.extend([(number, rewards)] if rewards != pytest.approx(wanted, abs=TOLERANCE) else [])

    threads = [threading.Thread(target=call, args=[number % 4]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- the service's client --------------------------------------------------------------------------------------------


def test_a_busy_service_is_asked_again_when_it_says(service, pixels, expected):
    """A proxy in front of the service that first answers 503 with Retry-After and then lets requests through."""
    import httpx

    knocks: list[float] = []

    class Door(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            knocks.append(time.monotonic())
            if len(knocks) <= 2:
                self.send_response(503)
                self.send_header("Retry-After", "1")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.forward(httpx.post(service + self.path, content=body, headers=dict(self.headers), trust_env=False))

        def do_GET(self):
            self.forward(httpx.get(service + self.path, trust_env=False))

        def forward(self, answer):
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        rewards, _ = Reward(service=f"http://127.0.0.1:{door.server_port}")(pixels[:2])
        assert rewards == pytest.approx([result.overall for result in expected[:2]], abs=TOLERANCE)
        assert len(knocks) == 3 and knocks[2] - knocks[0] >= 2
        knocks.clear()
        with pytest.raises(Failed, match="it is busy"):
            Client(f"http://127.0.0.1:{door.server_port}", timeout_seconds=0.5).score(list(pixels[:1]))
        door.shutdown()


def test_a_service_that_is_not_there_is_an_error_in_time():
    with pytest.raises(Failed, match="does not answer"):
        Client("http://127.0.0.1:1", timeout_seconds=0.6).score([b"x"])


def test_a_refusal_is_told(service):
    with pytest.raises(InputError, match=r"413.*1 megapixels"):
        Client(service).score([png(np.zeros((1001, 1000, 3), np.uint8))])


def test_the_token_comes_from_the_environment(scorer, pixels, monkeypatch):
    with served_here(scorer, token="secret") as url:
        with pytest.raises(InputError, match=r"401.*SAIQA_TOKEN"):
            Reward(service=url)(pixels[:1])
        monkeypatch.setenv("SAIQA_TOKEN", "secret")
        assert len(Reward(service=url)(pixels[:1])[0]) == 1
