"""A checkpoint's weights, from its mapped files straight to where a pass wants them: nothing is held twice.

The model is made without memory of its own. Each tensor of the files is copied once, a part at a time, into the model's dtype
and device, and is seen to be finite on the way; the file's pages are given back behind it. Weights that are multiplied with
the same tokens are allocated as one, and the modules' own weights are views of it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from saiqa.checkpoint_files import Tensor, broken, read_tensors
from saiqa.ovis2_5 import Ovis2_5, Ovis2_5Config

TORCH_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PART_BYTES = 4 * 2**20  # of a file, copied and checked at a time: what a processor's cache holds

# Linear maps of a Qwen3 layer with the same input: (module, their names).
SIDE_BY_SIDE = (("self_attn", ("q_proj", "k_proj", "v_proj")), ("mlp", ("gate_proj", "up_proj")))


def read_model(path: str | Path, config: Ovis2_5Config, device: torch.device, dtype: torch.dtype) -> Ovis2_5:
    """The model with the weights of a checkpoint whose headers have been held against ``config``.

    Raises:
        InputError: a weight is not finite.
    """
    config.dtype = dtype
    model = _without_weights(config, device)
    _allocate(model, device, dtype)
    stored = read_tensors(Path(path))
    targets = {name: weight for name, weight in model.named_parameters(remove_duplicate=False) if name in stored}
    with torch.inference_mode():
        for name, parts in _parts_of(Path(path), {name: stored[name] for name in targets}):
            if not _fill(targets[name], parts):
                raise broken(Path(path), f"has weights that are not finite, in {name}")
        _tie(model, stored.keys())
    return model


def _without_weights(config: Ovis2_5Config, device: torch.device) -> Ovis2_5:
    """The modules on the meta device, but for the frequencies of the rotary embedding, which no file holds."""
    with torch.device("meta"):
        model = Ovis2_5(config)
    rotary = model.llm.model.rotary_emb
    with torch.device(device):
        model.llm.model.rotary_emb = type(rotary)(config.llm_config)
    return model


def _allocate(model: Ovis2_5, device: torch.device, dtype: torch.dtype) -> None:
    """Give every weight its memory, unwritten. A tied head has none yet; it is the embedding table's in the end."""
    for layer in model.llm.model.layers:
        for module, names in SIDE_BY_SIDE:
            linears = [layer.get_submodule(module).get_submodule(name) for name in names]
            rows = [linear.out_features for linear in linears]
            together = torch.empty(sum(rows), linears[0].in_features, dtype=dtype, device=device)
            for linear, part in zip(linears, together.split(rows), strict=True):
                linear.weight = nn.Parameter(part, requires_grad=False)
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if weight.is_meta:
                memory = torch.empty(weight.shape, dtype=dtype, device=device)
                setattr(module, name, nn.Parameter(memory, requires_grad=False))


def _tie(model: Ovis2_5, stored: object) -> None:
    """Make the head of a tied checkpoint the embedding table, unless a head of its own that differs is stored."""
    if not model.config.llm_config.tie_word_embeddings:
        return
    head, table = model.llm.lm_head, model.llm.model.embed_tokens
    if "llm.lm_head.weight" not in stored or torch.equal(head.weight, table.weight):
        head.weight = table.weight


def _fill(target: torch.Tensor, parts: Iterator[torch.Tensor]) -> bool:
    """Copy the parts of a tensor into ``target``; whether all of its numbers are finite."""
    flat, start, finite = target.view(-1), 0, True
    for part in parts:
        piece = flat[start : start + len(part)].copy_(part)
        finite &= bool(piece.sum(dtype=torch.float32).isfinite())
        start += len(part)
    return finite


# ---- files -----------------------------------------------------------------------------------------------------------


def _parts_of(folder: Path, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Iterator[torch.Tensor]]]:
    """Each tensor's name and its numbers, flat, in parts; file by file, in the order in which they lie there."""
    for file in sorted({tensor.file for tensor in tensors.values()}):
        with (folder / file).open("rb") as opened:
            # A private mapping, for torch takes memory only that may be written to; nobody does.
            content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        here = {name: tensor for name, tensor in tensors.items() if tensor.file == file}
        for name, tensor in sorted(here.items(), key=lambda item: item[1].start):
            yield name, _parts(content, tensor)
            _forget(content, tensor)


def _parts(content: mmap.mmap, tensor: Tensor) -> Iterator[torch.Tensor]:
    dtype = TORCH_DTYPES[tensor.dtype]
    count = PART_BYTES // dtype.itemsize
    for first in range(0, tensor.numbers, count):
        place = tensor.start + first * dtype.itemsize
        yield torch.frombuffer(content, dtype=dtype, count=min(count, tensor.numbers - first), offset=place)


def _forget(content: mmap.mmap, tensor: Tensor) -> None:
    """Give back the pages of a tensor, so that they do not count beside its copy. Does nothing where a system cannot."""
    if hasattr(mmap, "MADV_DONTNEED"):
        start = tensor.start // mmap.PAGESIZE * mmap.PAGESIZE
        content.madvise(mmap.MADV_DONTNEED, start, tensor.start + tensor.size_bytes - start)
