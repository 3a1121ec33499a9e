"""Rewards: the trainers' signatures, locally and through a service, and a GRPO loop that climbs."""

from __future__ import annotations

import io
import math
import os
import random
import re
import shlex
import subprocess
import sys
import textwrap
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from helpers import REPOSITORY, SMALL_BUNDLE, TOOLS, read_jsonl, write_jsonl
from saiqa import Scorer, facts
from saiqa.errors import Failed, InputError, UsageError
from saiqa.reward import Client, Reward, UnscoredError
from serving import served_here

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(SMALL_BUNDLE, device="cpu")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Five pictures [5, 48, 64, 3] uint8."""
    generator = np.random.default_rng(5)
    small = generator.integers(0, 256, (5, 3, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((64, 48))) for image in small])


@pytest.fixture(scope="module")
def expected(scorer, pixels) -> list:
    return scorer.score(list(pixels))


@pytest.fixture(scope="module")
def service(scorer, expected):  # expected first: the scorer is the service's from then on
    with served_here(scorer, images=2, megapixels=1) as url:
        yield url


@pytest.fixture(params=["local", "service"])
def reward(request, expected) -> Reward:
    if request.param == "local":
        return Reward(Scorer(SMALL_BUNDLE, device="cpu"))
    return Reward(service=request.getfixturevalue("service"))


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


# ---- what goes in and what comes out ---------------------------------------------------------------------------------

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
        torch.full((1, 3, 8, 8), -0.5),  # a generator's own range, not the picture's
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


def test_threads_share_a_reward(reward, pixels, expected):
    """Flow-GRPO calls from eight."""
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
    """A door in front of the service that answers 503 with Retry-After before it lets requests through."""
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
    with pytest.raises(Failed, match="does not score"):
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


# ---- trainers --------------------------------------------------------------------------------------------------------


PAGE = (REPOSITORY / "docs" / "reward.md").read_text(encoding="utf-8")


def test_flow_grpo_weighs_and_stacks_the_rewards_of_the_function_in_the_readme(service, pixels, expected):
    """What Flow-GRPO does: make the function with its device, call it with a batch, weigh the scores, make a tensor."""
    code = textwrap.dedent(re.search(r"^    def saiqa_score.*?(?=^\S)", PAGE, re.M | re.S)[0])
    namespace: dict = {}
    exec(code.replace("http://127.0.0.1:8000", service), namespace)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    scores, _ = namespace["saiqa_score"]("cpu")(images, ["a bright bedroom"] * 5, [{}] * 5)
    total = torch.as_tensor([0.7 * score for score in scores]).float()
    assert total.tolist() == pytest.approx([0.7 * result.overall for result in expected], abs=TOLERANCE)


RENDERER = """
from PIL import Image

def render(completions, size, **columns):
    return [Image.new("RGB", (int(s), int(s)), text) for text, s in zip(completions, size, strict=True)]
"""


@pytest.fixture
def swift_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SAIQA_MODEL_PATH", str(SMALL_BUNDLE))
    for name in ("SAIQA_SERVICE", "SAIQA_RENDERER", "SAIQA_DEMO"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])  # as for the `swift` command
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_renderer.py").write_text(RENDERER)


def swift_reward():
    """The plugin as ``swift rlhf --external_plugins`` loads it, and the reward as its trainer makes it."""
    from swift.rewards import orms
    from swift.utils import import_external_file

    import_external_file(str(TOOLS / "swift_reward_plugin.py"))
    return orms["saiqa"]()


def test_the_command_of_the_readme_names_the_plugin(swift_environment):
    from swift.rewards import orms

    flags = shlex.split(re.search(r"^    (swift rlhf .*)$", PAGE, re.M)[1])
    assert (REPOSITORY / flags[flags.index("--external_plugins") + 1]).is_file()
    swift_reward()
    assert flags[flags.index("--reward_funcs") + 1] in orms


def test_ms_swift_loads_the_plugin_and_scores_what_completions_render_to(swift_environment, monkeypatch, scorer):
    monkeypatch.setenv("SAIQA_RENDERER", "my_renderer:render")
    rewards = swift_reward()(["red", "white"], trainer_state=None, size=[64, 96])
    pictures = [Image.new("RGB", (64, 64), "red"), Image.new("RGB", (96, 96), "white")]
    assert rewards == pytest.approx([result.overall for result in scorer.score(pictures)], abs=TOLERANCE)


def test_ms_swift_completions_may_be_paths(swift_environment, tmp_path, pixels, expected):
    (tmp_path / "a.png").write_bytes(png(pixels[0]))
    reward = swift_reward()
    assert reward([f" {tmp_path / 'a.png'}\n"]) == pytest.approx([expected[0].overall], abs=TOLERANCE)
    with pytest.raises(UnscoredError):  # None would count as 0 there
        reward([str(tmp_path / "nowhere.png")])


@pytest.mark.skipif(find_spec("msgspec") is None, reason="ms-swift's GRPO trainer needs msgspec, which is not installed")
def test_ms_swift_trains_with_the_reward(swift_environment, tmp_path):
    """One real step of its GRPO trainer on a random language model of two layers."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from saiqa.engines.loading import load_tokenizer

    tokenizer = load_tokenizer(SMALL_BUNDLE)
    tokenizer.save_pretrained(tmp_path / "tiny")
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16, "num_attention_heads": 2}
    config = Qwen3Config(vocab_size=len(tokenizer), num_key_value_heads=1, max_position_embeddings=512, **size)
    Qwen3ForCausalLM(config).save_pretrained(tmp_path / "tiny")
    write_jsonl(tmp_path / "rooms.jsonl", [{"messages": [{"role": "user", "content": text}]} for text in ("A room", "A hall")])
    (tmp_path / "painter.py").write_text(
        "from PIL import Image\n"
        "def render(completions, **columns):\n"
        "    return [Image.new('RGB', (64, 48), (sum(map(ord, str(c))) % 256, 99, 99)) for c in completions]\n"
    )
    flags = [
        "--external_plugins",
        TOOLS / "swift_reward_plugin.py",
        "--reward_funcs",
        "saiqa",
        "--dataset",
        tmp_path / "rooms.jsonl",
    ]
    flags += ["--model", tmp_path / "tiny", "--model_type", "qwen3", "--template", "qwen3", "--tuner_type", "full"]
    flags += ["--torch_dtype", "float32"]
    flags += ["--max_steps", 1, "--num_generations", 2, "--per_device_train_batch_size", 2, "--max_completion_length", 8]
    swift = [sys.executable, "-m", "swift.cli.rlhf", "--rlhf_type", "grpo", *flags, "--output_dir", tmp_path / "out"]
    own = {"SAIQA_MODEL_PATH": str(SMALL_BUNDLE), "SAIQA_RENDERER": "painter:render", "CUDA_VISIBLE_DEVICES": ""}
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = {**os.environ, **own, "PYTHONPATH": paths}
    ran = subprocess.run([*map(str, swift)], capture_output=True, text=True, timeout=600, env=environment, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr[-2000:]
    steps = [line for log in tmp_path.rglob("logging.jsonl") for line in read_jsonl(log) if "reward" in line]
    assert steps and 1 <= steps[0]["reward"] <= 5
    assert steps[0]["reward"] == steps[0]["rewards/SpatialAesthetics/mean"]


@pytest.mark.parametrize("name", ["no_such_module:render", "my_renderer:paint", "my_renderer"])
def test_ms_swift_a_renderer_that_is_not_there(swift_environment, monkeypatch, name):
    monkeypatch.setenv("SAIQA_RENDERER", name)
    with pytest.raises(UsageError, match="SAIQA_RENDERER"):
        swift_reward()


# ---- a loop that learns ----------------------------------------------------------------------------------------------


class Generator:
    """A picture generator with two parameters: the logarithms of exposure and of contrast, each drawn from a Gaussian."""

    SPREAD = 0.35

    def __init__(self, rooms: list[Image.Image], start: tuple[float, float]):
        self.rooms = rooms
        self.mean = torch.tensor(start, requires_grad=True)

    def sample(self, count: int, random_state: torch.Generator) -> torch.Tensor:
        """Settings [count, 2]."""
        return self.mean.detach() + self.SPREAD * torch.randn(count, 2, generator=random_state)

    def log_probability(self, settings: torch.Tensor) -> torch.Tensor:
        """[count], up to a constant."""
        return -((settings - self.mean) ** 2).sum(-1) / (2 * self.SPREAD**2)

    def render(self, room: int, settings: torch.Tensor) -> torch.Tensor:
        """Pictures [count, 3, height, width], float from 0 to 1."""
        exposure, contrast = settings.exp().T.tolist()
        images = []
        for bright, steep in zip(exposure, contrast, strict=True):
            image = ImageEnhance.Contrast(ImageEnhance.Brightness(self.rooms[room]).enhance(bright)).enhance(steep)
            images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255)
        return torch.stack(images)


def test_a_grpo_loop_climbs_on_the_demo_model():
    """Group-normalised advantages over rendered candidates: a generator that starts far too dark finds the light."""
    paths = sorted((REPOSITORY / "demo/SA-BENCH/images/lighting/images").glob("*test*.jpg"))
    rooms = [Image.open(path).convert("RGB") for path in random.Random(0).sample(paths, 4)]
    reward = Reward(Scorer(demo=True, device="cpu"), dimensions=["lighting"])
    generator = Generator(rooms, start=(math.log(0.2), 0.0))
    optimizer = torch.optim.Adam([generator.mean], lr=0.15)
    random_state = torch.Generator().manual_seed(0)
    means = []
    for _ in range(12):
        settings = [generator.sample(6, random_state) for _ in rooms]
        images = torch.cat([generator.render(room, group) for room, group in enumerate(settings)])
        rewards = torch.tensor(reward(images, ["a room"] * len(images))[0]).view(len(rooms), -1)
        advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
        loss = -torch.stack([(a * generator.log_probability(s)).mean() for a, s in zip(advantages, settings, strict=True)])
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        means.append(rewards.mean().item())
    assert np.mean(means[-3:]) > np.mean(means[:3]) + 0.3, means
    assert generator.mean[0].item() > math.log(0.3), "brighter than it started"


def test_an_empty_address_is_none():
    with pytest.raises(ValueError, match="the base_url of a vLLM server"):
        Reward(base_url="")
