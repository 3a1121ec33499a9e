#!/usr/bin/env python3
"""float32, bfloat16 and int8 on a CPU: images per second for four dimensions, alternating in one process, with the largest
score difference from float32, and the peak memory of each in a separate process. ``--demo``: PLCC of each dtype on the demo
instead. ``--nine_b``: bfloat16 and int8 on the 9B shape with random weights, one picture, 18 GB in ``--folder``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]

import torch
from safetensors.torch import save_file

import checkpoints
import inputs
import measuring
import reporting
from null_engine import peak_bytes
from saiqa import facts
from saiqa.cli.console import ArgumentParser, positive_int, run
from saiqa.engines import Engine, Request, load_engine
from saiqa.engines.loading import load_tokenizer
from saiqa.engines.prefill_engine import PrefillEngine
from saiqa.evaluate.figures import correlate
from saiqa.files import csv_files, folders, question_files
from saiqa.files.checkpoint_files import INDEX_FILE
from saiqa.model.ovis2_5 import Ovis2_5
from saiqa.scoring import score_of

SHARD_BYTES = 5 * 10**9  # as the release's
FOUR = list(facts.DIMENSIONS)
EXAMPLES = """
python benchmarks/bench_small.py
python benchmarks/bench_small.py --demo
python benchmarks/bench_small.py --nine_b --folder /large/disk
"""


def parser() -> ArgumentParser:
    """The flags of the script."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument
    add("--shape", choices=("40m", "tiny"), default="40m", help="size of the checkpoint (default: 40m)")
    add("--size", default="640x480", metavar="WxH", help="size of the pictures (default: 640x480)")
    add("--images", type=positive_int, default=8, metavar="N", help="pictures (default: 8)")
    add("--repeats", type=positive_int, default=5, metavar="N", help="runs of each dtype; the best counts (default: 5)")
    add("--threads", type=positive_int, metavar="N", help="default: torch's choice")
    add("--demo", action="store_true", help="PLCC on the demo instead")
    add("--nine_b", action="store_true", help="the 9B shape instead; takes 18 GB of disk in --folder while it runs")
    add("--folder", type=Path, metavar="DIR", help="folder for checkpoints; default: the system's temporary folder")
    add("--output_json", default="benchmarks/results/small.json", metavar="FILE")
    add("--child", nargs=3, metavar=("CHECKPOINT", "PICTURE", "DTYPE"), help="load, score, and print seconds and bytes")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    args = parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.child:
        print(json.dumps(child(*args.child)))
        return
    if args.demo:
        cases = demo()
    else:
        with tempfile.TemporaryDirectory(prefix="saiqa-small-", dir=args.folder) as name:
            cases = nine_b(args, Path(name)) if args.nine_b else side_by_side(args, Path(name))
    reporting.print_table(list(cases[0]), [[_cell(value) for value in case.values()] for case in cases])
    reporting.write_json(args.output_json, {"machine": reporting.machine(torch.device("cpu")), "cases": cases})


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ---- speed and memory ------------------------------------------------------------------------------------------------


def side_by_side(args: Namespace, folder: Path) -> list[dict]:
    """Images per second and seconds per pass of each dtype, alternating; the best of each counts."""
    checkpoint = folder / "checkpoint"
    checkpoints.build_checkpoint(checkpoint, checkpoints.SHAPES[args.shape], torch.bfloat16)
    images = inputs.make_images(folder, inputs.size_of(args.size), args.images)
    requests = inputs.questions(images, FOUR)
    engines = {dtype: load(checkpoint, dtype) for dtype in dtypes()}
    rated = {dtype: _scores(engine, requests) for dtype, engine in engines.items()}  # also the warm-up
    seconds: dict[str, list[float]] = {dtype: [] for dtype in engines}
    passes: dict[str, list[float]] = {dtype: [] for dtype in engines}
    for _ in range(args.repeats):
        for dtype, engine in engines.items():
            seconds[dtype].append(measuring.timed(partial(measuring.rate_all, engine, requests), engine.device))
            passes[dtype].append(measuring.model_seconds(engine, requests))
    return [
        {
            "dtype": dtype,
            "images_per_s": args.images / min(seconds[dtype]),
            "times_float32": min(seconds["float32"]) / min(seconds[dtype]),
            "model_images_per_s": args.images / min(passes[dtype]),
            "largest_score_difference": _largest(rated[dtype], rated["float32"]),
            "peak_bytes": in_a_child(checkpoint, images[0], dtype)["peak_bytes"],
        }
        for dtype in engines
    ]


def dtypes() -> tuple[str, ...]:
    """The dtypes to compare, the exact one first."""
    return ("float32", "bfloat16", "int8")


def load(checkpoint: str | Path, dtype: str) -> PrefillEngine:
    """The engine whose dtypes are compared."""
    return measuring.native(load_engine("prefill", checkpoint, device="cpu", dtype=dtype))


def _scores(engine: Engine, requests: list[Request]) -> list[float]:
    return [score_of(rating.logprobs) for rating in measuring.rate_all(engine, requests)]


def _largest(some: list[float], others: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(some, others, strict=True))


def in_a_child(checkpoint: Path, picture: Path, dtype: str) -> dict:
    """What ``child`` measures in a separate process."""
    command = [sys.executable, __file__, "--child", str(checkpoint), str(picture), dtype]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(ran.stdout.splitlines()[-1])


def child(checkpoint: str, picture: str, dtype: str) -> dict:
    """Seconds to load, to score a picture for the first time and again, and the peak resident bytes."""
    started = time.perf_counter()
    engine = load(checkpoint, dtype)
    loaded = time.perf_counter()
    requests = inputs.questions([Path(picture)], FOUR)
    first, again = (measuring.timed(lambda: measuring.rate_all(engine, requests), engine.device) for _ in range(2))
    seconds = {"load_seconds": loaded - started, "first_score_seconds": first, "score_seconds": again}
    return {"dtype": dtype, **seconds, "peak_bytes": peak_bytes()}


# ---- the 9B shape ----------------------------------------------------------------------------------------------------


def nine_b(args: Namespace, folder: Path) -> list[dict]:
    """``child`` of bfloat16 and int8 on the 9B shape."""
    picture = inputs.make_images(folder, inputs.size_of(args.size), 1)[0]
    write_in_shards(folder / "checkpoint", checkpoints.NINE_B)
    os.sync()  # writing 18 GB to disk would be measured with the first dtype
    return [in_a_child(folder / "checkpoint", picture, dtype) for dtype in dtypes()[1:]]


def write_in_shards(folder: Path, shape: dict, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a checkpoint of this shape with random weights in bfloat16, with one shard in memory at a time."""
    demo = folders.roots(demo=True).models / facts.tuned_model()
    config = checkpoints.config_of(shape)
    with torch.device("meta"):
        model = Ovis2_5(config)
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    load_tokenizer(demo).save_pretrained(folder)
    shutil.copy(demo / "preprocessor_config.json", folder)
    places: dict[str, str] = {}
    shards = list(_shards({name: weight.shape for name, weight in model.named_parameters()}, shard_bytes))
    for number, shapes in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({name: _random(name, size) for name, size in shapes.items()}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(shapes, file)
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def _shards(shapes: dict[str, torch.Size], shard_bytes: int) -> Iterator[dict[str, torch.Size]]:
    shard: dict[str, torch.Size] = {}
    size = 0
    for name, shape in shapes.items():
        if shard and size + 2 * shape.numel() > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += 2 * shape.numel()
    yield shard


def _random(name: str, shape: torch.Size) -> torch.Tensor:
    """The initialisation of ``Ovis2_5``: norms of ones, zero biases, and linear maps that preserve the scale of their input."""
    if len(shape) == 1:
        return torch.zeros(shape, dtype=torch.bfloat16) if name.endswith("bias") else torch.ones(shape, dtype=torch.bfloat16)
    spread = 0.02 if "embed" in name or name.startswith("vte") else shape[1:].numel() ** -0.5
    return torch.empty(shape, dtype=torch.bfloat16).normal_(std=spread)


# ---- the demo --------------------------------------------------------------------------------------------------------


def demo() -> list[dict]:
    """PLCC with the demo's mean opinion scores by dtype, and the largest score difference from float32."""
    roots = folders.roots(demo=True)
    checkpoint = roots.models / facts.tuned_model()
    asked = {dimension: _demo_rows(roots.data, dimension) for dimension in FOUR}
    scores: dict[str, dict[str, list[float]]] = {}
    for dtype in dtypes():
        engine = load(checkpoint, dtype)
        scores[dtype] = {dimension: _scores(engine, requests) for dimension, (requests, _) in asked.items()}
    cases = []
    for dtype in dtypes():
        plcc = {f"plcc_{d}": correlate(scores[dtype][d], asked[d][1]).plcc for d in FOUR}
        change = max(_largest(scores[dtype][d], scores["float32"][d]) for d in FOUR)
        cases.append({"dtype": dtype, "ratings": sum(map(len, scores[dtype].values())), **plcc, "largest_change": change})
    return cases


def _demo_rows(data: Path, dimension: str) -> tuple[list[Request], list[float]]:
    """The questions about the test images of a dimension, and their mean opinion scores."""
    sentences = question_files.sentences(data, dimension, facts.RECOMMENDED)
    table = next((data / "annotations").glob(f"{dimension}_*_test.csv"))
    rows = csv_files.read_csv(table).rows
    folder = data / facts.IMAGES_FOLDER.format(dimension=dimension)
    images = [next(folder.glob(f"{row['id']}.*")) for row in rows]
    requests = [Request(image, sentences.query, sentences.before) for image in images]
    return requests, [float(row[f"{dimension}_score_mos"]) for row in rows]


if __name__ == "__main__":
    sys.exit(run(main))
