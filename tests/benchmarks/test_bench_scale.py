"""The benchmarks of scale-out, bookkeeping and scoring run at minimal size."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from helpers import REPOSITORY


def run_benchmark(name: str, output, *flags) -> tuple[str, dict]:
    """The table it prints and the JSON it writes."""
    command = [sys.executable, REPOSITORY / "benchmarks" / name, *map(str, flags), "--output_json", output]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(output.read_text())


@pytest.mark.slow
def test_scale(tmp_path):
    flags = ["--shape", "tiny", "--images", 4, "--max_batch_size", 2, "--rows", 100, 200]
    table, figures = run_benchmark("bench_scale.py", tmp_path / "scale.json", *flags)
    assert "images/s" in table and "us/row" in table
    one, two = figures["workers"]
    assert (one["workers"], one["speed_up"], two["workers"]) == (1, 1, 2)
    assert one["images_per_s"] > 0 and two["images_per_s"] > 0
    assert [line["rows_many"] for line in figures["bookkeeping"]] == [200, 200]
    assert all(line["peak_bytes_many"] > 1e6 for line in figures["bookkeeping"])
    assert figures["machine"]["cores"] >= 1


def test_scoring(tmp_path):
    table, figures = run_benchmark("bench_scoring.py", tmp_path / "scoring.json", "--rows", 40, "--repeats", 1)
    assert all(word in table for word in ("score", "eval", "pooled", "all", "start", "difference"))
    stages = figures["stages"]
    assert set(stages) == {"score", "eval", "pooled", "all"}
    for stage in stages.values():
        assert stage["total_s"] - stage["start_s"] == pytest.approx(stage["difference_s"])
    assert figures["rows"] == 40


def test_the_null_engine_is_none_that_a_user_can_choose(tmp_path):
    command = [sys.executable, REPOSITORY / "tools" / "infer.py", "--engine", "null_engine:NullEngine"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, "invalid choice" in done.stderr) == (2, True)
    help_text = subprocess.run([*command[:2], "--help"], capture_output=True, text=True).stdout
    assert "null" not in help_text
    assert "prefill" in help_text
