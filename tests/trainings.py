"""Trainings for tests: the real ``train_sft.sh``, on a few examples of the demo."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

from helpers import REPOSITORY, run_command
from saiqa import facts
from saiqa.cli.console import Output
from saiqa.evaluate.figures import correlate
from saiqa.scoring import score_of
from saiqa.training import launcher
from saiqa.training.inputs import Inputs
from saiqa.training.options import forwarded_options
from saiqa.training.plan import make_plan

SCRIPT = REPOSITORY / "tools" / "train_sft.sh"
BASE = REPOSITORY / "demo" / "SA-IQA-model" / facts.DEMO_BASE_MODEL_FOLDER
DEMO_CHECKPOINT = BASE.with_name(facts.tuned_model())
DEMO_DATA = REPOSITORY / "demo" / "SA-BENCH"
ON_CPU = ("--demo", "--device", "cpu")
SYSTEM = "You are a helpful assistant."  # the release's; the demo's checkpoint has none
# Six steps in two processes, with three checkpoints.
SHORT = (*ON_CPU, "--system", SYSTEM, "--max_steps", 6, "--save_steps", 2, "--logging_steps", 1)
SHORT += ("--per_device_train_batch_size", 4)


def environment(**given: str) -> dict[str, str]:
    return {**os.environ, "PYTHON": sys.executable, **given}


def train(*args, cwd: Path | None = None, timeout: int = 600, **env) -> subprocess.CompletedProcess:
    command = ["bash", str(SCRIPT), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment(**env), timeout=timeout)


def trained(*args, **how) -> subprocess.CompletedProcess:
    """``train``, which must succeed."""
    ran = train(*args, **how)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran


def examples(folder: Path, count: int, dimension: str = "lighting", split: str = "train") -> Path:
    """A question file with some of the demo's examples and the table of their ratings next to it; its path."""
    stem = facts.annotation_csv(dimension, split).removesuffix(".csv")
    annotations = DEMO_DATA / facts.ANNOTATIONS_FOLDER
    lines = (annotations / f"{stem}_prompt4.jsonl").read_text().splitlines()[:count]
    records = [json.loads(line) for line in lines]
    for record in records:
        record["images"] = [str(REPOSITORY / "demo" / record["images"][0])]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{stem}_prompt4.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / f"{stem}.csv").write_text((annotations / f"{stem}.csv").read_text())
    return file


def small_benchmark(root: Path, counts: Mapping[str, int], dimensions: Sequence[str] = tuple(facts.DIMENSIONS)) -> Path:
    """A benchmark folder with the first of the demo's rooms, split -> number per dimension; pictures are links."""
    source, target = (folder / facts.ANNOTATIONS_FOLDER for folder in (DEMO_DATA, root))
    target.mkdir(parents=True)
    for dimension in dimensions:
        images = root / facts.IMAGES_FOLDER.format(dimension=dimension)
        images.mkdir(parents=True)
        for split, count in counts.items():
            lines = (source / facts.annotation_csv(dimension, split)).read_text().splitlines(keepends=True)
            (target / facts.annotation_csv(dimension, split)).write_text("".join(lines[: 1 + count]))
            for version in facts.PROMPT_VERSIONS:
                name = facts.annotation_jsonl(dimension, split, version)
                lines = (source / name).read_text().splitlines(keepends=True)[:count]
                (target / name).write_text("".join(lines))
            for image in (Path(json.loads(line)["images"][0]) for line in lines):
                (images / image.name).symlink_to(REPOSITORY / "demo" / image)
    return root


def read_inputs(*flags) -> tuple[argparse.Namespace, Inputs]:
    """The inputs of a training, read and checked in this process, as the launcher does before ms-swift starts."""
    arguments, unknown = launcher.parser().parse_known_args(list(map(str, flags)))
    forwarded = forwarded_options(unknown, print)
    return arguments, Inputs.read(make_plan(arguments, forwarded, print), forwarded.keys(), Output())


def contents(folder: Path) -> dict[str, bytes]:
    """The contents of the files of a folder, without those of training runs in it."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def weights(checkpoint: Path) -> dict:
    return load_file(checkpoint / "model.safetensors")


def largest_difference(one: Path, other: Path) -> float:
    """The largest difference between the weights of two checkpoints."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


class TooLate(AssertionError):
    """A training ended by itself before the chosen moment."""


def ended_when(command: list, is_time: Callable[[], bool], number: signal.Signals, seconds: float = 180) -> int:
    """Start a training, send its launcher a signal at the chosen moment, and wait until it has ended; its exit code."""
    words = ["bash", str(SCRIPT), *map(str, command)]
    process = subprocess.Popen(
        words, env=environment(), start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + seconds
        while not is_time():
            if process.poll() is not None:
                raise TooLate(f"ended with {process.returncode} before its time")
            assert time.monotonic() < until, "the moment does not come"
            time.sleep(0.001)
        process.send_signal(number)
        return process.wait(60)
    finally:
        if process.poll() is None:
            process.kill()


def processes_of(folder: Path) -> list[str]:
    """The command lines of the processes that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and "pytest" not in line:
            found.append(line)
    return found


def gone(folder: Path, seconds: float = 30) -> bool:
    """Whether every process that names a folder ends in time."""
    until = time.monotonic() + seconds
    while processes_of(folder):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def assert_logged_as_scored(checkpoint: Path, questions: Path, folder: Path) -> None:
    """PLCC and SRCC that a training logged for these questions are those of infer.py's scores."""
    logged = json.loads((checkpoint / "training.json").read_text())["validation"]["groups"]["lighting"]
    ran = run_command(
        *("infer.py", "--demo", "--dimension", "lighting", "--mode", "infer", "--device", "cpu", "--dtype", "float32"),
        *("--test_jsonl", questions, "--model_path", checkpoint, "--results_dir", folder),
    )
    assert ran.code == 0, ran.err
    (result,) = folder.glob("*.jsonl")
    rated = [json.loads(line) for line in result.read_text().splitlines()]
    table = (questions.parent / facts.annotation_csv("lighting", "val")).read_text().splitlines()
    place = table[0].split(",").index("lighting_score_mos")
    mos = {row.split(",")[0]: float(row.split(",")[place]) for row in table[1:]}
    scores = [score_of(line["logits"]) for line in rated]
    found = correlate(scores, [mos[Path(line["images"][0]).stem] for line in rated])
    assert logged["n"] == found.n == len(rated)
    assert logged["plcc"] == pytest.approx(found.plcc, abs=1e-4) and logged["srcc"] == pytest.approx(found.srcc, abs=1e-4)
