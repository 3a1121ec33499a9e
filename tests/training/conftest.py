"""Shared by the tests of training: a few examples, and one undisturbed run on them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from trainings import SHORT, examples, trained


class Undisturbed(NamedTuple):
    """An undisturbed run: the folder of its checkpoint, and its output."""

    output: Path
    ran: subprocess.CompletedProcess


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> tuple:
    """Questions for training and validation; two processes cannot share 15 images evenly."""
    folder = tmp_path_factory.mktemp("data")
    return ("--train_jsonl", examples(folder / "train", 32), "--val_jsonl", examples(folder / "val", 15, split="val"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, data) -> Undisturbed:
    """Started in another folder; keeps the files needed for resuming."""
    folder = tmp_path_factory.mktemp("undisturbed")
    output = folder / "sa-iqa-prompt4"
    return Undisturbed(output, trained(*SHORT, *data, "--save_only_model", "false", "--output_dir", output, cwd=folder))
