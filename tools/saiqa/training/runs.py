"""Run folders: which one a command resumes, and the record of how each was made (``training.json``)."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saiqa.errors import InputError
from saiqa.files import checkpoint_folders, folders, text_files
from saiqa.files.checkpoint_files import RECORD_FILE

LOG_FILE = "training.log"
TENSORBOARD_FOLDER = "runs"  # where ms-swift writes TensorBoard logs
_FINISHED_FILE = "finished"


def digest(identity: Mapping[str, Any]) -> str:
    """Identifies a run: a digest, 16 hexadecimal digits, of everything that determines the weights."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def find(output: Path, identity: str) -> Path | None:
    """The newest run with this identity in an output folder."""
    found = [folder for folder in output.glob(checkpoint_folders.RUNS) if said(folder).get("identity") == identity]
    return max(found, key=checkpoint_folders.run_number, default=None)


def new(output: Path, identity: str, nodes: int) -> Path:
    """The folder of a new run, named by the time; on several nodes, which must agree, by its identity."""
    mark = identity[:8] if nodes > 1 else time.strftime("%Y%m%d-%H%M%S")
    return output / f"v{checkpoint_folders.next_run(output)}-{mark}"


def said(run: Path) -> dict[str, Any]:
    """The record of a run; empty if there is none."""
    path = run / RECORD_FILE
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{folders.shown(path)} is not JSON", "Remove it, or start with --fresh") from None
    return value if isinstance(value, dict) else {}


def mark_finished(run: Path) -> None:
    """Mark a run as finished."""
    (run / _FINISHED_FILE).touch()


def is_finished(run: Path) -> bool:
    """Whether a run has finished and its checkpoint is in place."""
    return (run / _FINISHED_FILE).is_file()


def write(run: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a run, completely or not at all."""
    run.mkdir(parents=True, exist_ok=True)
    with text_files.atomic_writer(run / RECORD_FILE) as file:
        file.write(json.dumps(record, indent=2) + "\n")
