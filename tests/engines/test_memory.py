"""The prefill engine's memory: the upper bound of a pass, and what happens when memory runs out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from helpers import REPOSITORY, SMALL_BUNDLE, run_command
from saiqa.engines import load_engine, pass_budget
from saiqa.errors import Failed
from saiqa.model.ovis2_5 import Ovis2_5Config
from saiqa.model.pixels import PixelBounds

# The proportions of the real widths (benchmarks/checkpoints.py), but two layers of each kind: layers add time, not memory.
BUILD = """
import sys
sys.path[:0] = [sys.argv[1] + "/benchmarks", sys.argv[1] + "/tools"]
import json, resource
from pathlib import Path
import torch
import checkpoints, inputs, measuring
from saiqa.engines import load_engine, pass_budget

torch.set_num_threads(1)
folder = Path(sys.argv[2])
shape = {**checkpoints.FORTY_M}
for part in ("llm_config", "vit_config"):
    shape[part] = {**shape[part], "num_hidden_layers": 2}
if not (folder / "config.json").exists():
    checkpoints.build_checkpoint(folder, shape, torch.float32)
engine = load_engine("prefill", folder, device="cpu", batch_size=8)

def status(field):
    line = next(line for line in open("/proc/self/status") if line.startswith(field))
    return int(line.split()[1]) * 1024
"""

PEAK = """
requests = inputs.questions(sys.argv[3:], ["layout", "lighting"])
tokens = [len(row) for row in engine.rows(requests)]
open("/proc/self/clear_refs", "w").write("5")  # VmHWM starts anew
before = status("VmRSS")
measuring.rate_all(engine, requests)
config, dtype = engine.model.config, engine.dtype
print(json.dumps({"peak": status("VmHWM") - before, "bound": pass_budget.pass_bytes(config, dtype, max(tokens))}))
"""

SCARCE = """
requests = inputs.questions(sys.argv[3:], ["lighting"])
engine.batch_size, engine.token_budget = 1, 10**6
wanted = [rating.logprobs for rating in measuring.rate_all(engine, requests)]
engine.batch_size = 8
resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + 150 * 10**6, -1))  # for reading, not for six images a pass
got = [rating.logprobs for rating in measuring.rate_all(engine, requests)]
difference = max(abs(a[word] - b[word]) for a, b in zip(got, wanted, strict=True) for word in a)
print(json.dumps({"difference": difference, "budget": engine.token_budget}))
"""

SMALL_AND_LARGE = """
small, large = inputs.questions(sys.argv[3:], ["lighting"])
measuring.rate_all(engine, [small])
resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + 100 * 10**6, -1))  # for reading the large one, not for its pass
answers = engine.rate([large, small])
print(json.dumps([getattr(answer, "reason", None) for answer in answers]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two-layers")

    def run(script, images):
        command = [sys.executable, "-c", BUILD + script, str(REPOSITORY), str(folder), *map(str, images)]
        env = {**os.environ, "MALLOC_ARENA_MAX": "1"}  # else each reading thread maps unused addresses
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def pictures(folder, size, count):
    paths = []
    for number in range(count):
        paths.append(folder / f"{number}.jpg")
        Image.effect_noise(size, 60 + number).convert("RGB").save(paths[-1])
    return paths


@pytest.mark.slow
def test_twelve_megapixels_stay_within_the_stated_bound(run, tmp_path):
    measured = run(PEAK, pictures(tmp_path, (4000, 3000), 2))
    assert measured["peak"] <= measured["bound"] <= pass_budget.WORKING_BYTES["cpu"] + pass_budget.READING_BYTES


@pytest.mark.slow
def test_running_out_of_memory_makes_passes_smaller(run, tmp_path):
    measured = run(SCARCE, pictures(tmp_path, (896, 896), 6))
    assert measured["budget"] < 10**6
    assert measured["difference"] < 1e-5


def test_an_image_that_memory_does_not_suffice_for_fails_alone(run, tmp_path):
    (tmp_path / "large").mkdir()
    small, large = *pictures(tmp_path, (448, 448), 1), *pictures(tmp_path / "large", (1792, 1344), 1)
    first, second = run(SMALL_AND_LARGE, [small, large])
    assert "out of memory" in first and "max_pixels" in first
    assert second is None


def test_the_budget_follows_the_memory_there_is():
    config = Ovis2_5Config.from_pretrained(SMALL_BUNDLE)
    each, head = pass_budget.token_bytes(config, torch.float32), pass_budget.head_bytes(config, torch.float32)
    for free, tokens in ((10**12, pass_budget.MOST_TOKENS["cpu"]), (2 * (head + 100 * each), 100), (0, 1)):
        assert pass_budget.token_budget(config, torch.float32, "cpu", free) == tokens


def test_free_memory_is_what_the_kernel_says():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < pass_budget.free_bytes(torch.device("cpu")) < total


def test_the_released_shape_fits_the_stated_bound():
    """A 9B pass of the largest image with four questions, and one of the most tokens, by the same arithmetic."""
    nine_b = Ovis2_5Config(
        llm_config={
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        }
    )
    largest = 1344 * 1792 // 1024 + 600
    for kind, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        assert pass_budget.pass_bytes(nine_b, dtype, largest) <= pass_budget.WORKING_BYTES[kind] + pass_budget.READING_BYTES
        assert pass_budget.token_budget(nine_b, dtype, kind, free=10**12) >= min(largest, pass_budget.MOST_TOKENS[kind])


# ---- before a model is loaded ----------------------------------------------------------------------------------------


def bundle_of_weights(folder: Path, numbers: int) -> Path:
    """The small bundle with a weight of ``numbers`` values; the file has the stated size but is sparse."""
    folder.mkdir()
    for file in SMALL_BUNDLE.glob("*.*"):
        if not file.name.startswith(("model", "expected")):
            (folder / file.name).write_bytes(file.read_bytes())
    header = {"a": {"dtype": "BF16", "shape": [numbers // 1000, 1000], "data_offsets": [0, 2 * (numbers // 1000) * 1000]}}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + header["a"]["data_offsets"][1])
    return folder


@pytest.fixture(
    scope="module",
    params=[(1.5, "Use bfloat16, which takes"), (2.4, "Free some, or use a machine with more: bfloat16 takes")],
    ids=["as float32", "at all"],
)
def too_large(request, tmp_path_factory) -> tuple[Path, str]:
    """A bundle whose weights take so much of the free memory in float32, and the advice; hashed once for all commands."""
    share, advice = request.param
    free = pass_budget.free_bytes(torch.device("cpu"))
    return bundle_of_weights(tmp_path_factory.mktemp("large") / "bundle", int(share * free / 4)), advice


@pytest.mark.slow
@pytest.mark.parametrize("command", ["infer.py", "score_images.py", "serve.py"])
def test_what_does_not_fit_is_not_loaded(command, too_large, make_data_root):
    bundle, advice = too_large
    root = make_data_root(["lighting"])
    flags = ["--model_path", bundle, "--data_root", root.path, "--device", "cpu", "--dtype", "float32"]
    more = {
        "infer.py": ["--dimension", "lighting", "--results_dir", root.results],
        "score_images.py": [root.image("lighting", "abc")],
        "serve.py": ["--port", "0"],
    }[command]
    ran = run_command(command, *more, *flags)
    assert ran.code == 1, ran.err
    error = ran.err.strip().splitlines()[-1]
    assert "its weights take" in error and advice in error and "Traceback" not in ran.err
    assert not root.results.exists()


def test_a_smaller_picture_is_advised_where_only_that_does_not_fit(monkeypatch):
    config = Ovis2_5Config.from_pretrained(SMALL_BUNDLE)
    least = pass_budget.needs(SMALL_BUNDLE, config, torch.float32, PixelBounds(max_pixels=448 * 448))
    monkeypatch.setattr(pass_budget, "_available_bytes", lambda: least.total + 1)
    cpu = torch.device("cpu")
    pass_budget.require_memory(SMALL_BUNDLE, config, torch.float32, cpu, PixelBounds(max_pixels=448 * 448))
    with pytest.raises(Failed, match="Use a smaller max_pixels"):
        pass_budget.require_memory(SMALL_BUNDLE, config, torch.float32, cpu, PixelBounds(max_pixels=2**28))


def test_weights_are_counted_by_the_headers():
    model = load_engine("prefill", SMALL_BUNDLE, device="cpu").model
    numbers = sum(weight.numel() for weight in model.parameters())
    for dtype in (torch.float32, torch.bfloat16):
        assert pass_budget.weight_bytes(SMALL_BUNDLE, model.config, dtype) == numbers * dtype.itemsize


def test_in_int8_the_language_model_counts_half():
    """The count is 8-bit weights, without scales, plus everything else in bfloat16."""
    model = load_engine("prefill", SMALL_BUNDLE, device="cpu", dtype="int8").model
    rest = sum(weight.nbytes for weight in model.parameters())
    llm = model.config.llm_config
    heads, kv = llm.num_attention_heads * llm.head_dim, 2 * llm.num_key_value_heads * llm.head_dim
    layer = llm.hidden_size * (2 * heads + kv + 3 * llm.intermediate_size)
    eights = llm.num_hidden_layers * layer + llm.hidden_size * llm.vocab_size
    assert pass_budget.weight_bytes(SMALL_BUNDLE, model.config, torch.int8) == rest + eights


def test_int8_is_advised_where_bfloat16_does_not_fit(monkeypatch):
    config = Ovis2_5Config.from_pretrained(SMALL_BUNDLE)
    bounds = PixelBounds(max_pixels=448 * 448)
    least = pass_budget.needs(SMALL_BUNDLE, config, torch.int8, bounds)
    monkeypatch.setattr(pass_budget, "_available_bytes", lambda: least.total + 1)
    cpu = torch.device("cpu")
    pass_budget.require_memory(SMALL_BUNDLE, config, torch.int8, cpu, bounds)
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(Failed, match="Use int8, which takes"):
            pass_budget.require_memory(SMALL_BUNDLE, config, dtype, cpu, bounds, may_quantise=True)
    with pytest.raises(Failed, match="bfloat16 takes"):
        pass_budget.require_memory(SMALL_BUNDLE, config, torch.bfloat16, cpu, bounds)
