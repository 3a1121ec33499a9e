"""What every engine that holds the native model does first: choose device and dtype, open the bundle, read an image."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from PIL import Image
from torch import nn
from transformers import Qwen2TokenizerFast

from saiqa.engines.pass_budget import require_memory, working_dtype
from saiqa.errors import InputError, UserError, first_line
from saiqa.facts import WORDS
from saiqa.files.checkpoint_files import CONFIG_FILE, DOWNLOAD_AGAIN, broken, read_config, read_tensors
from saiqa.model.checkpoint_view import hub_off, view_of
from saiqa.model.decoding import Decoded, decode, open_image
from saiqa.model.ovis2_5 import TURN_MARKS, Ovis2_5, Ovis2_5Config
from saiqa.model.pixels import PixelBounds, Preprocessing
from saiqa.model.weights import read_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
CPUINFO = Path("/proc/cpuinfo")


def resolve_device(device: str) -> torch.device:
    """A torch device for "auto" (CUDA when there is one), "cpu", "cuda", "cuda:N".

    Raises:
        InputError: the device is not on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"{device!r} is no device", "Use auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {device}: torch sees {torch.cuda.device_count()} GPUs here", "Use cpu")
    return chosen


def resolve_dtype(dtype: str, device: torch.device, path: str | Path) -> torch.dtype:
    """The torch dtype for "float32", "bfloat16", "int8", and "auto" with the checkpoint at ``path``.

    That is bfloat16 on CUDA, and on a CPU that multiplies in it where the weights are stored in it; else float32.

    Raises:
        InputError: the header of a file of weights is broken.
    """
    if dtype == "auto":
        small = device.type == "cuda" or (multiplies_bfloat16() and is_stored_in_bfloat16(path))
        dtype = "bfloat16" if small else "float32"
    if dtype != "float32" and device.type == "cpu":
        avoid_trapping_amx()
    return DTYPES[dtype]


def is_stored_in_bfloat16(path: str | Path) -> bool:
    """Whether every weight of a checkpoint is in bfloat16, by the headers of its files. Raises as ``read_tensors``."""
    return {tensor.dtype for tensor in read_tensors(Path(path)).values()} == {"BF16"}


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for products in bfloat16, by what Linux says of it."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_cpu_flags())


def _cpu_flags() -> set[str]:
    """What Linux says that the processor can do, among other words; empty elsewhere."""
    return set(CPUINFO.read_text().split()) if CPUINFO.is_file() else set()


def avoid_trapping_amx() -> None:
    """Keep oneDNN off AMX where the processor claims to have it and traps: some virtual machines do, and the process dies.

    Works before the first bfloat16 product of the process.
    """
    variable, safe = "ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16"
    if variable in os.environ or "amx_bf16" not in _cpu_flags():
        return
    product = "import torch; x = torch.ones(64, 64, dtype=torch.bfloat16); torch.nn.functional.linear(x, x)"
    if subprocess.run([sys.executable, "-c", product], capture_output=True).returncode == -signal.SIGILL:
        os.environ[variable] = safe


def open_bundle(
    path: str | Path, device: torch.device, dtype: torch.dtype, bounds: PixelBounds | None = None
) -> tuple[Ovis2_5, Qwen2TokenizerFast]:
    """Model and tokenizer of a checkpoint folder, for images within these bounds.

    Raises:
        InputError: a file is missing or cannot be used; it says which, and why.
        Failed: there is too little memory for it.
    """
    config = model_config(path)
    require_memory(path, config, dtype, device, bounds or PixelBounds.of(config), may_quantise=True)
    tokenizer = load_tokenizer(path)
    return load_model(path, device, dtype), tokenizer


def model_config(path: str | Path) -> Ovis2_5Config:
    """The configuration of an Ovis2.5 checkpoint. Raises ``InputError`` for that of another model, and for a broken one."""
    return Ovis2_5Config(**read_config(Path(path)))


def load_model(path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Ovis2_5:
    """The model of a checkpoint folder, ready for inference. A checkpoint with holes is never filled with random numbers.

    In int8 its language model can only be read by ``packed``, and all else is in bfloat16.

    Raises:
        InputError: a file is missing or cannot be used; it says which, and why.
    """
    check_weights(path)
    preprocessing = Preprocessing.of_checkpoint(path)
    with refusing(path):
        in_8_bits = dtype is torch.int8
        model = read_model(path, model_config(path), torch.device(device), working_dtype(dtype), in_8_bits).eval()
    model.visual_tokenizer.preprocessing = preprocessing
    return model


def load_tokenizer(path: str | Path) -> Qwen2TokenizerFast:
    """The tokenizer of a checkpoint folder, by class, so that no file is asked which one it is. Raises as ``load_model``."""
    with view_of(path) as view, refusing(path):
        tokenizer = Qwen2TokenizerFast.from_pretrained(view, local_files_only=True)
        check_tokenizer(path, tokenizer)
    return tokenizer


@contextlib.contextmanager
def refusing(path: str | Path) -> Iterator[None]:
    """Within, what a library says against a checkpoint becomes an ``InputError``, and no hub is asked for anything.

    Memory that does not suffice stays what it is. Progress is shown by commands, not by transformers.
    """
    try:
        with hub_off(), _no_progress_bar():
            yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        # A panic in the tokenizers library is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{path}: cannot load this checkpoint: {first_line(error)[:200]}", DOWNLOAD_AGAIN) from error


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def check_weights(path: str | Path) -> None:
    """Hold the tensors of a checkpoint against its config.json, by the headers of its files.

    Raises:
        InputError: a tensor is missing, there is one that the model has no place for, or a shape is another.
    """
    config = model_config(path)
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in Ovis2_5(config).state_dict().items()}
    found = {name: tensor.shape for name, tensor in read_tensors(Path(path)).items()}
    may_lack = set(Ovis2_5._tied_weights_keys) if config.llm_config.tie_word_embeddings else set()
    missing = sorted(wanted.keys() - found.keys() - may_lack)
    unknown = sorted(name for name in found.keys() - wanted.keys() if not name.endswith(".inv_freq"))
    misshapen = sorted(name for name in found.keys() & wanted.keys() if found[name] != wanted[name])
    if missing:
        raise broken(Path(path), f"lacks {len(missing)} of its {len(wanted)} tensors, {missing[0]} first")
    if unknown:
        raise broken(Path(path), f"has {len(unknown)} tensors that the model has no place for, {unknown[0][:100]!r} first")
    if misshapen:
        name = misshapen[0]
        shapes = f"{list(found[name])} in the file and {list(wanted[name])} by {CONFIG_FILE}"
        raise broken(Path(path), f"has {len(misshapen)} tensors of another shape, {name} first: {shapes}")


def check_finite(path: str | Path, model: nn.Module) -> None:
    """Refuse weights that are no numbers. Raises ``InputError``, which names the first tensor."""
    with torch.inference_mode():
        sums = {name: tensor.sum(dtype=torch.float32) for name, tensor in model.named_parameters()}
        finite = torch.stack([value.to("cpu") for value in sums.values()]).isfinite().tolist()
    for name, good in zip(sums, finite, strict=True):
        if not good:
            raise broken(Path(path), f"has weights that are not finite, in {name}")


def check_tokenizer(path: str | Path, tokenizer: Qwen2TokenizerFast) -> None:
    """Refuse a tokenizer that cannot ask for a rating.

    Raises:
        InputError: a mark of a turn or a rating word behind a blank is not one token of its own, or has no embedding.
    """
    needed = [*TURN_MARKS, *(f" {word}" for word in WORDS)]
    tokens = [tokenizer.encode(text, add_special_tokens=False) for text in needed]
    rows = model_config(path).llm_config.vocab_size
    remedy = "Take the tokenizer of the base model"
    for text, ids in zip(needed, tokens, strict=True):
        if len(ids) != 1 or tokens.count(ids) != 1:
            raise broken(Path(path), f"has a tokenizer that does not make one token of {text!r}", remedy)
    most = max(tokenizer.get_vocab().values())
    if most >= rows:
        raise broken(Path(path), f"has a tokenizer with token {most}, and embeddings of {rows}", remedy)


def word_ids_after(tokenizer: Qwen2TokenizerFast, answer_prefix: str) -> list[int]:
    """Token ids of the five words where they follow ``answer_prefix``.

    Raises:
        ValueError: a word is not one token there, so no single position holds the distribution.
    """
    blank = " " if answer_prefix else ""
    start = tokenizer.encode(answer_prefix, add_special_tokens=False)
    ids = []
    for word in WORDS:
        full = tokenizer.encode(f"{answer_prefix}{blank}{word}", add_special_tokens=False)
        if full[:-1] != start:
            where = f"behind {answer_prefix!r}" if answer_prefix else "at the beginning of an answer"
            raise ValueError(f"the checkpoint's tokenizer does not make one token of {word!r} {where}")
        ids.append(full[-1])
    return ids


def read_image(image: str | Path | io.BytesIO | Image.Image, upright: bool) -> Decoded:
    """The picture of a file, or of a picture as it came. Raises one of ``IMAGE_ERRORS``."""
    if isinstance(image, Image.Image):
        return decode(image, upright)
    with open_image(file_of(image)) as opened:
        return decode(opened, upright)


def file_of(image: str | Path | io.BytesIO) -> str | Path | io.BytesIO:
    """What ``open_image`` takes: of a file in memory a view of its own, for others may be reading it."""
    return io.BytesIO(image.getvalue()) if type(image) is io.BytesIO else image


def identity_of(image: str | Path | io.BytesIO | Image.Image) -> int | str:
    """What tells an image from others within one call: a file by its path, what is in memory by the object."""
    return id(image) if isinstance(image, Image.Image | io.BytesIO) else str(image)


def describe_torch(device: torch.device, dtype: torch.dtype) -> dict:
    """Where and with what a result was computed."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "device": name,
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
