"""What takes minutes of training: ``make train-check``, and not part of ``make test``.

Runs that are ended at three moments and go on, adapters, ZeRO-3 and offload, two machines on the loopback, and gradients that
do not depend on how examples are cut into batches.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from helpers import run_command
from saiqa.files import checkpoint_folders
from saiqa.training.soft_labels import LOSSES
from trainings import (
    BASE,
    DEMO_CHECKPOINT,
    ON_CPU,
    SCRIPT,
    assert_logged_as_scored,
    ended_when,
    environment,
    examples,
    gone,
    train,
)

SHORT = ("--max_steps", 6, "--save_steps", 2, "--logging_steps", 1, "--per_device_train_batch_size", 4, "--nproc_per_node", 1)


def weights(checkpoint: Path) -> dict:
    return load_file(checkpoint / "model.safetensors")


def largest_difference(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return ("--train_jsonl", examples(folder / "train", 32), "--val_jsonl", examples(folder / "val", 8, split="val"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data):
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    ran = train(*ON_CPU, *SHORT, *data, "--output_dir", output)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return output


def step_files(output: Path, step: int, name: str) -> bool:
    return any(output.glob(f"v0-*/checkpoint-{step}/{name}"))


MOMENTS = {
    "between saves": lambda output: step_files(output, 2, "whole"),
    "while saving": lambda output: step_files(output, 4, "config.json") and not step_files(output, 4, "whole"),
    "while promoting": lambda output: any(output.glob("v0-*/.model.safetensors.new")) or (output / ".config.json.new").exists(),
}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_ended_run_goes_on_to_the_same_weights(tmp_path, data, undisturbed, moment, number):
    output = tmp_path / "out"
    command = [*ON_CPU, *SHORT, *data, "--output_dir", output]
    code = ended_when(command, lambda: MOMENTS[moment](output), number)
    assert gone(output), "processes are left"
    assert code == (143 if number == signal.SIGTERM else -signal.SIGKILL) or moment == "while promoting"
    ran = train(*command)
    assert ran.returncode == 0, ran.stderr[-3000:]
    if moment != "while promoting":
        assert "going on from" in ran.stderr
    assert len(list(output.glob("v*-*"))) == 1
    assert largest_difference(output, undisturbed) == 0.0


STRATEGIES = {
    "zero3": ("--deepspeed", "zero3"),
    "zero2_offload": ("--deepspeed", "zero2_offload"),
    "zero3_offload": ("--deepspeed", "zero3_offload"),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sharding_and_offload_give_the_weights_of_zero2(tmp_path, data, strategy):
    flags = [*ON_CPU, *SHORT[:-2], "--nproc_per_node", 2, *data]
    for name, more in (("zero2", ()), (strategy, STRATEGIES[strategy])):
        ran = train(*flags, *more, "--output_dir", tmp_path / name)
        assert ran.returncode == 0, ran.stderr[-3000:]
    assert largest_difference(tmp_path / "zero2", tmp_path / strategy) < 1e-5
    scored(tmp_path / strategy)


def scored(checkpoint: Path) -> None:
    """infer.py loads what a training has left."""
    ran = run_command(
        *("infer.py", "--demo", "--dimension", "lighting", "--mode", "infer", "--limit", "2", "--device", "cpu"),
        *("--model_path", checkpoint, "--results_dir", checkpoint.parent / "results"),
    )
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("shared", [True, False], ids=["shared folder", "separate folders"])
def test_two_machines_train_as_one(tmp_path, data, shared):
    """Two launchers on the loopback, one process each, against one launcher with two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = [*ON_CPU, *SHORT, *data]
    outputs = [tmp_path / "first", tmp_path / ("first" if shared else "second")]
    started = []
    for rank, output in enumerate(outputs):
        env = environment(NNODES="2", NODE_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        command = ["bash", str(SCRIPT), *map(str, flags), "--output_dir", str(output)]
        started.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=400) for process in started]
    assert [process.returncode for process in started] == [0, 0], [err[-2000:] for _, err in said]
    assert "the checkpoint is on the first machine" in said[1][1]
    if not shared:
        assert not (outputs[1] / "config.json").exists()
    alone = train(*flags[: -len(data) - 2], "--nproc_per_node", 2, *data, "--output_dir", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr[-3000:]
    assert largest_difference(outputs[0], tmp_path / "alone") < 1e-6
    scored(outputs[0])


def gradient_steps(output: Path) -> list[float]:
    run = next(output.glob("v0-*"))
    lines = map(json.loads, (run / "progress.jsonl").read_text().splitlines())
    return [line["grad_norm"] for line in lines if "grad_norm" in line]


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_do_not_depend_on_how_examples_are_cut(tmp_path, data, loss):
    """One step over 32 examples: at once, by two processes, and by four accumulated batches."""
    cuts = {"once": (1, 32, 1), "two processes": (2, 16, 1), "accumulated": (1, 8, 4)}
    steps = ("--max_steps", 1, "--logging_steps", 1, "--loss", loss, "--val_split", 0, *data[:2], "--warmup_ratio", 0)
    for name, (processes, batch, accumulated) in cuts.items():
        cut = ("--nproc_per_node", processes, "--per_device_train_batch_size", batch)
        accumulation = ("--gradient_accumulation_steps", accumulated)
        # Plain gradient descent: the change of the weights is the gradient.
        optimizer = (
            "--optim",
            "sgd",
            "--learning_rate",
            1,
            "--weight_decay",
            0,
            "--max_grad_norm",
            1e9,
            "--deepspeed",
            "zero0",
        )
        ran = train(*ON_CPU, *steps, *cut, *accumulation, *optimizer, "--output_dir", tmp_path / name)
        assert ran.returncode == 0, ran.stderr[-3000:]
    for name in list(cuts)[1:]:
        assert largest_difference(tmp_path / "once", tmp_path / name) < 1e-6
    assert all(norm > 0 for norm in gradient_steps(tmp_path / "once"))


def test_merged_adapters_are_a_checkpoint(tmp_path, data):
    ran = train(*ON_CPU, *SHORT, *data, "--tuner_type", "lora", "--output_dir", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert not any((tmp_path / "out").glob("adapter*"))
    scored(tmp_path / "out")
    validated = json.loads((tmp_path / "out" / "training.json").read_text())["validation"]
    assert validated["groups"]["lighting"]["n"] == 8
    assert os.path.getsize(tmp_path / "out" / "model.safetensors") > 10**6


def test_the_tower_learns_too_where_it_is_not_frozen(tmp_path, data):
    """With gradient checkpointing, which ms-swift puts around the tower's blocks, and without: the same weights."""
    flags = [*ON_CPU, *SHORT, *data, "--freeze_vit", "false"]
    for name, more in (("kept", ("--gradient_checkpointing", "false")), ("recomputed", ())):
        ran = train(*flags, *more, "--output_dir", tmp_path / name)
        assert ran.returncode == 0, ran.stderr[-3000:]
    before, after = weights(BASE), weights(tmp_path / "kept")
    moved = {name for name in before if not before[name].equal(after[name])}
    assert any(name.startswith("visual_tokenizer.vit.") for name in moved)
    assert largest_difference(tmp_path / "kept", tmp_path / "recomputed") < 1e-6


def test_two_processes_log_the_agreement_of_infer(tmp_path):
    """15 images, which two cannot share evenly."""
    data = ("--train_jsonl", examples(tmp_path / "train", 24), "--val_jsonl", examples(tmp_path / "val", 15, split="val"))
    ran = train(*ON_CPU, *SHORT[:-2], *data, "--nproc_per_node", 2, "--output_dir", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert_logged_as_scored(tmp_path / "out", data[3], tmp_path / "results")


def test_a_length_that_fits_is_chosen_and_said(tmp_path):
    file = examples(tmp_path / "data", 6)
    records = [json.loads(line) for line in file.read_text().splitlines()]
    records[0]["query"] += " Look closely." * 800
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    ran = train(
        *(*ON_CPU, "--train_jsonl", file, "--output_dir", tmp_path / "out", "--max_steps", 1),
        *("--nproc_per_node", 1, "--val_split", 0, "--per_device_train_batch_size", 6),
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "in place of the release's" in ran.stderr
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert int(record["options"]["max_length"][0]) >= record["longest"] > 2048


def test_a_run_that_is_killed_leaves_the_former_checkpoint(tmp_path):
    output = tmp_path / "out"
    shutil.copytree(DEMO_CHECKPOINT, output)
    before = {file.name: file.read_bytes() for file in output.iterdir() if file.is_file()}
    flags = ["--demo", "--device", "cpu", "--output_dir", output, "--overwrite"]
    command = ["bash", SCRIPT, *flags, "--save_steps", 1, "--nproc_per_node", 1]
    process = subprocess.Popen(list(map(str, command)), env=environment(), start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not list(output.glob("v0-*/checkpoint-*/model.safetensors")) and time.monotonic() < deadline:
            time.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert list(output.glob("v0-*/checkpoint-*"))
    assert {file.name: file.read_bytes() for file in output.iterdir() if file.is_file()} == before
    assert checkpoint_folders.find_checkpoint(output, print) == output
