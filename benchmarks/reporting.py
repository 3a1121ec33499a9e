"""The machine of the measurement, tables on stdout, and the JSON of the figures."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from saiqa.files.jsonl import to_json


def machine(device: torch.device) -> dict:
    """The hardware and software of the measurement."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor
    return {"device": name, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A markdown table on stdout."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def write_json(path: str | Path, figures: dict) -> None:
    """Write the figures as strict JSON."""
    keep_json(path, figures)
    print(f"written: {path}", file=sys.stderr)


def keep_json(path: str | Path, figures: dict) -> None:
    """As ``write_json``, without a message; the file is complete at any time."""
    path, part = Path(path), Path(f"{path}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(to_json(figures) + "\n", encoding="utf-8")
    part.replace(path)
