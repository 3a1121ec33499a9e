"""Checkpoint folders: which one a path refers to, its name, its fingerprint."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from pathlib import Path

from saiqa import facts
from saiqa.errors import OR_DEMO, InputError
from saiqa.files import checkpoint_files, digests
from saiqa.files.folders import downloads, shown

_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
RUNS, STEPS = "v*-*", "checkpoint-*"  # folders written by training, as ``glob`` patterns
_RUN, _STEP = re.compile(r"v(\d+)-.+"), re.compile(r"checkpoint-(\d+)")


def _model_part(path: Path) -> str:
    """Which part of the release a checkpoint folder is, judging by its name."""
    return "base_model" if path.name == facts.BASE_MODEL_FOLDER else "model"


def find_checkpoint(path: Path, note: Callable[[str], None]) -> Path:
    """The folder with the weights: ``path`` itself, or the newest checkpoint of a training run in it.

    Args:
        path: a checkpoint folder, or one with training runs (``v0-...``, ``v0-.../checkpoint-N``, ``checkpoint-N``).
        note: called with a message if the checkpoint used is not ``path`` itself.

    Raises:
        InputError: there is no checkpoint, its download is incomplete, or its weights are in a format that can run code.
    """
    if found := newest_checkpoint(path):
        if found != path:
            note(f"{shown(path)}: using the newest checkpoint of the training run in it, {found.relative_to(path)}")
        _check_shards(found)
        return found
    if any(next(path.glob(pattern), None) for pattern in _OTHER_WEIGHTS):
        raise InputError(
            f"{shown(path)}: weights are loaded from safetensors only, and there are none",
            "Save the checkpoint again with safe_serialization=True",
        )
    there = "has no config.json with *.safetensors" if path.is_dir() else "is not there"
    command = downloads(_model_part(path), "annotations")
    raise InputError(f"checkpoint {shown(path)} {there}", f"Check the path, or get it with {command}{OR_DEMO}")


def newest_checkpoint(path: Path) -> Path | None:
    """``path`` itself if it is a checkpoint, else the newest one from the training runs in it; None if there is none."""
    candidates = [*_training_checkpoints(path), path]
    return next((folder for folder in reversed(candidates) if _is_checkpoint(folder)), None)


def next_run(path: Path) -> int:
    """The number of the next training run in a folder; the first is 0."""
    return max(map(run_number, path.glob(RUNS)), default=-1) + 1


def run_number(folder: Path) -> int:
    """N of a training run's folder ``vN-...``; -1 for any other folder."""
    return _number(_RUN, folder)


def step_number(folder: Path) -> int:
    """N of a ``checkpoint-N``; -1 for any other folder."""
    return _number(_STEP, folder)


def _number(pattern: re.Pattern[str], folder: Path) -> int:
    found = pattern.fullmatch(folder.name)
    return int(found[1]) if found else -1


def model_name(path: Path) -> str:
    """The last part of a model path, as it appears in the names of result files."""
    return path.name or path.resolve().name


def _is_checkpoint(path: Path) -> bool:
    return (path / checkpoint_files.CONFIG_FILE).is_file() and any(path.glob("*.safetensors"))


def _training_checkpoints(path: Path) -> list[Path]:
    """Training's folders below ``path``, oldest first: by run number, then by step, then the run's own folder."""
    found: list[tuple[int, float, Path]] = []
    for run in (path, *(folder for folder in path.glob(RUNS) if run_number(folder) >= 0)):
        number = -1 if run == path else run_number(run)
        found += [(number, step_number(step), step) for step in run.glob(STEPS) if step_number(step) >= 0]
        if run != path:
            found.append((number, math.inf, run))
    return [folder for _, _, folder in sorted(found)]


def _check_shards(path: Path) -> None:
    """Refuse a checkpoint whose index names missing shards."""
    if not (path / checkpoint_files.INDEX_FILE).exists():
        return
    shards = checkpoint_files.weight_names(path)
    missing = [shard for shard in shards if not (path / shard).is_file()]
    if missing:
        raise InputError(
            f"{shown(path)} lacks {len(missing)} of its {len(shards)} weight files, starting with {missing[0]}",
            f"Finish the download: {downloads(_model_part(path))}",
        )


def fingerprint(checkpoint: Path) -> str:
    """SHA-256 digest of every file of a checkpoint that a rating can depend on: 64 hexadecimal digits.

    Raises:
        InputError: a weight file is missing.
    """
    files = checkpoint_files.all_files(checkpoint)
    lines = (f"{file.name} {digest}\n" for file, digest in zip(files, digests.of_files(files), strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
