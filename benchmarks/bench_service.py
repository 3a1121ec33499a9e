#!/usr/bin/env python3
"""Many concurrent clients against serve.py: does every answer belong to the client's own images, is every refusal clean, and
how much slower is the service than ``score_images.py`` on the same images? Everything runs on this machine, over loopback.

Each client keeps one connection and sends randomly drawn pictures. Occasionally it sends a request that must be refused (too
many images, too many pixels, no form) or a broken picture among good ones, and the queue is shorter than what the clients could
fill, so that some are told to retry. Every score is compared with that of ``Scorer`` for the same image.
"""

from __future__ import annotations

import json
import statistics
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from saiqa.cli.console import ArgumentParser, Output, positive_int, run
from saiqa.errors import Failed, UsageError
from saiqa.scorer import CHUNK_IMAGES
from service_load import Alone, Load, score_images, under_load
from service_requests import make_pool

PROCESSOR = "process_cpu_seconds_total"

EXAMPLES = """
python benchmarks/bench_service.py
python benchmarks/bench_service.py --clients 8 --seconds 10
python benchmarks/bench_service.py --model_path SA-IQA-model/sa-iqa-prompt4 --images renders/
"""


def parser() -> ArgumentParser:
    """The flags of the script."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument
    add("--model_path", metavar="DIR", help="default: the demo's checkpoint")
    add("--images", metavar="DIR", help="folder with pictures (default: those of the demo)")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add("--clients", type=positive_int, default=64, metavar="N", help="default: 64")
    add("--seconds", type=positive_int, default=60, metavar="N", help="seconds of load (default: 60)")
    add("--alone_images", type=positive_int, default=1280, metavar="N", help="images per score_images.py run (default: 1280)")
    add("--images_per_request", type=positive_int, default=4, metavar="N", help="default: 4")
    add("--max_queue", type=positive_int, default=128, metavar="N", help="images that may wait in the queue (default: 128)")
    add("--pool", type=positive_int, default=48, metavar="N", help="different images to send (default: 48)")
    tolerance = "of a score: rounding differs with the batch (default: 1e-5; bfloat16 needs 0.005)"
    add("--tolerance", type=float, default=1e-5, metavar="X", help=tolerance)
    add("--output_json", default="benchmarks/results/service.json", metavar="FILE")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark. Raises ``Failed`` if an answer was wrong."""
    from saiqa import Scorer
    from saiqa.files.text_files import write_text

    args = parser().parse_args(argv)
    if args.alone_images < 2 * CHUNK_IMAGES:
        raise UsageError(f"--alone_images {args.alone_images} is too few to measure a rate", f"Use at least {2 * CHUNK_IMAGES}")
    out = Output()
    pool = make_pool(Scorer(args.model_path, demo=args.model_path is None, device=args.device), args)
    out.note(f"{len(pool)} images, {args.clients} clients, {args.seconds} s")
    alone = [score_images(pool, args)]
    load = under_load(pool, args)
    alone.append(score_images(pool, args))
    figures = summary(load, alone, args)
    for name, value in figures.items():
        out.result(f"{name:<28} {value:.3f}" if isinstance(value, float) else f"{name:<28} {value}")
    output = Path(args.output_json)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(figures, indent=2) + "\n")
    if load.wrong:
        raise Failed(f"{len(load.wrong)} answers were wrong, the first: {load.wrong[0]}", "Find out why")


def summary(load: Load, alone: Sequence[Alone], args: Namespace) -> dict:
    """The figures of one run. Processor seconds count all cores and depend least on other programs."""
    images = sum(count for _, count in load.finished)
    # Up to the last answer: until then the queue is never empty.
    rate = images / (max((when for when, _ in load.finished), default=load.ended) - load.started)
    alone_rate = sum(run.images for run in alone) / sum(run.seconds for run in alone)
    alone_processor = sum(run.processor_seconds for run in alone) / sum(run.images for run in alone)
    processor = metric(load.metrics, PROCESSOR) - metric(load.metrics_before, PROCESSOR)
    latencies = statistics.quantiles(load.seconds, n=100) if len(load.seconds) > 1 else [0.0] * 99
    return {
        "clients": args.clients,
        "seconds": args.seconds,
        "images_per_request": args.images_per_request,
        "answers": {str(status): count for status, count in sorted(load.statuses.items())},
        "wrong": len(load.wrong),
        "images_checked": images,
        "service_images_per_second": rate,
        "alone_images_per_second": alone_rate,
        "ratio": rate / alone_rate,
        "service_processor_ms_an_image": 1000 * processor / max(images, 1),
        "alone_processor_ms_an_image": 1000 * alone_processor,
        "seconds_p50": latencies[49],
        "seconds_p95": latencies[94],
        "images_a_batch": metric(load.metrics, "saiqa_batch_images_sum") / metric(load.metrics, "saiqa_batch_images_count"),
        "exit_code": load.exit_code,
    }


def metric(text: str, name: str) -> float:
    """A value of /metrics."""
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


if __name__ == "__main__":
    sys.exit(run(main))
