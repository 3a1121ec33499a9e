"""Loads a checkpoint's weights from memory-mapped files straight into their final layout: nothing is held twice.

The model is created on the meta device. Each tensor is copied once, in chunks, to the model's dtype and device, and checked to
be finite on the way; the file's pages are released afterwards. Weights with the same input are allocated as one matrix, and the
modules' own weights are views of it. 8-bit weights are quantised while they are read.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import torch
from torch import nn

from saiqa.files.checkpoint_files import Tensor, broken, read_tensors
from saiqa.model.int8 import HEAD, Int8Linear, Int8Weight, is_quantised
from saiqa.model.ovis2_5 import Ovis2_5, Ovis2_5Config

TORCH_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PART_BYTES = 4 * 2**20  # copied and checked at a time: fits into a processor's cache

# Linear layers of a Qwen3 layer with the same input: (module, their names).
SIDE_BY_SIDE = (("self_attn", ("q_proj", "k_proj", "v_proj")), ("mlp", ("gate_proj", "up_proj")))

# The same for 8-bit weights, which cannot be split again, by the module that replaces them. The last layer of a packed pass
# needs queries for few tokens but keys for all.
_IN_8_BITS = {
    "self_attn.query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
_IN_8_BITS_LAST = {
    "self_attn.query": _IN_8_BITS["self_attn.query_key_value"][:1],
    "self_attn.key_value": _IN_8_BITS["self_attn.query_key_value"][1:],
    **{name: parts for name, parts in _IN_8_BITS.items() if name != "self_attn.query_key_value"},
}

Write = Callable[[int, torch.Tensor], bool]  # writes rows at an offset of a weight; returns whether all are finite


def read_model(
    path: str | Path, config: Ovis2_5Config, device: torch.device, dtype: torch.dtype, in_8_bits: bool = False
) -> Ovis2_5:
    """The model with the weights of a checkpoint whose headers have been checked against ``config``.

    Args:
        in_8_bits: hold the language model's linear layers as ``int8.Int8Linear``; only ``packed`` can run it then.

    Raises:
        InputError: a weight is not finite.
    """
    config.dtype = dtype
    model = _without_weights(config, device)
    eights = list(_in_8_bits(model)) if in_8_bits else []
    stored = read_tensors(Path(path))
    _allocate(model, stored.keys(), device, dtype)
    writes = {name: _writer(weight) for name, weight in model.named_parameters(remove_duplicate=False)}
    waiting = {name: eight for eight in eights for name in eight.parts}
    wanted = {name: tensor for name, tensor in stored.items() if name in writes or name in waiting}
    with torch.inference_mode():
        for name, rows in _rows_of(Path(path), wanted):
            write = writes.get(name) or waiting[name].writer(name, device)
            if not all(write(start, some) for start, some in rows):
                raise broken(Path(path), f"has weights that are not finite, in {name}")
            if name in waiting:
                waiting.pop(name).settle(name)
        _tie(model, stored.keys())
    return model


class _Eight:
    """Linear layers that become one 8-bit layer once each has been read.

    Args:
        parent: the module that gets the 8-bit layer.
        name: its name there.
        parts: the linear layers by the names of their weights, stacked in this order.
    """

    def __init__(self, parent: nn.Module, name: str, parts: dict[str, nn.Linear]):
        self.parent, self.name = parent, name
        self.inputs = next(iter(parts.values())).in_features
        self.parts: dict[str, int] = {}  # the first row of each
        self.outputs = 0
        for part, linear in parts.items():
            self.parts[part] = self.outputs
            self.outputs += linear.out_features
            linear.weight = None  # type: ignore[assignment]  # so that no module keeps it
        self.unread = set(self.parts)
        self.weight: Int8Weight | None = None

    def writer(self, part: str, device: torch.device) -> Write:
        """The function that writes the rows of a part."""
        weight = self.weight = self.weight or Int8Weight(self.outputs, self.inputs, device)
        return lambda start, rows: weight.write(self.parts[part] + start, rows)

    def settle(self, part: str) -> None:
        """Note that a part has been read; after the last one, create the 8-bit layer."""
        self.unread.remove(part)
        if not self.unread:
            assert self.weight is not None
            setattr(self.parent, self.name, Int8Linear(self.weight))
            self.weight = None


def _in_8_bits(model: Ovis2_5) -> Iterator[_Eight]:
    layers = model.llm.model.layers
    for number, layer in enumerate(layers):
        for place, parts in (_IN_8_BITS_LAST if number == len(layers) - 1 else _IN_8_BITS).items():
            module, _, name = place.partition(".")
            linears = {f"llm.model.layers.{number}.{part}.weight": layer.get_submodule(part) for part in parts}
            yield _Eight(layer.get_submodule(module), name, linears)
    if is_quantised(HEAD, model.config.llm_config.tie_word_embeddings):
        yield _Eight(model.llm, "lm_head", {HEAD: model.llm.lm_head})


def _without_weights(config: Ovis2_5Config, device: torch.device) -> Ovis2_5:
    """The modules on the meta device, except the rotary embedding's frequencies, which no file holds."""
    with torch.device("meta"):
        model = Ovis2_5(config)
    rotary = model.llm.model.rotary_emb
    with torch.device(device):
        model.llm.model.rotary_emb = type(rotary)(config.llm_config)
    return model


def _allocate(model: Ovis2_5, stored: Collection[str], device: torch.device, dtype: torch.dtype) -> None:
    """Allocate uninitialised memory for every stored weight."""
    for layer in model.llm.model.layers:
        for module, names in SIDE_BY_SIDE:
            linears = [layer.get_submodule(module).get_submodule(name) for name in names]
            if linears[0].weight is None:
                continue
            rows = [linear.out_features for linear in linears]
            together = torch.empty(sum(rows), linears[0].in_features, dtype=dtype, device=device)
            for linear, part in zip(linears, together.split(rows), strict=True):
                linear.weight = nn.Parameter(part, requires_grad=False)
    for path, module in model.named_modules():
        for name, weight in module.named_parameters(recurse=False):
            if weight.is_meta and f"{path}.{name}" in stored:
                memory = torch.empty(weight.shape, dtype=dtype, device=device)
                setattr(module, name, nn.Parameter(memory, requires_grad=False))


def _tie(model: Ovis2_5, stored: Collection[str]) -> None:
    """Tie the head to the embedding table if the configuration says so, unless the checkpoint stores a different head."""
    if not model.config.llm_config.tie_word_embeddings:
        return
    head, table = model.llm.lm_head, model.llm.model.embed_tokens
    if HEAD not in stored or torch.equal(head.weight, table.weight):
        head.weight = table.weight


def _writer(target: torch.Tensor) -> Write:
    def write(start: int, rows: torch.Tensor) -> bool:
        written = target[start : start + len(rows)].copy_(rows)
        return bool(written.sum(dtype=torch.float32).isfinite())

    return write


def _rows_of(folder: Path, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Iterator[tuple[int, torch.Tensor]]]]:
    """Each tensor's name and its rows, in chunks with their offset; file by file, in file order."""
    for file in sorted({tensor.file for tensor in tensors.values()}):
        with (folder / file).open("rb") as opened:
            # A private (copy-on-write) mapping, because torch requires writable memory; nothing writes to it.
            content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        here = {name: tensor for name, tensor in tensors.items() if tensor.file == file}
        for name, tensor in sorted(here.items(), key=lambda item: item[1].start):
            yield name, _rows(content, tensor)
            _forget(content, tensor)


def _rows(content: mmap.mmap, tensor: Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    rows, *rest = tensor.shape
    row_bytes = tensor.size_bytes // rows
    many = max(1, PART_BYTES // row_bytes)
    for start in range(0, rows, many):
        some = min(many, rows - start)
        count, offset = tensor.numbers // rows * some, tensor.start + start * row_bytes
        yield start, torch.frombuffer(content, dtype=TORCH_DTYPES[tensor.dtype], count=count, offset=offset).view(some, *rest)


def _forget(content: mmap.mmap, tensor: Tensor) -> None:
    """Release a tensor's pages, so that they do not take memory beside its copy. Does nothing on systems without madvise."""
    if hasattr(mmap, "MADV_DONTNEED"):
        start = tensor.start // mmap.PAGESIZE * mmap.PAGESIZE
        content.madvise(mmap.MADV_DONTNEED, start, tensor.start + tensor.size_bytes - start)
