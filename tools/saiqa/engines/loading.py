"""What engines with the native model share: choosing device and dtype, opening the bundle, reading images."""

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
    """A torch device for "auto" (CUDA if available), "cpu", "cuda", "cuda:N".

    Raises:
        InputError: this machine has no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"{device!r} is not a device", "Use auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {device}: torch sees {torch.cuda.device_count()} GPUs here", "Use cpu")
    return chosen


def resolve_dtype(dtype: str, device: torch.device, path: str | Path) -> torch.dtype:
    """The torch dtype for "float32", "bfloat16", "int8", or "auto" with the checkpoint at ``path``.

    "auto" is bfloat16 on CUDA, and on a CPU with native bfloat16 if the weights are stored in it; otherwise float32.

    Raises:
        InputError: the header of a weight file is broken.
    """
    if dtype == "auto":
        small = device.type == "cuda" or (multiplies_bfloat16() and is_stored_in_bfloat16(path))
        dtype = "bfloat16" if small else "float32"
    if dtype != "float32" and device.type == "cpu":
        avoid_trapping_amx()
    return DTYPES[dtype]


def is_stored_in_bfloat16(path: str | Path) -> bool:
    """Whether every weight of a checkpoint is in bfloat16, from the headers of its files. Raises as ``read_tensors``."""
    return {tensor.dtype for tensor in read_tensors(Path(path)).values()} == {"BF16"}


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 products, according to Linux."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_cpu_flags())


def _cpu_flags() -> set[str]:
    """The words of /proc/cpuinfo, the processor's feature flags among them; empty on other systems."""
    return set(CPUINFO.read_text().split()) if CPUINFO.is_file() else set()


def avoid_trapping_amx() -> None:
    """Keep oneDNN from using AMX if the processor claims to support it but traps, as some virtual machines do.

    Must be called before the first bfloat16 product of the process.
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
        InputError: a file is missing or cannot be used; the error says which, and why.
        Failed: there is too little memory.
    """
    config = model_config(path)
    require_memory(path, config, dtype, device, bounds or PixelBounds.of(config), may_quantise=True)
    tokenizer = load_tokenizer(path)
    return load_model(path, device, dtype), tokenizer


def model_config(path: str | Path) -> Ovis2_5Config:
    """The configuration of an Ovis2.5 checkpoint. Raises ``InputError`` if it is broken or another model's."""
    return Ovis2_5Config(**read_config(Path(path)))


def load_model(path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Ovis2_5:
    """The model of a checkpoint folder, ready for inference. Missing weights are an error, never randomly initialised.

    With int8 only ``packed`` can run the language model, and everything else is in bfloat16.

    Raises:
        InputError: a file is missing or cannot be used; the error says which, and why.
    """
    check_weights(path)
    preprocessing = Preprocessing.of_checkpoint(path)
    with refusing(path):
        in_8_bits = dtype is torch.int8
        model = read_model(path, model_config(path), torch.device(device), working_dtype(dtype), in_8_bits).eval()
    model.visual_tokenizer.preprocessing = preprocessing
    return model


def load_tokenizer(path: str | Path) -> Qwen2TokenizerFast:
    """The tokenizer of a checkpoint folder; its class is fixed, not read from a file. Raises as ``load_model``."""
    with view_of(path) as view, refusing(path):
        tokenizer = Qwen2TokenizerFast.from_pretrained(view, local_files_only=True)
        check_tokenizer(path, tokenizer)
    return tokenizer


@contextlib.contextmanager
def refusing(path: str | Path) -> Iterator[None]:
    """Within, a library's errors about a checkpoint become ``InputError``, and the Hub is never contacted.

    Out-of-memory errors are passed on. transformers shows no progress bars; the commands do.
    """
    try:
        with hub_off(), _no_progress_bar():
            yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        # A panic in the tokenizers library is not an Exception.
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
    """Check the tensors of a checkpoint, as its file headers list them, against its config.json.

    Raises:
        InputError: a tensor is missing, unknown to the model, or has another shape.
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
        raise broken(Path(path), f"lacks {len(missing)} of its {len(wanted)} tensors, starting with {missing[0]}")
    if unknown:
        raise broken(Path(path), f"has {len(unknown)} tensors that the model does not have, such as {unknown[0][:100]!r}")
    if misshapen:
        name = misshapen[0]
        shapes = f"{list(found[name])} in the file, {list(wanted[name])} according to {CONFIG_FILE}"
        raise broken(Path(path), f"has {len(misshapen)} tensors of the wrong shape, such as {name}: {shapes}")


def check_finite(path: str | Path, model: nn.Module) -> None:
    """Raise ``InputError``, naming the first such tensor, if a weight is not finite."""
    with torch.inference_mode():
        sums = {name: tensor.sum(dtype=torch.float32) for name, tensor in model.named_parameters()}
        finite = torch.stack([value.to("cpu") for value in sums.values()]).isfinite().tolist()
    for name, good in zip(sums, finite, strict=True):
        if not good:
            raise broken(Path(path), f"has weights that are not finite, in {name}")


def check_tokenizer(path: str | Path, tokenizer: Qwen2TokenizerFast) -> None:
    """Refuse a tokenizer that does not work for ratings.

    Raises:
        InputError: a turn marker, or a rating word after a space, is not a single distinct token, or has no embedding.
    """
    needed = [*TURN_MARKS, *(f" {word}" for word in WORDS)]
    tokens = [tokenizer.encode(text, add_special_tokens=False) for text in needed]
    rows = model_config(path).llm_config.vocab_size
    remedy = "Use the base model's tokenizer"
    for text, ids in zip(needed, tokens, strict=True):
        if len(ids) != 1 or tokens.count(ids) != 1:
            raise broken(Path(path), f"has a tokenizer that does not encode {text!r} as one token", remedy)
    most = max(tokenizer.get_vocab().values())
    if most >= rows:
        raise broken(Path(path), f"has a tokenizer with token id {most}, but only {rows} embeddings", remedy)


def word_ids_after(tokenizer: Qwen2TokenizerFast, answer_prefix: str) -> list[int]:
    """Token ids of the five words after ``answer_prefix``.

    Raises:
        ValueError: a word is not a single token there, so no single position holds the distribution.
    """
    blank = " " if answer_prefix else ""
    start = tokenizer.encode(answer_prefix, add_special_tokens=False)
    ids = []
    for word in WORDS:
        full = tokenizer.encode(f"{answer_prefix}{blank}{word}", add_special_tokens=False)
        if full[:-1] != start:
            where = f"after {answer_prefix!r}" if answer_prefix else "at the beginning of an answer"
            raise ValueError(f"the checkpoint's tokenizer does not encode {word!r} as one token {where}")
        ids.append(full[-1])
    return ids


def read_image(image: str | Path | io.BytesIO | Image.Image, upright: bool) -> Decoded:
    """The decoded picture of a file or of a PIL image. Raises one of ``IMAGE_ERRORS``."""
    if isinstance(image, Image.Image):
        return decode(image, upright)
    with open_image(file_of(image)) as opened:
        return decode(opened, upright)


def file_of(image: str | Path | io.BytesIO) -> str | Path | io.BytesIO:
    """What ``open_image`` takes; for a file in memory a separate reader, because other threads may be reading it."""
    return io.BytesIO(image.getvalue()) if type(image) is io.BytesIO else image


def identity_of(image: str | Path | io.BytesIO | Image.Image) -> int | str:
    """Identifies an image within one call: a file by its path, an image in memory by the object."""
    return id(image) if isinstance(image, Image.Image | io.BytesIO) else str(image)


def describe_torch(device: torch.device, dtype: torch.dtype) -> dict:
    """Device, dtype and library versions of a result."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "device": name,
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
