"""Rewards in trainers: Flow-GRPO's call, ms-swift's plugin, and a GRPO loop whose reward increases."""

from __future__ import annotations

import math
import os
import random
import re
import shlex
import subprocess
import sys
import textwrap
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from helpers import REPOSITORY, SMALL_BUNDLE, TOOLS, read_jsonl, write_jsonl
from saiqa import Scorer
from saiqa.errors import UsageError
from saiqa.reward import Reward, UnscoredError
from serving import TOLERANCE, png

PAGE = (REPOSITORY / "docs" / "reward.md").read_text(encoding="utf-8")


# ---- trainers --------------------------------------------------------------------------------------------------------


def test_flow_grpo_weighs_and_stacks_the_rewards_of_the_function_in_the_readme(service, pixels, expected):
    """As Flow-GRPO does: create the function with its device, call it with a batch, weight the scores, make a tensor."""
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
    """The plugin as ``swift rlhf --external_plugins`` loads it, and the reward as its trainer creates it."""
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
    with pytest.raises(UnscoredError):  # there, None would count as 0
        reward([str(tmp_path / "nowhere.png")])


@pytest.mark.slow
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
