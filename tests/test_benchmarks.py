"""The benchmarks run, and write figures that are finite. How fast anything is, is not tested."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from conftest import REPOSITORY

TINY = {
    "bench_engines.py": ["--shape", "tiny", "--images", "2", "--sizes", "96x64", "--repeats", "1", "--matmul_side", "256"],
    "bench_gpu.py": ["--device", "cpu", "--tiny", "--batch_sizes", "1", "2", "--repeats", "1"],
}


def run(script, *flags):
    command = [sys.executable, str(REPOSITORY / "benchmarks" / script), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def numbers(value) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, float) else []


def test_needs_of_the_released_shape():
    ran = run("needs.py")
    assert ran.returncode == 0, ran.stderr
    nine, two = ([cell.strip() for cell in line.split("|")[1:-1]] for line in ran.stdout.splitlines()[2:])
    assert nine[:2] == ["9b", "9.17 billion"] and two[0] == "2b"
    bytes_of = [float(cell.removesuffix(" GB")) for cell in nine[2:]]
    assert bytes_of[2] == pytest.approx(2 * bytes_of[0], abs=0.15)
    assert ran.stdout in (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_what_is_needed_is_measured():
    ran = run("needs.py", "--measure", "tiny", "--dtype", "float32")
    assert ran.returncode == 0, ran.stderr
    figures = json.loads(ran.stdout[ran.stdout.index("{") :])
    assert figures["libraries_bytes"] < figures["rating_bytes"] < figures["libraries_bytes"] + figures["computed_bytes"]


@pytest.mark.parametrize("script", TINY)
def test_tables_and_json(script, tmp_path):
    path = tmp_path / "figures.json"
    ran = run(script, *TINY[script], "--output_json", path)
    assert ran.returncode == 0, ran.stderr
    figures = json.loads(path.read_text())
    assert numbers(figures) and all(math.isfinite(number) for number in numbers(figures))
    assert {case["dimensions"] for case in figures["cases"]} == {1, 4}
    table = [line for line in ran.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(figures["cases"])
    for case in figures["cases"]:
        assert case["ratio"] > 0 and case["share_of_matmul"] > 0
        bound = 1e-4 if figures["dtype"] == "float32" else 0.05
        assert case["largest_score_difference"] < bound


def test_the_9b_shape_is_refused_on_a_cpu(tmp_path):
    ran = run("bench_gpu.py", "--device", "cpu", "--output_json", tmp_path / "figures.json")
    assert ran.returncode == 2 and "--tiny" in ran.stderr and "Traceback" not in ran.stderr


def test_operations_are_those_that_torch_counts(tmp_path):
    """torch counts masked pairs, too, so the rows are ones in which nothing is masked: one token a part. It does not know the
    operations of a CPU's fused attention, which is therefore off."""
    counted = subprocess.run(
        [sys.executable, "-c", COUNT, str(REPOSITORY)], capture_output=True, text=True, timeout=300, check=True
    ).stdout.split()
    ours, theirs = map(float, counted[-2:])
    assert abs(ours / theirs - 1) < 1e-3  # torch counts the angles of the rotary embedding, too


COUNT = """
import sys
sys.path[:0] = [sys.argv[1] + "/benchmarks", sys.argv[1] + "/tools"]
import saiqa.engines.packed, shared, torch
saiqa.engines.packed.FEW = 1  # what fills groups up is not counted as work
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from saiqa.engines.packed import PackedReader, log_probabilities, pack
from saiqa.ovis2_5 import Ovis2_5
model = Ovis2_5(shared.config_of(shared.TINY)).eval()
config = model.config
with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
    model.embed_images(torch.zeros(64, 768), torch.tensor([[1, 8, 8]]))
    row = pack([([5], [[6]])] * 64, torch.device("cpu"))
    hidden = PackedReader(model.llm)(torch.zeros(128, config.hidden_size), row)
    log_probabilities(model.llm, hidden, [[1]] * 64)
tower = shared.tower_flops(config, 64)
rows = [shared.RowShape(0, 1, (1,))] * 64
print(tower + sum(shared.text_flops(config, row) for row in rows), counter.get_total_flops())
"""
