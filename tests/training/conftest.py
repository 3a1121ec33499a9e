"""What the tests of trainings share: few examples, and one run over them in peace."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from trainings import SHORT, examples, trained


class Undisturbed(NamedTuple):
    """A run that nobody has ended: the folder of its checkpoint, and what it has said."""

    output: Path
    ran: subprocess.CompletedProcess


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> tuple:
    """Questions to train and to validate on; 15 images are what two processes cannot share evenly."""
    folder = tmp_path_factory.mktemp("data")
    return ("--train_jsonl", examples(folder / "train", 32), "--val_jsonl", examples(folder / "val", 15, split="val"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, data) -> Undisturbed:
    """Started in another folder; keeps what training on needs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    output = folder / "sa-iqa-prompt4"
    return Undisturbed(output, trained(*SHORT, *data, "--save_only_model", "false", "--output_dir", output, cwd=folder))
