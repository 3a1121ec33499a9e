"""How many tokens a pass may have, given the model's shapes and the available memory.

Guaranteed: besides the weights, rating takes at most ``WORKING_BYTES`` for a pass on the device (or half of the free memory if
that is less, or what a single image needs), and at most ``READING_BYTES`` of host memory to read pictures of up to 12
megapixels.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from saiqa.errors import Failed
from saiqa.files.checkpoint_files import read_tensors
from saiqa.model.int8 import is_quantised
from saiqa.model.ovis2_5 import HEAD_ROWS, Ovis2_5Config
from saiqa.model.pixels import PixelBounds

GIB = 2**30
GB = 10**9
WORKING_BYTES = {"cpu": 2 * GIB, "cuda": 6 * GIB}
READERS = 4  # pictures decoded and cut into patches at a time
READING_BYTES = READERS * 150 * 10**6
SHARE_OF_FREE = 0.5  # the rest is for other processes and for fragmentation

# More tokens per pass make no device faster: the matrix products are large enough, and larger passes overflow its caches.
MOST_TOKENS = {"cpu": 2048, "cuda": 16384}

# Tensors of each width alive at the same time in a layer, counted from the code and rounded up.
_VISION_HIDDEN, _VISION_INNER = 12, 2
_TEXT_HIDDEN, _TEXT_INNER = 10, 3


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of everything but the 8-bit weights: bfloat16 for int8, else ``dtype`` itself."""
    return torch.bfloat16 if dtype is torch.int8 else dtype


def token_bytes(config: Ovis2_5Config, dtype: torch.dtype) -> int:
    """Working memory of a pass in bytes per token: the larger of the tower's (four patches per token) and the LLM's."""
    vit, llm = config.vit_config, config.llm_config
    rotary_bytes = 6 * 4 * vit.hidden_size  # the tower's rotary embedding is always in float32
    patch = (_VISION_HIDDEN * vit.hidden_size + _VISION_INNER * vit.intermediate_size) * dtype.itemsize + rotary_bytes
    pixels = 2 * 4 * vit.num_channels * vit.patch_size**2
    heads = llm.num_attention_heads * llm.head_dim
    text = (_TEXT_HIDDEN * max(llm.hidden_size, heads) + _TEXT_INNER * llm.intermediate_size) * dtype.itemsize
    return max(vit.hidden_stride**2 * (patch + pixels), text + llm.hidden_size * dtype.itemsize)


def head_bytes(config: Ovis2_5Config, dtype: torch.dtype) -> int:
    """Working memory of the visual head in bytes: logits, and their softmax in float32 and in the model's dtype."""
    return HEAD_ROWS * config.visual_vocab_size * (2 * dtype.itemsize + 2 * 4)


def pass_bytes(config: Ovis2_5Config, dtype: torch.dtype, tokens: int) -> int:
    """Upper bound in bytes for a pass of ``tokens`` tokens besides the weights, including reading the next pictures."""
    return tokens * token_bytes(config, dtype) + head_bytes(config, dtype) + READING_BYTES


def token_budget(config: Ovis2_5Config, dtype: torch.dtype, kind: str, free: float) -> int:
    """The most tokens per pass on a ``kind`` of device ("cpu", "cuda") with ``free`` bytes free.

    An image with more tokens gets a pass of its own.
    """
    allowed = min(WORKING_BYTES[kind], SHARE_OF_FREE * free) - head_bytes(config, dtype)
    return int(min(MOST_TOKENS[kind], max(1, allowed // token_bytes(config, dtype))))


def free_bytes(device: torch.device) -> float:
    """Memory on the device, in bytes, that this process can still allocate."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min(_available_bytes(), _left_in_group_bytes())


def _available_bytes() -> int:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def _left_in_group_bytes() -> float:
    """What a container's memory limit leaves; infinite if there is none."""
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            return int(Path("/sys/fs/cgroup", limit).read_text()) - int(Path("/sys/fs/cgroup", used).read_text())
        except (OSError, ValueError):  # another version of control groups, or the word "max"
            continue
    return float("inf")


_TEXT_TOKENS = 1024  # for the questions about an image, more than the prompts have


@dataclass(frozen=True)
class Needs:
    """Memory of a checkpoint in bytes: its weights, and the pass over one image of the maximum size."""

    weights: int
    working: int

    @property
    def total(self) -> int:
        return self.weights + self.working


def needs(folder: Path, config: Ovis2_5Config, dtype: torch.dtype, bounds: PixelBounds) -> Needs:
    """The least memory for rating with a checkpoint, from the headers of its files."""
    side = config.vit_config.patch_size * config.vit_config.hidden_stride
    tokens = math.ceil(bounds.max_pixels / side**2) + _TEXT_TOKENS
    return Needs(weight_bytes(folder, config, dtype), pass_bytes(config, working_dtype(dtype), tokens))


def weight_bytes(folder: Path, config: Ovis2_5Config, dtype: torch.dtype) -> int:
    """Size of a checkpoint's weights in ``dtype``, in bytes, from the headers of its files."""
    each = working_dtype(dtype).itemsize
    tied = config.llm_config.tie_word_embeddings
    small = dtype.itemsize
    return sum(t.numbers * (small if is_quantised(name, tied) else each) for name, t in read_tensors(folder).items())


def require_memory(
    folder: str | Path,
    config: Ovis2_5Config,
    dtype: torch.dtype,
    device: torch.device,
    bounds: PixelBounds,
    may_quantise: bool = False,
) -> None:
    """Raise ``Failed`` if the model does not fit, with what would; int8 is suggested only if the engine supports it."""
    wanted, free = needs(Path(folder), config, dtype, bounds), free_bytes(device)
    if wanted.total <= free:
        return
    kind = "GPU memory" if device.type == "cuda" else "memory"
    name = str(dtype).removeprefix("torch.")
    what = (
        f"{folder}: its weights take {_gb(wanted.weights)} in {name} and an image of {bounds.max_pixels} pixels "
        f"{_gb(wanted.working)} more, but only {_gb(free)} of {kind} are free"
    )
    raise Failed(what, _what_would_do(Path(folder), config, dtype, device, bounds, free, may_quantise))


def _what_would_do(
    folder: Path,
    config: Ovis2_5Config,
    dtype: torch.dtype,
    device: torch.device,
    bounds: PixelBounds,
    free: float,
    may_quantise: bool,
) -> str:
    halved = needs(folder, config, torch.bfloat16, bounds)
    if dtype is torch.float32 and halved.total <= free:
        return f"Use bfloat16, which takes {_gb(halved.total)}"
    in_8_bits = needs(folder, config, torch.int8, bounds)
    if may_quantise and in_8_bits.total <= free < halved.total:
        return f"Use int8, which takes {_gb(in_8_bits.total)}"
    least = PixelBounds(max_pixels=bounds.min_pixels)
    if needs(folder, config, dtype, least).total <= free:
        return "Use a smaller max_pixels; the scores are then those of smaller pictures"
    if device.type == "cuda" and needs(folder, config, torch.float32, bounds).total <= free_bytes(torch.device("cpu")):
        return "Use the CPU, which is slow, or a GPU with more memory"
    return f"Free some, or use a machine with more: bfloat16 takes {_gb(halved.total)}"


def _gb(size_bytes: float) -> str:
    return f"{size_bytes / GB:.1f} GB"


def keep_freed_blocks() -> None:
    """Let the C library reuse memory that a layer frees, instead of returning it to the kernel every time.

    Otherwise pages would be cleared and mapped again for every tensor of a megabyte. Has an effect only on glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        mallopt(trim_threshold, GIB)
        mallopt(mmap_threshold, 32 * 2**20)  # the largest that glibc accepts


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception means out of memory; on a CPU torch has no class for that."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
