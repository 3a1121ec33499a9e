"""From what ms-swift saved to a checkpoint: in the folder of its run, and where that was asked for in the output folder.

A folder is a checkpoint once it has a config.json, which is therefore the first file to go and the last to come.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from saiqa.files.checkpoint_files import COMPANIONS, CONFIG_FILE, INDEX_FILE
from saiqa.prompts import ARGUMENTS_FILE

# What ms-swift's args.json says of how to ask the checkpoint; the rest is of the machine that trained it.
_ASKING = (
    *("model_type", "task_type", "torch_dtype", "template", "system", "max_length", "truncation_strategy", "max_pixels"),
    *("agent_template", "norm_bbox", "use_chat_template", "padding_side", "padding_free", "loss_scale"),
    *("sequence_parallel_size", "template_backend", "response_prefix", "enable_thinking", "add_non_thinking_prefix"),
    "tuner_type",
)


def newest_step(run: Path) -> Path | None:
    """The ``checkpoint-N`` of the highest step in the folder of a run."""
    steps = [folder for folder in run.glob("checkpoint-*") if folder.name.rpartition("-")[2].isdigit()]
    return max(steps, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def promote(step: Path, run: Path, base: Path) -> None:
    """Make the folder of a run the checkpoint that ``step``, a folder in it, holds.

    Tokenizer and preprocessing are the base model's, byte for byte, since libraries of another generation write them otherwise
    and training changes neither; give a view of it. Files are linked where the file system can, copied where not; ``step``
    stays, so that training can go on from it.
    """
    files = {file.name: file for file in _files_of(step)}
    files |= {name: base / name for name in COMPANIONS if name != CONFIG_FILE and (base / name).is_file()}
    arguments = run / f".{ARGUMENTS_FILE}.asking"
    if (step / ARGUMENTS_FILE).is_file():
        said = json.loads((step / ARGUMENTS_FILE).read_text(encoding="utf-8"))
        arguments.write_text(json.dumps({name: said[name] for name in _ASKING if name in said}, indent=2) + "\n")
        files[ARGUMENTS_FILE] = arguments
    for _ in replacing(files, run):
        pass
    arguments.unlink(missing_ok=True)


def install(run: Path, output: Path) -> None:
    """Make ``output`` the checkpoint that ``run``, the folder of a run in it, holds, in place of one it may hold."""
    files = {file.name: file for file in _files_of(run)}
    if (run / ARGUMENTS_FILE).is_file():
        files[ARGUMENTS_FILE] = run / ARGUMENTS_FILE
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
    for former in [*_files_of(folder), folder / ARGUMENTS_FILE]:
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
