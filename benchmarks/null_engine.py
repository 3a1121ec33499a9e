#!/usr/bin/env python3
"""`tools/infer.py` with an engine that answers immediately with meaningless ratings: only the bookkeeping is left.

Takes the flags of infer.py and prints the resources that the process used as JSON. It is kept out of the package so that nobody
mistakes it for an engine.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]

import infer
from saiqa import engines, facts
from saiqa.cli.console import run

SPEC = "null_engine:NullEngine"


class NullEngine:
    """Always gives the same answer, immediately."""

    name = "null"

    def __init__(self, model_path: Path, **options: object):
        self._rating = engines.Rating({word: 0.123456789 * value - 2 for word, value in facts.WORD_VALUES.items()})

    def describe(self) -> dict:
        return {"engine": self.name, "dtype": "float32", "device": "none"}

    def rate(self, requests: Sequence[engines.Request]) -> list[engines.Rating]:
        return [self._rating] * len(requests)


def main(argv: Sequence[str] | None = None) -> None:
    """Run infer.py. Raises ``errors.UserError``."""
    engines.ENGINES[SPEC] = SPEC
    started = time.perf_counter()
    infer.main([*(sys.argv[1:] if argv is None else argv), "--engine", SPEC])
    seconds = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time()}
    print(json.dumps({**seconds, "peak_bytes": peak_bytes()}))


def peak_bytes() -> int:
    """Peak resident memory of this program; getrusage would start from the parent process's peak."""
    return memory_of_process("VmHWM")


def memory_of_process(field: str) -> int:
    """A size in bytes from /proc/self/status."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[field].split()[0]) * 1024


if __name__ == "__main__":
    sys.exit(run(main))
