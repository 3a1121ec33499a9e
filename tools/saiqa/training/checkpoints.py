"""Turns what ms-swift saved into a checkpoint, in the folder of its run and, if asked for, in the output folder.

A folder is a checkpoint once it has a config.json, which is therefore deleted first and written last.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from saiqa.files.checkpoint_files import COMPANIONS, CONFIG_FILE, INDEX_FILE, RECORD_FILE
from saiqa.files.checkpoint_folders import STEPS, step_number
from saiqa.prompts import ARGUMENTS_FILE
from saiqa.training.soft_labels import WORD_SCALE

# The entries of ms-swift's args.json that matter for inference; the rest describes the machine that trained it.
_ASKING = (
    *("model_type", "task_type", "torch_dtype", "template", "system", "max_length", "truncation_strategy", "max_pixels"),
    *("agent_template", "norm_bbox", "use_chat_template", "padding_side", "padding_free", "loss_scale"),
    *("sequence_parallel_size", "template_backend", "response_prefix", "enable_thinking", "add_non_thinking_prefix"),
    "tuner_type",
)

CURVES_FILE = "curves.png"
WHOLE_FILE = "whole"  # in a ``checkpoint-N`` that every process has written completely
_BESIDE = (ARGUMENTS_FILE, RECORD_FILE, CURVES_FILE)  # additional files of a checkpoint

# Needed only to resume training, not for scoring: many times the size of the weights.
_STATES = ("global_step*", "optimizer*", "scheduler*", "rng_state*", "zero_to_fp32.py", "latest*", "*.pt", "*.pth")


def steps_of(run: Path) -> list[Path]:
    """The completely saved ``checkpoint-N`` in the folder of a run, by step."""
    whole = (step for step in run.glob(STEPS) if step_number(step) >= 0 and (step / WHOLE_FILE).is_file())
    return sorted(whole, key=step_number)


def mark_whole(step: Path) -> None:
    """Mark a ``checkpoint-N`` as written by every process. Nodes without a shared folder have only their own part."""
    if step.is_dir():
        (step / WHOLE_FILE).touch()


def best_step(run: Path) -> Path | None:
    """The complete checkpoint with the best validation, else the newest; None if there is none."""
    steps = steps_of(run)
    if not steps:
        return None
    best = _trainer_state(steps[-1]).get("best_global_step")
    return next((step for step in steps if step_number(step) == best), steps[-1])


def is_trained(run: Path) -> bool:
    """Whether the last step of a run was saved, so that only the final checkpoint has to be made."""
    steps = steps_of(run)
    if not steps:
        return False
    state = _trainer_state(steps[-1])
    return state["global_step"] >= state["max_steps"]


def _trainer_state(step: Path) -> dict[str, Any]:
    """The trainer's state in a ``checkpoint-N``: how far training was, and the best step until then."""
    return json.loads((step / "trainer_state.json").read_text(encoding="utf-8"))


def remove_broken(run: Path) -> None:
    """Remove checkpoints that were incomplete when a run was ended."""
    for step in set(run.glob(STEPS)) - set(steps_of(run)):
        shutil.rmtree(step, ignore_errors=True)


def drop_states(run: Path) -> None:
    """Remove a finished run's files that are only needed to resume training."""
    for step in run.glob(STEPS):
        for pattern in _STATES:
            for path in step.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def promote(step: Path, run: Path, base: Path, bounds: Mapping[str, int] | None = None) -> None:
    """Make the folder of a run a checkpoint, from ``step``, a folder in it.

    ``bounds``, the pixel bounds used in training, are written into its config.json, so that scoring uses them too.

    Tokenizer and preprocessing are copied unchanged from ``base``, a view of the base model: training does not change them, but
    other library versions would write them differently. Files are hard-linked if possible, else copied; ``step`` stays, so that
    training can resume from it.
    """
    files = {file.name: file for file in _files_of(step)}
    files |= {name: base / name for name in COMPANIONS if name != CONFIG_FILE and (base / name).is_file()}
    arguments = run / f".{ARGUMENTS_FILE}.asking"
    if (step / ARGUMENTS_FILE).is_file():
        said = json.loads((step / ARGUMENTS_FILE).read_text(encoding="utf-8"))
        asking = {name: said[name] for name in _ASKING if name in said}
        if asking.get("loss_scale") == WORD_SCALE:
            asking["loss_scale"] = "default"  # ours is for training only, and ms-swift alone does not know it
        arguments.write_text(json.dumps(asking, indent=2) + "\n")
        files[ARGUMENTS_FILE] = arguments
    config = run / f".{CONFIG_FILE}.bounds"
    if bounds:
        said = json.loads(files[CONFIG_FILE].read_text(encoding="utf-8"))
        config.write_text(json.dumps({**said, **bounds}, indent=2) + "\n", encoding="utf-8")
        files[CONFIG_FILE] = config
    for _ in replacing(files, run):
        pass
    arguments.unlink(missing_ok=True)
    config.unlink(missing_ok=True)


def install(run: Path, output: Path) -> None:
    """Make ``output`` a checkpoint, from ``run``, the folder of a run in it; replaces an existing checkpoint."""
    files = {file.name: file for file in _files_of(run)}
    files |= {name: run / name for name in _BESIDE if (run / name).is_file()}
    for _ in replacing(files, output):
        pass


def replacing(files: Mapping[str, Path], folder: Path) -> Iterator[None]:
    """Make ``folder`` a checkpoint of these files, name -> source, in steps; it is safe to stop after any of them.

    Everything is prepared under other names before anything is deleted. From then until the last step the folder is not a
    checkpoint, and ``checkpoint_folders.find_checkpoint`` finds the one of its newest run.
    """
    ready = {}
    for name, source in files.items():
        ready[name] = folder / f".{name}.new"
        _link(source, ready[name])
        yield
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    yield
    for former in [*_files_of(folder), *(folder / name for name in _BESIDE if name in files or name == ARGUMENTS_FILE)]:
        former.unlink(missing_ok=True)
        yield
    for name in sorted(ready, key=CONFIG_FILE.__eq__):
        os.replace(ready[name], folder / name)
        yield


def _files_of(folder: Path) -> list[Path]:
    """The files of a checkpoint, without those of its training."""
    weights = [file for file in folder.glob("*.safetensors") if file.is_file()]
    return [*weights, *(folder / name for name in (INDEX_FILE, *COMPANIONS) if (folder / name).is_file())]


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)
