"""What every engine that holds the native model does first: choose device and dtype, open the bundle, read an image."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
import transformers
from PIL import Image

from saiqa.console import InputError
from saiqa.decoding import Decoded, decode, open_image
from saiqa.engines.memory import require_memory
from saiqa.ovis2_5 import Ovis2_5, Ovis2_5Config, load_model, load_tokenizer
from saiqa.pixels import PixelBounds

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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
        raise InputError(f"--device {device} is no device", "use auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {device}: torch sees {torch.cuda.device_count()} GPUs here", "use --device cpu")
    return chosen


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype for "auto" (bfloat16 on CUDA, float32 on CPU), "float32", "bfloat16"."""
    chosen = DTYPES["bfloat16" if device.type == "cuda" else "float32"] if dtype == "auto" else DTYPES[dtype]
    if chosen is torch.bfloat16 and device.type == "cpu":
        avoid_trapping_amx()
    return chosen


def avoid_trapping_amx() -> None:
    """Keep oneDNN off AMX where the processor claims to have it and traps: some virtual machines do, and the process dies.

    Works before the first bfloat16 product of the process.
    """
    variable, safe = "ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16"
    cpuinfo = Path("/proc/cpuinfo")
    if variable in os.environ or not cpuinfo.is_file() or "amx_bf16" not in cpuinfo.read_text():
        return
    product = "import torch; x = torch.ones(64, 64, dtype=torch.bfloat16); torch.nn.functional.linear(x, x)"
    if subprocess.run([sys.executable, "-c", product], capture_output=True).returncode == -signal.SIGILL:
        os.environ[variable] = safe


def open_bundle(
    path: str | Path, device: torch.device, dtype: torch.dtype, bounds: PixelBounds | None = None
) -> tuple[Ovis2_5, object]:
    """Model and tokenizer of a checkpoint folder, for images within these bounds.

    Raises:
        InputError: the folder does not hold a whole Ovis2.5 checkpoint.
        Failed: there is too little memory for it.
    """
    config = read_config(path)
    require_memory(path, config, dtype, device, bounds or PixelBounds.of(config))
    try:
        return load_model(path, device, dtype), load_tokenizer(path)
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: cannot load this checkpoint: {reason}", "download or train it again") from error


def read_config(path: str | Path) -> Ovis2_5Config:
    """The configuration of an Ovis2.5 checkpoint. Raises ``InputError`` for that of another model."""
    check_architecture(path)
    return Ovis2_5Config.from_pretrained(path)


def check_architecture(path: str | Path) -> None:
    """Refuse a checkpoint of another model before anything heavy happens."""
    config = json.loads((Path(path) / "config.json").read_text())
    if config.get("model_type") != "ovis2_5":
        raise InputError(
            f"{path}/config.json: model_type is {config.get('model_type')!r}, not 'ovis2_5'",
            "give --model_path an Ovis2.5 checkpoint",
        )


def read_image(image: str | Path | Image.Image, upright: bool) -> Decoded:
    """The picture of a file, or of a picture as it came. Raises one of ``IMAGE_ERRORS``."""
    if isinstance(image, Image.Image):
        return decode(image, upright)
    with open_image(image) as opened:
        return decode(opened, upright)


def describe_torch(device: torch.device, dtype: torch.dtype) -> dict:
    """Where and with what a result was computed."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "device": name,
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
