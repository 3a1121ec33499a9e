"""Checks of a checkpoint's files without running it: all-zero or non-finite weights, unmerged adapters, the prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from saiqa.audit.check import Check
from saiqa.files.checkpoint_files import RECORD_FILE, weight_files

_SHOWN = 3


def dead_weights(checkpoint: Path) -> Check:
    """No matrix of the checkpoint is all zero, and every weight is finite."""
    from safetensors import safe_open

    dead = []
    for file in weight_files(checkpoint):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                weight = tensors.get_tensor(name)
                if not weight.isfinite().all() or (weight.dim() > 1 and not weight.any()):
                    dead.append(name)
    if dead:
        more = f" and {len(dead) - _SHOWN} more" if len(dead) > _SHOWN else ""
        return Check("weights", False, f"all zero, or not finite: {', '.join(dead[:_SHOWN])}{more}")
    return Check("weights", True, "no matrix is all zero, and all weights are finite")


def merged(checkpoint: Path) -> Check:
    """No adapter is beside the weights: the scorer would not load it."""
    found = sorted(path.name for path in checkpoint.glob("adapter_*"))
    if found:
        return Check("adapters", False, f"{', '.join(found)} was never merged into the weights, which are the base model's")
    return Check("adapters", True, "none beside the weights")


def trained_prompt(checkpoint: Path, asked: Mapping[str, str]) -> Check:
    """The prompts are those of the training, if the checkpoint records them.

    Args:
        asked: dimension -> digest of the prompt (``calibration.prompt_digest``).
    """
    record = checkpoint / RECORD_FILE
    trained = json.loads(record.read_text(encoding="utf-8")).get("prompts", {}) if record.is_file() else {}
    if not trained:
        return Check("prompt", True, "the checkpoint does not record its training prompt: not checked")
    other = [dimension for dimension, digest in asked.items() if dimension in trained and digest not in trained[dimension]]
    if other:
        return Check("prompt", False, f"not the training prompt: {', '.join(other)}")
    return Check("prompt", True, "as in the training")
