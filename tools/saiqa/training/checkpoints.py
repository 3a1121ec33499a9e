"""From what ms-swift saved to a checkpoint in the output folder itself."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

# Of a training step, not of a model: optimizer and schedule, the trainer's diary, and paths of the machine that trained.
_NOT_OF_THE_MODEL = ("trainer_state.json", "args.json", "latest")


def newest_checkpoint(output: Path) -> Path | None:
    """The ``checkpoint-N`` of the highest step in ``output``."""
    steps = [folder for folder in output.glob("checkpoint-*") if folder.name.rpartition("-")[2].isdigit()]
    return max(steps, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def promote(checkpoint: Path, output: Path, base: Path) -> None:
    """Make ``output`` the checkpoint that ``checkpoint``, a folder in it, holds.

    The files are linked where the file system can, copied where not; ``checkpoint`` stays, so that training can go on from
    it. A base with Python files and an ``auto_map`` passes them on: what reads the base reads the result.
    """
    files = {file.name: file for file in base.iterdir() if _is_companion(file)}
    files |= {file.name: file for file in checkpoint.iterdir() if _is_companion(file) or _is_weights(file)}
    for name in sorted(files, key="config.json".__eq__):  # last: a folder is a checkpoint once it has it
        _replace(files[name], output / name)
    for stale in output.iterdir():
        if _is_weights(stale) and stale.name not in files:
            stale.unlink()
    _pass_on_auto_map(base / "config.json", output / "config.json")


def _is_weights(file: Path) -> bool:
    return file.suffix == ".safetensors" or file.name == "model.safetensors.index.json"


def _is_companion(file: Path) -> bool:
    """Configuration, tokenizer, or code of a bundle."""
    known = file.suffix in {".json", ".jinja", ".txt", ".py"} and not _is_weights(file)
    return file.is_file() and known and file.name not in _NOT_OF_THE_MODEL


def _replace(source: Path, target: Path) -> None:
    """Put ``source`` in place of ``target`` in one step."""
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    try:
        os.link(source, new)
    except OSError:
        shutil.copy2(source, new)
    os.replace(new, target)


def _pass_on_auto_map(base_config: Path, config: Path) -> None:
    auto_map = json.loads(base_config.read_text(encoding="utf-8")).get("auto_map")
    if auto_map is None:
        return
    content = json.loads(config.read_text(encoding="utf-8")) | {"auto_map": auto_map}
    new = config.with_name(".config.json.new")
    new.write_text(json.dumps(content, indent=2), encoding="utf-8")
    os.replace(new, config)
