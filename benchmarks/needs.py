#!/usr/bin/env python3
"""What the models take: parameters, and bytes of disk and memory, computed from their shapes.

    python benchmarks/needs.py [--shapes 9b 2b]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]

import torch

import shared
from saiqa import tables
from saiqa.engines.memory import GB, pass_bytes
from saiqa.ovis2_5 import Ovis2_5
from saiqa.pixels import MAX_PIXELS

GROUP_PIXELS = 32 * 32  # an embedding of the language model stands for so many
TEXT_TOKENS = 400  # four questions, prompt 4


def row(name: str) -> list[str]:
    """A shape's line of the table."""
    config = shared.config_of(shared.SHAPES[name])
    with torch.device("meta"):
        model = Ovis2_5(config)
    parameters = sum(weight.numel() for weight in model.parameters())
    cells = [name, f"{parameters / 1e9:.2f} billion"]
    for dtype in (torch.bfloat16, torch.float32):
        working = pass_bytes(config, dtype, MAX_PIXELS // GROUP_PIXELS + TEXT_TOKENS)
        cells += [f"{parameters * dtype.itemsize / GB:.1f} GB", f"{working / GB:.1f} GB"]
    return cells


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    flags.add_argument("--shapes", nargs="+", choices=tuple(shared.SHAPES), default=["9b", "2b"])
    header = ["shape", "parameters", "bfloat16 (disk, memory)", "a pass", "float32 (memory)", "a pass"]
    for line in tables.lines(tables.MARKDOWN, header, [row(name) for name in flags.parse_args().shapes], [], labels=2):
        print(line)


if __name__ == "__main__":
    main()
