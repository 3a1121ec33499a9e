"""Is the native model correct on a GPU, how fast is it, and where does the time go?

Needs torch, transformers and their dependencies, numpy, scipy and Pillow, and no network. The 9B shape has random weights that
are created on the GPU, in bfloat16: about 25 GB of its memory. Every part has a time limit in seconds, and is in the JSON as
soon as it has ended. Exit codes: 1 if a part failed, 3 if none failed but a part was stopped at its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]

import torch
import transformers

import checkpoints
import gpu_reference
import gpu_speed
import gpu_tables
import gpu_training
import inputs
import reporting
from gpu_bench import Bench, NotInstalled, first_line, give_memory_back
from saiqa.cli.console import ArgumentParser, positive_int, run
from saiqa.errors import Failed, Incomplete

EXAMPLES = """
bash benchmarks/gpu_check.sh
bash benchmarks/gpu_check.sh --parts reference,throughput --batch_sizes 8 16 --seconds 200
bash benchmarks/gpu_check.sh --device cpu --tiny
"""
PASSED, FAILED, STOPPED, NOT_INSTALLED = "passed", "failed", "stopped", "not installed"


class OverTime(Exception):
    """A part has reached its time limit."""


# --- Parts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A part of the check: what it does, and its time limit in seconds. The limits add up to eight minutes."""

    work: Callable[[Bench, dict], None]
    seconds: int


# In this order; compiling comes last because it changes the model.
PARTS = {
    "reference": Part(gpu_reference.check_reference, 60),
    "throughput": Part(gpu_speed.measure_throughput, 100),
    "attention": Part(gpu_speed.compare_attention, 30),
    "stages": Part(gpu_speed.measure_stages, 40),
    "profile": Part(gpu_speed.profile_kernels, 40),
    "training": Part(gpu_training.measure_training, 90),
    "compiled": Part(gpu_speed.measure_compiled, 130),
}


def run_part(bench: Bench, part: Part, seconds: int) -> dict:
    """Outcome and figures of a part; figures from before a failure or stop are kept."""
    report: dict = {}
    outcome, reason, started = PASSED, None, time.perf_counter()
    try:
        with within(seconds), contextlib.redirect_stdout(sys.stderr):  # some libraries log to stdout
            part.work(bench, report)
    except NotInstalled as missing:
        outcome, reason = NOT_INSTALLED, str(missing)
    except Exception as error:
        # Libraries turn an interruption into errors of their own.
        over = isinstance(error, OverTime) or time.perf_counter() - started >= seconds
        outcome, reason = (STOPPED, f"after {seconds} s") if over else (FAILED, first_line(error))
    give_memory_back(bench.device)
    return {"outcome": outcome, "reason": reason, "bound_s": seconds, "wall_s": time.perf_counter() - started, **report}


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise ``OverTime`` in the block after ``seconds``, and again every ten seconds in case a library swallows it."""

    def stop(*_: object) -> None:
        raise OverTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 10)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- The command ------------------------------------------------------------------------------------------------------


def chosen_parts(text: str) -> list[str]:
    """Comma-separated names of parts, as an argparse type; in the order of ``PARTS``."""
    names = text.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(PARTS)}")
    return [name for name in PARTS if name in names]


def parser() -> ArgumentParser:
    """The flags of the script."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES, prog="gpu_check.sh")
    add = flags.add_argument
    add("--device", default="cuda", help="cuda (default), cuda:N or, to try the script, cpu")
    add("--tiny", action="store_true", help="a tiny shape and tiny pictures: smoke test only")
    add("--parts", type=chosen_parts, default=list(PARTS), metavar="A,B", help=f"default: {','.join(PARTS)}")
    bounds = ", ".join(f"{name} {part.seconds}" for name, part in PARTS.items())
    add("--seconds", type=positive_int, metavar="N", help=f"time limit of each part (default: {bounds})")
    add("--batch_sizes", nargs="+", type=positive_int, metavar="N", help="default: 1 2 4 8 16 32; tiny: 1 2")
    add("--size", default="1024x1024", metavar="WxH", help="size of the pictures (default: 1024x1024; tiny: 96x64)")
    add("--repeats", type=positive_int, default=2, metavar="N", help="runs; the best counts (default: 2)")
    add("--output_json", default="benchmarks/results/gpu_check.json", metavar="FILE")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the parts. Raises ``InputError`` if there is no such device, ``Failed`` or ``Incomplete`` after the last one."""
    args = parser().parse_args(argv)
    device = checkpoints.device_for_9b(args.device, args.tiny)
    if device.type == "cpu":
        torch.set_num_threads(1)  # with so little work, threads mostly wait for each other
    size = (96, 64) if args.tiny else inputs.size_of(args.size)
    batch_sizes = args.batch_sizes or ([1, 2] if args.tiny else [1, 2, 4, 8, 16, 32])
    found = machine(device)
    parts: dict[str, dict] = {}
    figures = {"machine": found, "shape": "tiny" if args.tiny else "9b", "size": f"{size[0]}x{size[1]}", "parts": parts}
    print("# " + ", ".join(map(str, found.values())))
    with tempfile.TemporaryDirectory(prefix="saiqa-check-") as folder:
        bench = Bench(device, args.tiny, size, batch_sizes, args.repeats, Path(folder))
        for name in args.parts:
            part = PARTS[name]
            parts[name] = outcome = run_part(bench, part, args.seconds or part.seconds)
            reporting.keep_json(args.output_json, figures)
            gpu_tables.show(name, outcome)
    reporting.write_json(args.output_json, figures)
    judge(parts)


def judge(parts: dict) -> None:
    """Raises ``Failed`` if a part failed, else ``Incomplete`` if one was stopped."""
    failed, stopped = ([(name, p["reason"]) for name, p in parts.items() if p["outcome"] == o] for o in (FAILED, STOPPED))
    if failed:
        raise Failed("; ".join(f"{name}: {reason}" for name, reason in failed))
    if stopped:
        raise Incomplete(f"{len(stopped)} of {len(parts)} parts were stopped", stopped, "Allow more --seconds")


def machine(device: torch.device) -> dict:
    """The hardware and software of the measurement."""
    found = {**reporting.machine(device), "transformers": transformers.__version__, "python": platform.python_version()}
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "memory_bytes": memory}
    return found


if __name__ == "__main__":
    sys.exit(run(main))
