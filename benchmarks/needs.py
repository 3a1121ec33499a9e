#!/usr/bin/env python3
"""Requirements of the models: parameters, and bytes of disk and memory, computed from their shapes.

    python benchmarks/needs.py [--shapes 9b 2b]
    python benchmarks/needs.py --measure 2b [--dtype bfloat16] [--folder DIR]

The second writes a checkpoint of random weights, rates one image of maximum size with it on a CPU in a separate process, and
compares that process's peak memory, while loading and while rating, with the computed bytes. The peaks include pages of files,
which the kernel reclaims when memory is short; the output says how many there are at the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]

import torch

import checkpoints
import inputs
from null_engine import memory_of_process, peak_bytes
from saiqa import facts
from saiqa.engines import Rating, load_engine
from saiqa.engines.loading import DTYPES
from saiqa.engines.pass_budget import GB, needs, pass_bytes
from saiqa.evaluate import tables
from saiqa.model.ovis2_5 import Ovis2_5
from saiqa.model.pixels import MAX_PIXELS, PixelBounds

GROUP_PIXELS = 32 * 32  # per visual embedding in the language model
TEXT_TOKENS = 400  # four questions, prompt 4


def row(name: str) -> list[str]:
    """A shape's line of the table."""
    config = checkpoints.config_of(checkpoints.SHAPES[name])
    with torch.device("meta"):
        model = Ovis2_5(config)
    parameters = sum(weight.numel() for weight in model.parameters())
    cells = [name, f"{parameters / 1e9:.2f} billion"]
    for dtype in (torch.bfloat16, torch.float32):
        working = pass_bytes(config, dtype, MAX_PIXELS // GROUP_PIXELS + TEXT_TOKENS)
        cells += [f"{parameters * dtype.itemsize / GB:.1f} GB", f"{working / GB:.1f} GB"]
    return cells


def measure(name: str, dtype: str, folder: Path) -> dict:
    """Computed and measured bytes of rating one image of maximum size."""
    image = inputs.make_images(folder, (1792, 1344), 1)[0]
    checkpoints.build_checkpoint(folder, checkpoints.SHAPES[name], DTYPES[dtype])
    command = [sys.executable, __file__, "--rate", str(image), "--folder", str(folder), "--dtype", dtype]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    measured = json.loads(ran.stdout.splitlines()[-1])  # the lines before are those of libraries
    computed = needs(folder, checkpoints.config_of(checkpoints.SHAPES[name]), DTYPES[dtype], PixelBounds())
    return {"shape": name, "dtype": dtype, "computed_bytes": computed.total, **measured}


def rate(image: Path, folder: Path, dtype: str) -> dict:
    """Peak resident bytes of this process: before the model, while it is loaded, and while it rates."""
    libraries = peak_bytes()
    engine = load_engine("prefill", folder, device="cpu", dtype=dtype)
    loading = peak_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    answers = engine.rate(inputs.questions([image], list(facts.DIMENSIONS)))
    if not all(isinstance(answer, Rating) for answer in answers):
        raise SystemExit(str(answers))
    peaks = {"libraries_bytes": libraries, "loading_bytes": loading, "rating_bytes": peak_bytes()}
    return {**peaks, "pages_of_files_bytes": memory_of_process("RssFile")}


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    flags.add_argument("--shapes", nargs="+", choices=tuple(checkpoints.SHAPES), default=["9b", "2b"])
    flags.add_argument("--measure", choices=tuple(checkpoints.SHAPES))
    flags.add_argument("--dtype", choices=tuple(DTYPES), default="bfloat16")
    flags.add_argument("--folder", type=Path, help="folder for the measured checkpoint; default: a temporary one")
    flags.add_argument("--rate", type=Path, help=argparse.SUPPRESS)
    asked = flags.parse_args()
    if asked.rate:
        print(json.dumps(rate(asked.rate, asked.folder, asked.dtype)))
        return
    if asked.measure:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            print(json.dumps(measure(asked.measure, asked.dtype, Path(folder)), indent=2))
        return
    header = ["shape", "parameters", "bfloat16 (disk, memory)", "per pass", "float32 (memory)", "per pass"]
    for line in tables.lines(tables.MARKDOWN, header, [row(name) for name in asked.shapes], [], labels=2):
        print(line)


if __name__ == "__main__":
    main()
