"""Tests that need minutes of training: ``make train-check``, not part of ``make test``.

Runs that are ended at three moments and resumed, a second start during a run, adapters, ZeRO-3 and offload, two machines on
loopback, and gradients that do not depend on how examples are split into batches.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from helpers import free_port, run_command
from saiqa.files import checkpoint_folders
from saiqa.training.soft_labels import LOSSES
from trainings import (
    BASE,
    DEMO_CHECKPOINT,
    ON_CPU,
    SCRIPT,
    SHORT,
    TooLate,
    contents,
    ended_when,
    environment,
    examples,
    gone,
    largest_difference,
    train,
    trained,
    weights,
)

ALONE = ("--nproc_per_node", 1)


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
    command = [*SHORT, *data, "--output_dir", output]
    for _ in range(4):  # promoting takes milliseconds, which a busy machine may miss
        with suppress(TooLate):
            code = ended_when(command, lambda: MOMENTS[moment](output), number)
            break
        shutil.rmtree(output)
    else:
        pytest.fail(f"never seen {moment}")
    assert gone(output), "processes are left"
    assert code == (143 if number == signal.SIGTERM else -signal.SIGKILL) or moment == "while promoting"
    ran = trained(*command)
    if moment != "while promoting":
        assert "resuming from" in ran.stderr
    assert len(list(output.glob("v*-*"))) == 1
    assert largest_difference(output, undisturbed.output) == 0.0


@pytest.mark.parametrize("strategy", ["zero3", "zero2_offload", "zero3_offload"])
def test_sharding_and_offload_give_the_weights_of_zero2(tmp_path, data, undisturbed, strategy):
    trained(*SHORT, *data, "--deepspeed", strategy, "--output_dir", tmp_path / "out")
    assert largest_difference(undisturbed.output, tmp_path / "out") < 1e-5
    scored(tmp_path / "out")


def scored(checkpoint: Path) -> None:
    """infer.py loads the result of a training."""
    ran = run_command(
        *("infer.py", "--demo", "--dimension", "lighting", "--mode", "infer", "--limit", "2", "--device", "cpu"),
        *("--model_path", checkpoint, "--results_dir", checkpoint.parent / "results"),
    )
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("shared", [True, False], ids=["shared folder", "separate folders"])
def test_two_machines_train_as_one(tmp_path, data, undisturbed, shared):
    """Two launchers on loopback, one process each, against one launcher with two processes."""
    port = free_port()
    flags = [*SHORT, *ALONE, *data]
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
    assert largest_difference(outputs[0], undisturbed.output) < 1e-6
    scored(outputs[0])


def gradient_steps(output: Path) -> list[float]:
    run = next(output.glob("v0-*"))
    lines = map(json.loads, (run / "progress.jsonl").read_text().splitlines())
    return [line["grad_norm"] for line in lines if "grad_norm" in line]


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_do_not_depend_on_how_examples_are_cut(tmp_path, data, loss):
    """One step over 32 examples: in one batch, by two processes, and in four accumulated batches."""
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
        trained(*ON_CPU, *steps, *cut, *accumulation, *optimizer, "--output_dir", tmp_path / name)
    for name in list(cuts)[1:]:
        assert largest_difference(tmp_path / "once", tmp_path / name) < 1e-6
    assert all(norm > 0 for norm in gradient_steps(tmp_path / "once"))


def test_merged_adapters_are_a_checkpoint(tmp_path, data):
    trained(*SHORT, *ALONE, *data, "--tuner_type", "lora", "--output_dir", tmp_path / "out")
    assert not any((tmp_path / "out").glob("adapter*"))
    scored(tmp_path / "out")
    validated = json.loads((tmp_path / "out" / "training.json").read_text())["validation"]
    assert validated["groups"]["lighting"]["n"] == 15
    assert os.path.getsize(tmp_path / "out" / "model.safetensors") > 10**6


def test_the_tower_learns_too_where_it_is_not_frozen(tmp_path, data):
    """With gradient checkpointing, which ms-swift puts around the tower's blocks, and without: the same weights."""
    flags = [*SHORT, *ALONE, *data, "--freeze_vit", "false"]
    for name, more in (("kept", ("--gradient_checkpointing", "false")), ("recomputed", ())):
        trained(*flags, *more, "--output_dir", tmp_path / name)
    before, after = weights(BASE), weights(tmp_path / "kept")
    moved = {name for name in before if not before[name].equal(after[name])}
    assert any(name.startswith("visual_tokenizer.vit.") for name in moved)
    assert largest_difference(tmp_path / "kept", tmp_path / "recomputed") < 1e-6


def test_a_second_start_is_refused_while_the_first_trains(tmp_path, data):
    output = tmp_path / "out"
    command = [*SHORT, *data, "--output_dir", output]
    words = ["bash", str(SCRIPT), *map(str, command)]
    first = subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        for line in first.stderr:
            if "training" in line:
                break
        second = train(*command)
        assert second.returncode == 1 and "is being written by process" in second.stderr
    finally:
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 143
        first.stderr.close()
    assert gone(output)


def test_a_length_that_fits_is_chosen_and_said(tmp_path):
    file = examples(tmp_path / "data", 6)
    records = [json.loads(line) for line in file.read_text().splitlines()]
    records[0]["query"] += " Look closely." * 800
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    ran = trained(
        *(*ON_CPU, *ALONE, "--train_jsonl", file, "--output_dir", tmp_path / "out", "--max_steps", 1),
        *("--val_split", 0, "--per_device_train_batch_size", 6),
    )
    assert "instead of the release's" in ran.stderr
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert int(record["options"]["max_length"][0]) >= record["longest"] > 2048


def test_a_run_that_is_killed_leaves_the_former_checkpoint(tmp_path):
    output = tmp_path / "out"
    shutil.copytree(DEMO_CHECKPOINT, output)
    before = contents(output)
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
    assert contents(output) == before
    assert checkpoint_folders.find_checkpoint(output, print) == output


def test_val_on_test_is_ms_swifts_loss_on_the_test_split(tmp_path):
    output = tmp_path / "out"
    two_steps = ("--max_steps", 2, "--eval_steps", 1)
    ran = trained(*ON_CPU, *ALONE, *two_steps, "--dimensions", "layout", "--val_on_test", "--output_dir", output)
    assert "checking the images: 720/720" in ran.stderr  # 600 to train on, 120 of the test split
    (log,) = output.glob("v0-*/logging.jsonl")
    losses = [line["eval_loss"] for line in map(json.loads, log.read_text().splitlines()) if "eval_loss" in line]
    assert len(losses) == 2 and losses[0] != losses[1] and all(0 < loss < 5 for loss in losses)
    assert json.loads((output / "training.json").read_text())["validation"] is None
