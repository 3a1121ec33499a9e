"""Trainings that are ended and started again, what they validate, and what the checkpoint says of itself."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from saiqa.model.pixels import PixelBounds
from saiqa.training.checkpoints import promote
from trainings import BASE, DEMO_DATA, ON_CPU, SCRIPT, assert_logged_as_scored, ended_when, environment, examples, gone, train

STEPS = ("--max_steps", 4, "--save_steps", 2, "--logging_steps", 1, "--per_device_train_batch_size", 4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Questions to train and to validate on; the images of the test split are nowhere near."""
    folder = tmp_path_factory.mktemp("data")
    return ("--train_jsonl", examples(folder / "train", 24), "--val_jsonl", examples(folder / "val", 15, split="val"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data):
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    ran = train(*ON_CPU, *STEPS, *data, "--nproc_per_node", 1, "--output_dir", output)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return output


def test_a_killed_run_goes_on_where_it_was(tmp_path, data, undisturbed):
    """kill -9 between two saves: nothing is left running, and the same command ends with the weights of a run in peace."""
    output = tmp_path / "out"
    command = [*ON_CPU, *STEPS, *data, "--nproc_per_node", 1, "--output_dir", output]
    ended_when(command, lambda: any(output.glob("v0-*/checkpoint-2/whole")), signal.SIGKILL)
    assert gone(output), "processes are left"
    ran = train(*command)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "going on from" in ran.stderr
    (run,) = output.glob("v*-*")
    assert not list(run.glob("checkpoint-*/global_step*"))  # what only training on needs
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (output, undisturbed))
    assert all(weight.equal(theirs[name]) for name, weight in ours.items())

    again = train(*command)
    assert again.returncode == 0 and "has ended here before" in again.stderr
    (output / "model.safetensors").unlink()
    (output / "config.json").unlink()
    mended = train(*command)  # nothing is trained again: the run still has it
    assert mended.returncode == 0 and "steps/s" not in mended.stderr
    assert (output / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert len(list(output.glob("v*-*"))) == 1


def test_a_second_start_is_refused(tmp_path, data):
    output = tmp_path / "out"
    command = [*ON_CPU, *STEPS, *data, "--nproc_per_node", 1, "--output_dir", output]
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


def test_the_logged_agreement_is_that_of_infer(undisturbed, data, tmp_path):
    assert_logged_as_scored(undisturbed, data[3], tmp_path)


def test_the_checkpoint_says_how_it_was_made(undisturbed, data):
    record = json.loads((undisturbed / "training.json").read_text())
    assert record["base_name"] == "small-base" and len(record["base"]) == 64
    assert {Path(data[1]).name, Path(data[3]).name} <= record["data"].keys()
    assert record["options"]["learning_rate"] == ["1e-4"] and record["examples"] == {"train": 24, "val": 15}
    assert record["versions"].keys() >= {"torch", "ms-swift"}
    assert not any(text.startswith("/") for text in strings(record)), "a folder of the machine that trained"
    assert (undisturbed / "curves.png").read_bytes().startswith(b"\x89PNG")


def strings(value) -> list[str]:
    if isinstance(value, dict):
        return [text for one in value.values() for text in strings(one)]
    if isinstance(value, list):
        return [text for one in value for text in strings(one)]
    return [value] if isinstance(value, str) else []


def test_scoring_looks_at_the_pixels_of_the_training(tmp_path):
    """The bounds that a run was trained with go into the config.json that is scored with."""
    step = tmp_path / "checkpoint-1"
    step.mkdir()
    shutil.copy(BASE / "config.json", step)
    (step / "model.safetensors").write_bytes(b"")
    promote(step, tmp_path, BASE, {"min_pixels": 10_000, "max_pixels": 20_000})
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["min_pixels"], config["max_pixels"]) == (10_000, 20_000)
    assert PixelBounds.of_checkpoint(tmp_path) == PixelBounds(10_000, 20_000)


def test_no_test_image_is_needed(tmp_path):
    """By default a run reads the test split neither to train nor to validate: its pictures may be absent."""
    root = tmp_path / "SA-BENCH"
    (root / "annotations").mkdir(parents=True)
    for file in (DEMO_DATA / "annotations").glob("lighting_3k_*"):
        if "_val" not in file.name:
            (root / "annotations" / file.name).symlink_to(file)
    images = root / "images" / "lighting" / "images"
    images.mkdir(parents=True)
    for file in (DEMO_DATA / "images" / "lighting" / "images").glob("*_train_*"):
        (images / file.name).symlink_to(file)
    ran = train(
        *(*ON_CPU, "--data_root", root, "--dimensions", "lighting", "--max_steps", 1, "--nproc_per_node", 1),
        *("--output_dir", tmp_path / "out", "--per_device_train_batch_size", 4),
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["examples"]["val"] > 10 and sum(record["examples"].values()) == 600
    asked = train(*ON_CPU, "--data_root", root, "--dimensions", "lighting", "--val_on_test", "--output_dir", tmp_path / "other")
    assert asked.returncode == 2 and "120 of 720 examples" in asked.stderr
