"""Trainings that are ended and restarted, their validation, and what the checkpoint records about itself."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from saiqa.files import checkpoint_folders, locks
from saiqa.model.pixels import PixelBounds
from saiqa.training.checkpoints import promote
from trainings import (
    BASE,
    DEMO_CHECKPOINT,
    SHORT,
    SYSTEM,
    assert_logged_as_scored,
    contents,
    ended_when,
    gone,
    largest_difference,
    train,
    trained,
)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_a_former_checkpoint_stays_until_it_may_go(tmp_path, data, undisturbed):
    """kill -9 between two saves: no process remains, and the same command ends with the weights of an undisturbed run."""
    output = tmp_path / "out"
    shutil.copytree(DEMO_CHECKPOINT, output)
    (output / "args.json").write_text(json.dumps({"system": "of the former"}))
    (output / "model-00001-of-00002.safetensors").write_bytes(b"stale")
    before = contents(output)
    command = [*SHORT, *data, "--output_dir", output]
    ended_when(command, lambda: any(output.glob("v0-*/checkpoint-2/whole")), signal.SIGKILL)
    assert gone(output), "processes are left"
    assert contents(output) == before

    ran = trained(*command)
    (run,) = output.glob("v*-*")
    assert "resuming from" in ran.stderr and "already holds a checkpoint" in ran.stderr
    assert ran.stdout.strip().endswith(run.name) and str(run) in ran.stderr.splitlines()[-1]
    assert largest_difference(run, undisturbed.output) == 0.0
    assert not list(run.glob("checkpoint-*/global_step*"))  # files only needed for resuming
    assert contents(output) == before and checkpoint_folders.find_checkpoint(output, print) == output
    assert "has already finished" in trained(*command).stderr

    (run / "model.safetensors").unlink()
    (run / "config.json").unlink()
    mended = trained(*command, "--overwrite")  # nothing is trained again: the run still has the checkpoint
    assert "steps/s" not in mended.stderr and mended.stdout.strip().endswith("out")
    after = contents(output)
    assert after.keys() >= {"config.json", "model.safetensors", "preprocessor_config.json", "args.json"}
    assert "model-00001-of-00002.safetensors" not in after and not any(name.endswith(".new") for name in after)
    assert after["model.safetensors"] == (run / "model.safetensors").read_bytes() != before["model.safetensors"]
    assert json.loads(after["args.json"])["system"] == SYSTEM
    assert len(list(output.glob("v*-*"))) == 1


def test_what_another_process_writes_is_not_trained(tmp_path, data):
    with locks.exclusive([tmp_path / "out"]):
        ran = train(*SHORT, *data, "--output_dir", tmp_path / "out")
    assert ran.returncode == 1 and "is being written by process" in ran.stderr


def test_the_logged_agreement_is_that_of_infer(undisturbed, data, tmp_path):
    assert_logged_as_scored(undisturbed.output, data[3], tmp_path)


def test_the_checkpoint_says_how_it_was_made(undisturbed, data):
    record = json.loads((undisturbed.output / "training.json").read_text())
    assert record["base_name"] == "small-base" and len(record["base"]) == 64
    assert {Path(data[1]).name, Path(data[3]).name} <= record["data"].keys()
    assert record["options"]["learning_rate"] == ["1e-4"] and record["examples"] == {"train": 32, "val": 15}
    assert record["versions"].keys() >= {"torch", "ms-swift"}
    assert not any(text.startswith("/") for text in strings(record)), "a folder of the machine that trained"
    assert (undisturbed.output / "curves.png").read_bytes().startswith(b"\x89PNG")


def strings(value) -> list[str]:
    if isinstance(value, dict):
        return [text for one in value.values() for text in strings(one)]
    if isinstance(value, list):
        return [text for one in value for text in strings(one)]
    return [value] if isinstance(value, str) else []


def test_scoring_looks_at_the_pixels_of_the_training(tmp_path):
    """The pixel bounds of a training are stored in the config.json that scoring uses."""
    step = tmp_path / "checkpoint-1"
    step.mkdir()
    shutil.copy(BASE / "config.json", step)
    (step / "model.safetensors").write_bytes(b"")
    promote(step, tmp_path, BASE, {"min_pixels": 10_000, "max_pixels": 20_000})
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["min_pixels"], config["max_pixels"]) == (10_000, 20_000)
    assert PixelBounds.of_checkpoint(tmp_path) == PixelBounds(10_000, 20_000)
