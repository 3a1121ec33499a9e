"""From what ms-swift saved to a checkpoint: in the folder of its run, and where that was asked for in the output folder.

A folder is a checkpoint once it has a config.json, which is therefore the first file to go and the last to come.
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

# What ms-swift's args.json says of how to ask the checkpoint; the rest is of the machine that trained it.
_ASKING = (
    *("model_type", "task_type", "torch_dtype", "template", "system", "max_length", "truncation_strategy", "max_pixels"),
    *("agent_template", "norm_bbox", "use_chat_template", "padding_side", "padding_free", "loss_scale"),
    *("sequence_parallel_size", "template_backend", "response_prefix", "enable_thinking", "add_non_thinking_prefix"),
    "tuner_type",
)

CURVES_FILE = "curves.png"
WHOLE_FILE = "whole"  # in a ``checkpoint-N`` that was written to its end by every process
_BESIDE = (ARGUMENTS_FILE, RECORD_FILE, CURVES_FILE)  # what a checkpoint has beside what makes it one

# What training needs to go on, and nobody who scores: many times the size of the weights.
_STATES = ("global_step*", "optimizer*", "scheduler*", "rng_state*", "zero_to_fp32.py", "latest*", "*.pt", "*.pth")


def steps_of(run: Path) -> list[Path]:
    """The ``checkpoint-N`` in the folder of a run that were saved to their end, by step."""
    whole = (step for step in run.glob(STEPS) if step_number(step) >= 0 and (step / WHOLE_FILE).is_file())
    return sorted(whole, key=step_number)


def mark_whole(step: Path) -> None:
    """Say of a ``checkpoint-N`` that every process has written its part. Nodes without a shared folder have their part only."""
    if step.is_dir():
        (step / WHOLE_FILE).touch()


def best_step(run: Path) -> Path | None:
    """The whole checkpoint with the best validation, else the newest; None where there is none."""
    steps = steps_of(run)
    if not steps:
        return None
    best = _trainer_state(steps[-1]).get("best_global_step")
    return next((step for step in steps if step_number(step) == best), steps[-1])


def is_trained(run: Path) -> bool:
    """Whether the last step of a run was saved, so that only the checkpoint is to be made of it."""
    steps = steps_of(run)
    if not steps:
        return False
    state = _trainer_state(steps[-1])
    return state["global_step"] >= state["max_steps"]


def _trainer_state(step: Path) -> dict[str, Any]:
    """How far the training was when it saved a ``checkpoint-N``, and which was the best by then."""
    return json.loads((step / "trainer_state.json").read_text(encoding="utf-8"))


def remove_broken(run: Path) -> None:
    """Remove what was being saved when a run was ended."""
    for step in set(run.glob(STEPS)) - set(steps_of(run)):
        shutil.rmtree(step, ignore_errors=True)


def drop_states(run: Path) -> None:
    """Remove what only training on would need, of a run that has ended."""
    for step in run.glob(STEPS):
        for pattern in _STATES:
            for path in step.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def promote(step: Path, run: Path, base: Path, bounds: Mapping[str, int] | None = None) -> None:
    """Make the folder of a run the checkpoint that ``step``, a folder in it, holds.

    Its config.json says the bounds of the pixels that it was trained with, where they are given: those it is scored with.

    Tokenizer and preprocessing are the base model's, byte for byte, since libraries of another generation write them otherwise
    and training changes neither; give a view of it. Files are linked where the file system can, copied where not; ``step``
    stays, so that training can go on from it.
    """
    files = {file.name: file for file in _files_of(step)}
    files |= {name: base / name for name in COMPANIONS if name != CONFIG_FILE and (base / name).is_file()}
    arguments = run / f".{ARGUMENTS_FILE}.asking"
    if (step / ARGUMENTS_FILE).is_file():
        said = json.loads((step / ARGUMENTS_FILE).read_text(encoding="utf-8"))
        asking = {name: said[name] for name in _ASKING if name in said}
        if asking.get("loss_scale") == WORD_SCALE:
            asking["loss_scale"] = "default"  # of training alone, and ms-swift knows no such name without us
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
    """Make ``output`` the checkpoint that ``run``, the folder of a run in it, holds, in place of one it may hold."""
    files = {file.name: file for file in _files_of(run)}
    files |= {name: run / name for name in _BESIDE if (run / name).is_file()}
    for _ in replacing(files, output):
        pass


def replacing(files: Mapping[str, Path], folder: Path) -> Iterator[None]:
    """Make ``folder`` the checkpoint of these files, name -> source, in steps that may be cut short after any.

    Everything is made ready under other names before anything goes. From then until the last step the folder is no
    checkpoint, and ``checkpoint_folders.find_checkpoint`` finds that of the newest run in it.
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
    """The files that make a folder a checkpoint, those of its training left out."""
    weights = [file for file in folder.glob("*.safetensors") if file.is_file()]
    return [*weights, *(folder / name for name in (INDEX_FILE, *COMPANIONS) if (folder / name).is_file())]


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)
