#!/usr/bin/env python3
"""``swift`` (generates, as the release does) or ``vllm`` against ``prefill``: images per second, their ratio, the largest
score difference, and prefill's share of matmul throughput (of a large product). One checkpoint with random weights, the same
pictures, dtype and threads, alternating in one process."""

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
import reporting
from saiqa import facts
from saiqa.cli.console import ArgumentParser, positive_int, run

EXAMPLES = """
python benchmarks/bench_engines.py
python benchmarks/bench_engines.py --threads 1 --repeats 5
python benchmarks/bench_engines.py --against vllm
python benchmarks/bench_engines.py --shape tiny --images 2 --sizes 96x64 --repeats 1 --matmul_side 256
"""


def parser() -> ArgumentParser:
    """The flags of the script."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument
    add("--against", choices=("swift", "vllm"), default="swift", help="vllm: in the environment of requirements-vllm.txt")
    add("--shape", choices=("40m", "tiny"), default="40m", help="size of the checkpoint (default: 40m)")
    add("--sizes", nargs="+", default=["640x480", "1024x1024"], metavar="WxH", help="default: 640x480 1024x1024")
    add("--images", type=positive_int, default=8, metavar="N", help="pictures of each size (default: 8)")
    add("--repeats", type=positive_int, default=3, metavar="N", help="runs of each engine; the best counts (default: 3)")
    add("--batch_size", type=positive_int, default=8, metavar="N", help="images per pass, at most (default: 8)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    add("--threads", type=positive_int, metavar="N", help="default: torch's choice")
    add("--compile", action="store_true", help="prefill with torch.compile")
    add("--matmul_side", type=positive_int, default=2048, metavar="N", help="side of the large product (default: 2048)")
    add("--output_json", default="benchmarks/results/engines.json", metavar="FILE")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    args = parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(prefix="saiqa-bench-") as name:
        figures = measure(args, Path(name))
    rates = (f"{args.against} images/s", "prefill images/s", "ratio")
    header = ("images", "dimensions", *rates, "largest score difference", "share of matmul throughput")
    reporting.print_table(header, [_line(case, args.against) for case in figures["cases"]])
    print(f"large matrix product: {figures['matmul_gflops']:.0f} GFLOP/s, {figures['machine']['threads']} threads")
    reporting.write_json(args.output_json, figures)


def _line(case: dict, against: str) -> tuple:
    rates = (f"{case[f'{against}_images_per_s']:.2f}", f"{case['prefill_images_per_s']:.2f}", f"{case['ratio']:.2f}")
    difference, share = f"{case['largest_score_difference']:.1e}", f"{case['share_of_matmul']:.0%}"
    return (case["size"], case["dimensions"], *rates, difference, share)


def measure(args: Namespace, folder: Path) -> dict:
    """All cases, as JSON values."""
    checkpoint = folder / "checkpoint"
    parameters = checkpoints.build_checkpoint(checkpoint, checkpoints.SHAPES[args.shape], getattr(torch, args.dtype))
    engines = comparison.Engines.load(checkpoint, "cpu", args.dtype, args.batch_size, args.compile, args.against)
    cases = []
    for size in args.sizes:
        images = inputs.make_images(folder, inputs.size_of(size), args.images)
        for dimensions in (["lighting"], list(facts.DIMENSIONS)):
            requests = inputs.questions(images, dimensions)
            compared = engines.compare(requests, args.repeats, args.matmul_side)
            cases.append({"size": size, "dimensions": len(dimensions), **compared})
    return {
        "machine": reporting.machine(engines.prefill.device),
        "shape": args.shape,
        "parameters": parameters,
        "dtype": args.dtype,
        "batch_size": args.batch_size,
        "compile": args.compile,
        "matmul_gflops": max(case["matmul_gflops"] for case in cases),
        "cases": cases,
    }


if __name__ == "__main__":
    sys.exit(run(main))
