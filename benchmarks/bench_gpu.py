#!/usr/bin/env python3
"""The 9B shape in bfloat16, with random weights built here, on a GPU: images per second for one and four dimensions against
``swift`` with answers of 13 tokens, share of matmul throughput (of a large product), and peak memory, for several batch sizes.
Needs about 40 GB on the GPU and 20 GB for the checkpoint (``--folder``)."""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]

import torch

import checkpoints
import comparison
import inputs
import measuring
import reporting
from saiqa.cli.console import ArgumentParser, positive_int, run

EXAMPLES = """
python benchmarks/bench_gpu.py
python benchmarks/bench_gpu.py --batch_sizes 8 16 --compile --folder /dev/shm
python benchmarks/bench_gpu.py --device cpu --tiny
"""


def parser() -> ArgumentParser:
    """The flags of the script."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument
    add("--device", default="cuda", help="cuda (default), cuda:N or, to try the script, cpu")
    add("--tiny", action="store_true", help="a tiny shape, pictures and product: smoke test only")
    add("--batch_sizes", nargs="+", type=positive_int, default=[1, 2, 4, 8, 16, 32], metavar="N", help="default: 1 2 4 ... 32")
    add("--size", default="1024x1024", metavar="WxH", help="size of the pictures (default: 1024x1024)")
    add("--repeats", type=positive_int, default=2, metavar="N", help="runs of each engine; the best counts (default: 2)")
    add("--compile", action="store_true", help="prefill with torch.compile")
    add("--folder", metavar="DIR", help="folder for the checkpoint during the run (default: a temporary one)")
    add("--output_json", default="benchmarks/results/gpu.json", metavar="FILE")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark. Raises ``InputError`` if there is no such device."""
    args = parser().parse_args(argv)
    device = checkpoints.device_for_9b(args.device, args.tiny)
    with tempfile.TemporaryDirectory(prefix="saiqa-bench-", dir=args.folder) as name:
        figures = measure(args, device, Path(name))
    rates = ("swift images/s", "prefill images/s", "ratio", "share of matmul throughput")
    header = ("dimensions", "batch", *rates, "peak GB", "largest score difference")
    reporting.print_table(header, [_line(case) for case in figures["cases"]])
    print(f"large matrix product: {figures['matmul_gflops'] / 1e3:.2f} TFLOP/s on {figures['machine']['device']}")
    reporting.write_json(args.output_json, figures)


def _line(case: dict) -> tuple:
    peak = "-" if case["peak_bytes"] is None else f"{case['peak_bytes'] / 1e9:.1f}"
    rates = (f"{case['swift_images_per_s']:.2f}", f"{case['prefill_images_per_s']:.2f}", f"{case['ratio']:.2f}")
    difference = f"{case['largest_score_difference']:.1e}"
    return (case["dimensions"], case["batch_size"], *rates, f"{case['share_of_matmul']:.0%}", peak, difference)


def measure(args: Namespace, device: torch.device, folder: Path) -> dict:
    """All cases, as JSON values."""
    shape = checkpoints.TINY if args.tiny else checkpoints.NINE_B
    parameters = checkpoints.build_checkpoint(folder / "checkpoint", shape, torch.bfloat16, args.device)
    engines = comparison.Engines.load(folder / "checkpoint", args.device, "bfloat16", 1, args.compile)
    assert isinstance(engines.other, comparison.GivenAnswers)
    engines.prefill.token_budget = sys.maxsize  # so that only the batch size limits a pass
    width, height = (96, 64) if args.tiny else inputs.size_of(args.size)
    least = 1 if args.tiny else 8  # pictures: even a small batch is measured over several passes
    images = inputs.make_images(folder, (width, height), max(least, *args.batch_sizes))
    side = 256 if args.tiny else 8192
    cases = []
    for dimensions, batch_size, requests in inputs.cases(images, args.batch_sizes, least):
        engines.prefill.batch_size = engines.other.engine.engine.max_batch_size = batch_size
        peak = measuring.peak_bytes(engines.prefill, requests)
        compared = engines.compare(requests, args.repeats, side)
        cases.append({"dimensions": len(dimensions), "batch_size": batch_size, "peak_bytes": peak, **compared})
    return {
        "machine": reporting.machine(device),
        "shape": "tiny" if args.tiny else "9b",
        "parameters": parameters,
        "dtype": "bfloat16",
        "size": f"{width}x{height}",
        "compile": args.compile,
        "weight_bytes": 2 * parameters,
        "matmul_gflops": max(case["matmul_gflops"] for case in cases),
        "cases": cases,
    }


if __name__ == "__main__":
    sys.exit(run(main))
