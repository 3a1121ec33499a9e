"""Estimates a run's memory per process and its disk space from the model's shapes, before anything is loaded.

Weights and gradients are in the training dtype; the optimizer takes 16 more bytes per trained parameter: float32 copies of
weight and gradient, and two moments. ZeRO-2 shards gradients and optimizer state among the processes, ZeRO-3 also the weights;
offload moves the shards to host memory. Added to that are the activations kept with gradient checkpointing: one hidden state
per layer, one layer in full, and the logits of the answers.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from saiqa.engines.loading import model_config
from saiqa.engines.pass_budget import free_bytes
from saiqa.errors import InputError
from saiqa.files.checkpoint_files import read_tensors
from saiqa.training.options import LORA_OPTIONS, Options, is_full, is_true, number

GB = 10**9
_OPTIMIZER_BYTES = 16  # per trained parameter
_LAYER_COPIES = 34  # activations kept for the gradient of one layer, in hidden states
_ANSWER_TOKENS = 24  # tokens whose logits ms-swift keeps: the answer, not the image
_SPARE = 1.05

STRATEGIES = ("zero2", "zero2_offload", "zero3", "zero3_offload")


_FREEZES = {"llm.": "freeze_llm", "visual_tokenizer.": "freeze_vit", "vte.": "freeze_aligner"}
_LAYER_MAPS = "llm.model.layers."


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that matter here.

    Attributes:
        parts: prefix of weight names -> number of parameters.
        sides: rows plus columns of the linear layers in the language model, summed: the LoRA parameters per rank.
        layers, hidden, vocabulary: number of layers, hidden size and vocabulary size of the language model.
    """

    parts: Mapping[str, int]
    sides: int
    layers: int
    hidden: int
    vocabulary: int

    @classmethod
    def of(cls, base: Path) -> Shape:
        """The shape of a checkpoint, from the headers of its files."""
        llm = model_config(base).llm_config
        parts, sides = dict.fromkeys(_FREEZES, 0), 0
        for name, tensor in read_tensors(base).items():
            part = next((prefix for prefix in _FREEZES if name.startswith(prefix)), "llm.")
            parts[part] += math.prod(tensor.shape)
            sides += sum(tensor.shape) if name.startswith(_LAYER_MAPS) and len(tensor.shape) == 2 else 0
        return cls(parts, sides, llm.num_hidden_layers, llm.hidden_size, llm.vocab_size)

    @property
    def parameters(self) -> int:
        return sum(self.parts.values())

    def trained(self, options: Options) -> int:
        """Number of trained parameters with these options."""
        if is_full(options):
            return sum(count for part, count in self.parts.items() if not is_true(options, _FREEZES[part]))
        return self.sides * int(number(options, "lora_rank"))


@dataclass(frozen=True)
class Needs:
    """Bytes that a run takes: per process on its device, and on disk."""

    device: int
    disk: int


def needs(shape: Shape, options: Options, processes: int, longest: int) -> Needs:
    """The memory and disk space of a run.

    Args:
        processes: number of processes on all nodes.
        longest: tokens of the longest example.
    """
    strategy = options.get("deepspeed", ["none"])[0]
    width = 4 if options["torch_dtype"][0] == "float32" else 2
    shared = processes if strategy in STRATEGIES else 1
    weights = shape.parameters * width // (processes if strategy.startswith("zero3") else 1)
    optimizer = shape.trained(options) * (_OPTIMIZER_BYTES + width) // shared
    tokens = int(number(options, "per_device_train_batch_size")) * longest
    logits = int(number(options, "per_device_train_batch_size")) * _ANSWER_TOKENS * shape.vocabulary * 10
    activations = tokens * shape.hidden * width * (shape.layers + _LAYER_COPIES) + logits
    if strategy.endswith("offload"):
        optimizer = 0
    if strategy == "zero3_offload":
        weights = shape.parameters * width // shape.layers
    return Needs(int((weights + optimizer + activations) * _SPARE), disk(shape, options, width))


def disk(shape: Shape, options: Options, width: int) -> int:
    """Bytes of the checkpoints on disk at the same time: those kept, the best, and the one being written."""
    one = shape.parameters * width if is_full(options) else shape.trained(options) * width
    if not is_true(options, "save_only_model"):
        one += shape.trained(options) * (_OPTIMIZER_BYTES - 4)
    merged = 0 if is_full(options) else shape.parameters * width
    return one * (int(number(options, "save_total_limit")) + 2) + merged


def free_on_devices(cpu: bool, processes: int) -> int:
    """Free bytes per process: on the GPU with the least, or its share of host memory."""
    if cpu:
        return int(free_bytes(torch.device("cpu"))) // processes
    return min(torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count()))


def choose(shape: Shape, options: Options, processes: int, longest: int, free: int) -> Options | None:
    """The smallest change of the options that makes a run fit; empty if it already fits, None if nothing does."""
    lora = {"tuner_type": ["lora"]} | {name: [value] for name, value in LORA_OPTIONS.items()}
    candidates: Sequence[Options] = [{}, *({"deepspeed": [name]} for name in STRATEGIES[1:]), lora]
    fitting = (one for one in candidates if needs(shape, {**options, **one}, processes, longest).device <= free)
    return next(fitting, None)


def check_disk(folder: Path, need: Needs) -> None:
    """Raise ``InputError`` if the disk is too small."""
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if need.disk > free:
        what = f"checkpoints take {shown(need.disk)}, but only {shown(free)} are free in {place}"
        raise InputError(what, "Make room, choose another --output_dir, or add --save_only_model true")


def shown(size: int) -> str:
    """Bytes for display."""
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 10**6:.0f} MB"
