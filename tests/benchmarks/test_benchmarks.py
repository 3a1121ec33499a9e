"""The benchmarks run and write finite figures. Speed itself is not tested."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import REPOSITORY
from saiqa.errors import Failed, Incomplete

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
    assert ran.stdout in (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_is_needed_is_measured():
    ran = run("needs.py", "--measure", "tiny", "--dtype", "float32")
    assert ran.returncode == 0, ran.stderr
    figures = json.loads(ran.stdout[ran.stdout.index("{") :])
    assert figures["libraries_bytes"] < figures["rating_bytes"] < figures["libraries_bytes"] + figures["computed_bytes"]


@pytest.mark.slow
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


@pytest.mark.slow
def test_dtypes_side_by_side(tmp_path):
    path = tmp_path / "small.json"
    ran = run("bench_small.py", "--shape", "tiny", "--size", "96x64", "--images", "2", "--repeats", "1", "--output_json", path)
    assert ran.returncode == 0, ran.stderr
    cases = {case["dtype"]: case for case in json.loads(path.read_text())["cases"]}
    assert list(cases) == ["float32", "bfloat16", "int8"] and cases["float32"]["largest_score_difference"] == 0
    assert all(case["images_per_s"] > 0 and case["peak_bytes"] > 0 for case in cases.values())
    assert 0 < cases["bfloat16"]["largest_score_difference"] < 0.05 and 0 < cases["int8"]["largest_score_difference"] < 0.2


def test_the_9b_shape_is_refused_on_a_cpu(tmp_path):
    ran = run("bench_gpu.py", "--device", "cpu", "--output_json", tmp_path / "figures.json")
    assert ran.returncode == 2 and "--tiny" in ran.stderr and "Traceback" not in ran.stderr


# A machine with torch, transformers and their dependencies. httpx and tqdm come with transformers, but this repository's own
# files must not import them.
BARE = f"""
import builtins, importlib.machinery, sys
ABSENT = "fsspec swift ray fastapi uvicorn pandas matplotlib accelerate peft datasets deepspeed torchvision pytest".split()
find, load = importlib.machinery.PathFinder.find_spec, builtins.__import__

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in ABSENT else find(name, path, target)

def checked(name, globals=None, *rest, **named):
    ours = str((globals or {{}}).get("__file__", "")).startswith({str(REPOSITORY)!r})
    if ours and name.partition(".")[0] in ("httpx", "tqdm"):
        raise ModuleNotFoundError(f"No module named {{name!r}}")
    return load(name, globals, *rest, **named)

importlib.machinery.PathFinder.find_spec, builtins.__import__ = staticmethod(find_spec), checked
"""


@pytest.mark.slow
@pytest.mark.parametrize("bare", [False, True], ids=["all packages", "torch and transformers alone"])
def test_the_check_of_a_gpu_on_a_cpu(bare, tmp_path):
    """Compiling takes most of the time, and is tested once."""
    (tmp_path / "sitecustomize.py").write_text(BARE if bare else "")
    parts = ["reference", "throughput", "attention", "stages", "profile", "training", *([] if bare else ["compiled"])]
    output = tmp_path / "new folder" / "check.json"
    flags = ["--device", "cpu", "--tiny", "--parts", ",".join(parts), "--output_json", str(output), "--seconds", "300"]
    env = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(tmp_path)}
    command = ["bash", str(REPOSITORY / "benchmarks" / "gpu_check.sh"), *flags]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=900, env=env)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    figures = json.loads(output.read_text())
    assert numbers(figures) and all(math.isfinite(number) for number in numbers(figures))
    outcomes = {name: part["outcome"] for name, part in figures["parts"].items()}
    assert outcomes == dict.fromkeys(parts, "passed") | ({"training": "not installed"} if bare else {})
    assert [line.removeprefix("## ") for line in ran.stdout.splitlines() if line.startswith("## ")] == parts
    check_figures(figures["parts"])


def check_figures(parts):
    checks = parts["reference"]["checks"]
    assert {check["dtype"] for check in checks} == {"float32", "bfloat16"} and len(checks) == 16
    for check in checks:
        assert check["largest_difference"] <= {"float32": 1e-4, "bfloat16": 0.05}[check["dtype"]]
    asked = [(case["dimensions"], case["batch_size"]) for case in parts["throughput"]["cases"]]
    assert asked == [(1, 1), (1, 2), (4, 1), (4, 2)]
    assert all(case["share_of_matmul"] > 0 for case in parts["throughput"]["cases"])
    assert all({"flash", "math"} <= case["seconds"].keys() for case in parts["attention"]["cases"])
    assert all(case["missing"].keys() == {"efficient", "cudnn"} for case in parts["attention"]["cases"])
    assert all(len(case["seconds"]) == 4 for case in parts["stages"]["cases"])
    assert len(parts["profile"]["kernels"]) == 5


@pytest.fixture
def gpu_check(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    module = __import__("gpu_check")
    threads = module.torch.get_num_threads()
    module.torch.set_num_threads(1)  # as the program does on a CPU
    yield module
    module.torch.set_num_threads(threads)


def bench_on_cpu(folder):
    import gpu_bench

    return gpu_bench.Bench(gpu_bench.torch.device("cpu"), True, (96, 64), [1], 1, folder)


def test_a_part_that_fails_or_takes_too_long_keeps_its_figures(gpu_check, tmp_path):
    def failing(bench, report):
        report["cases"] = [1]
        raise ValueError("broken\nin two lines")

    def endless(bench, report):
        report["cases"] = [2]
        while True:
            try:
                time.sleep(60)
            except gpu_check.OverTime as error:
                raise RuntimeError("a library's own") from error

    bench = bench_on_cpu(tmp_path)
    failed, stopped = (gpu_check.run_part(bench, gpu_check.Part(work, 9), 1) for work in (failing, endless))
    assert (failed["outcome"], failed["reason"], failed["cases"]) == ("failed", "ValueError: broken", [1])
    assert (stopped["outcome"], stopped["reason"], stopped["cases"]) == ("stopped", "after 1 s", [2])
    with pytest.raises(Incomplete) as incomplete:
        gpu_check.judge({"a": stopped})
    assert incomplete.value.exit_code == 3
    with pytest.raises(Failed, match="b: ValueError: broken"):
        gpu_check.judge({"a": stopped, "b": failed})


def test_the_bounds_of_the_parts_leave_a_minute_of_nine(gpu_check):
    assert sum(part.seconds for part in gpu_check.PARTS.values()) <= 8 * 60 + 20


def test_a_difference_beyond_its_bound_fails(gpu_check, tmp_path, monkeypatch):
    import gpu_reference

    monkeypatch.setitem(gpu_reference.BOUNDS, "float32", (*gpu_reference.BOUNDS["float32"][:2], 1e-9))
    monkeypatch.delitem(gpu_reference.BOUNDS, "bfloat16")
    report = {}
    with pytest.raises(Failed, match="reference in float32"):
        gpu_reference.check_reference(bench_on_cpu(tmp_path), report)
    assert len(report["checks"]) == 8


def test_a_training_that_is_stopped_ends_with_all_it_started(gpu_check, tmp_path):
    import gpu_training

    mark = tmp_path / "pid"
    with pytest.raises(gpu_check.OverTime), gpu_check.within(2):
        gpu_training.run_within(["bash", "-c", f"(echo $BASHPID > {mark}; exec sleep 600) & wait"])
    stat = Path("/proc", mark.read_text().strip(), "stat")
    for _ in range(50):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("it still runs")


def test_operations_are_those_that_torch_counts(tmp_path):
    """torch also counts masked pairs, so the rows have none: one token per part. It does not count the operations of fused
    attention on a CPU, which is therefore off."""
    counted = subprocess.run(
        [sys.executable, "-c", COUNT, str(REPOSITORY)], capture_output=True, text=True, timeout=300, check=True
    ).stdout.split()
    ours, theirs = map(float, counted[-2:])
    assert abs(ours / theirs - 1) < 1e-3  # torch also counts the angles of the rotary embedding


COUNT = """
import sys
sys.path[:0] = [sys.argv[1] + "/benchmarks", sys.argv[1] + "/tools"]
import checkpoints, operations, saiqa.model.packed, torch
saiqa.model.packed.FEW = 1  # padding of groups is not counted as work
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from saiqa.model.packed import PackedReader, log_probabilities, pack
from saiqa.model.ovis2_5 import Ovis2_5
model = Ovis2_5(checkpoints.config_of(checkpoints.TINY)).eval()
config = model.config
with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
    model.embed_images(torch.zeros(64, 768), torch.tensor([[1, 8, 8]]))
    row = pack([([5], [[6]])] * 64, torch.device("cpu"))
    hidden = PackedReader(model.llm)(torch.zeros(128, config.hidden_size), row)
    log_probabilities(model.llm, hidden, [[1]] * 64)
tower = operations.tower_flops(config, 64)
rows = [operations.RowShape(0, 1, (1,))] * 64
print(tower + sum(operations.text_flops(config, row) for row in rows), counter.get_total_flops())
"""
