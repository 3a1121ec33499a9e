"""Weights are loaded from files as by transformers, without extra copies, and in the best dtype."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import REPOSITORY, SMALL_BUNDLE, run_command
from saiqa import facts
from saiqa.engines import Request, load_engine, loading
from saiqa.engines.loading import load_model, resolve_dtype
from saiqa.errors import InputError
from saiqa.files import folders
from saiqa.model import weights
from saiqa.model.int8 import Int8Linear, Int8Weight, quantise
from saiqa.model.ovis2_5 import Ovis2_5
from saiqa.model.packed import PackedReader
from saiqa.scoring import score_of

MODELS = folders.roots(demo=True).models
UNTIED, TIED, TIED_BFLOAT16 = SMALL_BUNDLE, MODELS / facts.tuned_model(), MODELS / "small-base"
CPU = torch.device("cpu")


def assert_equal(model: Ovis2_5, other: Ovis2_5) -> None:
    for ours, theirs in ((model.state_dict(), other.state_dict()), (dict(model.named_buffers()), dict(other.named_buffers()))):
        assert ours.keys() == theirs.keys()
        for name, weight in theirs.items():
            assert ours[name].dtype == weight.dtype and torch.equal(ours[name], weight), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("folder", [UNTIED, TIED, TIED_BFLOAT16], ids=["untied", "tied", "tied, in bfloat16"])
def test_weights_are_those_that_transformers_loads(folder, dtype):
    model = load_model(folder, dtype=dtype)
    assert_equal(model, Ovis2_5.from_pretrained(folder, dtype=dtype))
    tied = model.llm.lm_head.weight is model.llm.model.embed_tokens.weight
    assert tied == (folder != UNTIED) and not model.training


def test_weights_in_shards_and_in_parts(tmp_path, monkeypatch):
    """Files with several tensors, and tensors in several parts, the last of them smaller."""
    wanted = Ovis2_5.from_pretrained(TIED)
    wanted.save_pretrained(tmp_path, max_shard_size="1MB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    monkeypatch.setattr(weights, "PART_BYTES", 1000)
    assert_equal(load_model(tmp_path), wanted)


def with_weights(folder: Path, change) -> Path:
    shutil.copytree(TIED, folder)
    tensors = load_file(TIED / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("factor", [1, 2])
def test_a_tied_head_that_is_stored_all_the_same(tmp_path, factor):
    """It is used if it differs, as in transformers."""

    def change(tensors):
        tensors["llm.lm_head.weight"] = tensors["llm.model.embed_tokens.weight"] * factor

    folder = with_weights(tmp_path / "tied", change)
    model = load_model(folder)
    assert_equal(model, Ovis2_5.from_pretrained(folder))
    assert (model.llm.lm_head.weight is model.llm.model.embed_tokens.weight) == (factor == 1)


def test_a_number_that_is_none_is_found_in_any_part(tmp_path, monkeypatch):
    name = "llm.model.layers.1.mlp.up_proj.weight"
    folder = with_weights(tmp_path / "nan", lambda tensors: tensors[name].view(-1)[-1].fill_(float("nan")))
    monkeypatch.setattr(weights, "PART_BYTES", 1000)
    with pytest.raises(InputError, match=f"not finite, in {name}"):
        load_model(folder)


def test_what_is_multiplied_together_lies_together():
    """The packed pass finds the weights adjacent in memory and copies none."""
    model = load_model(SMALL_BUNDLE)
    places = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    layers = PackedReader(model.llm).layers
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == places
    for layer, module in zip(layers, model.llm.model.layers, strict=True):
        attention, mlp = module.self_attn, module.mlp
        parts = [linear.weight for linear in (attention.q_proj, attention.k_proj, attention.v_proj)]
        assert torch.equal(layer.query_key_value, torch.cat(parts))
        assert torch.equal(layer.gate_up, torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))


PEAK = """
import sys
sys.path[:0] = [sys.argv[1] + "/benchmarks", sys.argv[1] + "/tools"]
import json
from pathlib import Path
import torch
from saiqa.engines import load_engine

folder = Path(sys.argv[2])

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

load_engine("prefill", folder / "small", device="cpu", dtype=sys.argv[3])  # libraries and their one-time memory
Path("/proc/self/clear_refs").write_text("5")
before = peak()
engine = load_engine("prefill", folder / "large", device="cpu", dtype=sys.argv[3])
print(json.dumps({"taken": peak() - before, "weights": sum(weight.nbytes for weight in engine.model.parameters())}))
"""

BUILD = """
import sys
sys.path[:0] = [sys.argv[1] + "/benchmarks", sys.argv[1] + "/tools"]
from pathlib import Path
import torch
import checkpoints

for name, shape in (("small", checkpoints.TINY), ("large", checkpoints.FORTY_M)):
    checkpoints.build_checkpoint(Path(sys.argv[2], name), shape, torch.bfloat16)
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_is_held_twice(tmp_path, dtype):
    def run(script, *arguments):
        command = [sys.executable, "-c", script, str(REPOSITORY), str(tmp_path), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(BUILD)
    measured = json.loads(run(PEAK, dtype).splitlines()[-1])
    assert measured["weights"] > 70 * 10**6
    assert measured["taken"] < measured["weights"] + 35 * 10**6


# ---- the best dtype --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "flags", "wanted"),
    [
        (TIED_BFLOAT16, "flags : fpu avx512_bf16 sse", torch.bfloat16),
        (TIED_BFLOAT16, "flags : fpu sse amx_bf16", torch.bfloat16),
        (TIED_BFLOAT16, "flags : fpu sse avx512f", torch.float32),
        (TIED, "flags : fpu avx512_bf16 sse", torch.float32),
    ],
)
def test_auto_is_the_stored_dtype_where_the_cpu_multiplies_in_it(folder, flags, wanted, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.setattr(loading, "CPUINFO", tmp_path / "cpuinfo")
    assert resolve_dtype("auto", CPU, folder) is wanted
    assert resolve_dtype("float32", CPU, folder) is torch.float32
    assert resolve_dtype("auto", torch.device("cuda"), folder) is torch.bfloat16


def test_auto_where_nothing_is_known_of_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "CPUINFO", tmp_path / "none")
    assert resolve_dtype("auto", CPU, TIED_BFLOAT16) is torch.float32


# ---- 8 bits ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked():
    cases = json.loads((SMALL_BUNDLE / "expected.json").read_text())["cases"]
    return [Request(SMALL_BUNDLE / case["image"], case["query"], case["answer_prefix"]) for case in cases]


def scores(engine, requests) -> list[float]:
    return [score_of(rating.logprobs) for rating in engine.rate(requests)]


@pytest.mark.slow
@pytest.mark.parametrize("folder", [UNTIED, TIED], ids=["untied", "tied"])
def test_scores_in_int8_are_close_and_the_same_in_any_batch(folder, asked):
    exact = scores(load_engine("prefill", folder, device="cpu", dtype="float32", system=""), asked)
    engine = load_engine("prefill", folder, device="cpu", dtype="int8", system="")
    assert engine.describe()["dtype"] == "int8"
    together = scores(engine, asked)
    assert max(abs(a - b) for a, b in zip(together, exact, strict=True)) < 0.15
    assert scores(engine, asked) == together
    alone = [scores(engine, [request])[0] for request in asked]
    assert max(abs(a - b) for a, b in zip(alone, together, strict=True)) <= 0.005  # the tower is in bfloat16


def test_int8_holds_no_other_weight_of_the_language_model():
    model = load_model(SMALL_BUNDLE, dtype=torch.int8)
    held = {name for name, _ in model.llm.named_parameters()}
    assert all("norm" in name or "embed_tokens" in name for name in held)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_rows_are_nearly_their_whole_numbers_by_their_scale():
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(500, 64, generator=torch.Generator().manual_seed(1)).to(dtype) * 30
        x[3] = 0
        values, scale = quantise(x)
        assert values[3].abs().max() == 0 and values.abs().max() <= 127
        assert ((values * scale.float() - x.float()).abs() <= scale.float()).all()


@pytest.mark.parametrize("rows", [1, 16, 40])
def test_a_linear_map_in_8_bits(rows):
    generator = torch.Generator().manual_seed(2)
    weight, x = torch.randn(24, 64, generator=generator), torch.randn(rows, 64, generator=generator)
    held = Int8Weight(24, 64, CPU)
    assert held.write(0, weight[:10]) and held.write(10, weight[10:])
    linear = Int8Linear(held)
    torch.testing.assert_close(linear(x), x @ weight.T, atol=0.4, rtol=0)


def test_int8_is_for_prefill():
    with pytest.raises(ValueError, match="int8 needs the prefill engine"):
        load_engine("swift", SMALL_BUNDLE, device="cpu", dtype="int8")
    with pytest.raises(ValueError, match="not for int8"):
        load_engine("prefill", SMALL_BUNDLE, device="cpu", dtype="int8", compile=True)
    for flags in (["--engine", "swift"], ["--compile"]):
        ran = run_command("infer.py", "--demo", "--dtype", "int8", *flags)
        assert ran.code == 2 and "Traceback" not in ran.err and "bfloat16" in ran.err


def test_an_int8_run_does_not_go_on_with_another(make_data_root, run_main):
    root = make_data_root(["lighting"])
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer"]
    assert run_main("infer.py", *flags).code == 0
    ran = run_main("infer.py", *flags, "--resume", "--dtype", "int8")
    assert ran.code == 2 and "dtype was float32, is int8" in ran.err
