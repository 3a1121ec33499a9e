"""Cost of training on a GPU: some steps of ``train_sft.sh``, in a process that ends with the part."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

import checkpoints
from gpu_bench import REPOSITORY, Bench, NotInstalled
from saiqa.errors import Failed

TRAINING_STEPS = 10


def measure_training(bench: Bench, report: dict) -> None:
    """Peak memory of ten steps of ``train_sft.sh`` on the demo's data: the 2B shape, whose training fits on one GPU; the
    checkpoint it starts from takes 5 GB of disk. A tiny run only plans the steps. Raises ``NotInstalled``."""
    missing = [package for package in ("swift", "deepspeed") if importlib.util.find_spec(package) is None]
    if missing:
        raise NotInstalled(" and ".join({"swift": "ms-swift"}.get(package, package) for package in missing))
    shape = "tiny" if bench.tiny else "2b"
    base, output = bench.folder / "base", bench.folder / "trained"
    report |= {"shape": shape, "steps": TRAINING_STEPS, "planned_only": bench.tiny}
    report["parameters"] = checkpoints.build_checkpoint(base, checkpoints.SHAPES[shape], torch.bfloat16, str(bench.device))
    command = ["bash", str(REPOSITORY / "tools" / "train_sft.sh"), "--demo", "--device", bench.device.type]
    command += ["--model", str(base), "--output_dir", str(output), "--max_steps", str(TRAINING_STEPS), "--nproc_per_node", "1"]
    command += ["--per_device_train_batch_size", "2", "--eval_strategy", "no", "--logging_steps", "1"]
    bench.forget_model()
    started = time.perf_counter()
    try:
        run_within([*command, *(["--dry_run"] if bench.tiny else [])])
    finally:
        report["seconds_with_start"] = time.perf_counter() - started
        report |= logged(output)


def run_within(command: list[str]) -> None:
    """Run a command; if interrupted, end it and all that it started. Raises ``Failed`` with the end of its output."""
    environment = {**os.environ, "PYTHON": sys.executable}
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said, _ = process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise Failed(f"training ended with {process.returncode}: {said.strip()[-300:]}")


def logged(output: Path) -> dict:
    """Steps and peak memory in bytes as logged by ms-swift under a folder; the peak is None if not logged."""
    lines = [json.loads(line) for path in output.rglob("logging.jsonl") for line in path.read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    peaks = [line["memory(GiB)"] * 2**30 for line in lines if "memory(GiB)" in line]
    return {"steps_done": len(steps), "peak_bytes": max(peaks, default=None)}
