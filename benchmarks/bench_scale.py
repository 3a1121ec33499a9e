#!/usr/bin/env python3
"""Scale-out: images per second of two workers against one process, and the cost of a run besides the model, per row.

Every run is `infer.py --mode infer` in a separate process. The model of the first table has random weights; that of the second
answers immediately (null_engine.py), so that only reading, checking, distributing, saving and writing are left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]

from saiqa import facts
from saiqa.cli.console import ArgumentParser, positive_int, run
from saiqa.errors import Failed
from saiqa.files import folders, jsonl

EXAMPLES = """
python benchmarks/bench_scale.py
python benchmarks/bench_scale.py --shape tiny --images 16 --rows 1000 2000
"""

DIMENSION = "lighting"
SIZE = (640, 480)
FILES_A_FOLDER = 10_000


def parser() -> ArgumentParser:
    """The flags of the benchmark."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument
    add("--shape", choices=("40m", "tiny"), default="40m", help="size of the checkpoint (default: 40m)")
    add("--images", type=positive_int, default=96, metavar="N", help="images of the first table (default: 96)")
    add("--max_batch_size", type=positive_int, default=8, metavar="N", help="images given to a worker at a time (default: 8)")
    add("--workers", type=positive_int, default=2, metavar="N", help="workers to compare with one (default: 2)")
    add("--rows", type=positive_int, nargs=2, default=[10_000, 1_000_000], metavar="N", help="default: 10000 1000000")
    add("--only", choices=("workers", "rows"), help="only one of the two tables")
    add("--output_json", default="benchmarks/results/scale.json", metavar="FILE")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark. Raises ``errors.UserError``."""
    args = parser().parse_args(argv)
    figures = {}
    with tempfile.TemporaryDirectory(prefix="saiqa-bench-") as name:
        if args.only != "rows":
            figures["workers"] = measure_workers(Path(name), args)
        if args.only != "workers":
            figures["bookkeeping"] = measure_rows(Path(name), args)
    import torch

    import reporting

    reporting.write_json(args.output_json, {**figures, "machine": reporting.machine(torch.device("cpu"))})


# ---- workers against one process -------------------------------------------------------------------------------------


def measure_workers(folder: Path, args: Namespace) -> list[dict]:
    """Images per second without and with workers, one thread each, without loading; the result files must be identical."""
    import torch

    import checkpoints
    import inputs
    import reporting

    checkpoint = folder / "checkpoint"
    parameters = checkpoints.build_checkpoint(checkpoint, checkpoints.SHAPES[args.shape], torch.float32)
    data = folder / "pictures"
    data.mkdir()
    write_questions(data, [path.relative_to(data) for path in inputs.make_images(data, SIZE, args.images)])
    figures, written = [], []
    for count in (1, args.workers):
        results = folder / f"with{count}"
        run_command("tools/infer.py", checkpoint, data, results, count, "--max_batch_size", str(args.max_batch_size))
        written.append(only(results, "*.jsonl").read_bytes())
        rate = args.images / json.loads(only(results, "*.run.json").read_text())["seconds"]
        figures.append({"workers": count, "parameters": parameters, "images": args.images, "images_per_s": rate})
        figures[-1]["speed_up"] = rate / figures[0]["images_per_s"]
    if written[0] != written[1]:
        raise Failed("the results of one process and of workers differ")
    lines = [(f["workers"], f"{f['images_per_s']:.2f}", f"{f['speed_up']:.2f}") for f in figures]
    reporting.print_table(("workers, one thread each", "images/s", "speed-up"), lines)
    return figures


# ---- bookkeeping -----------------------------------------------------------------------------------------------------


def measure_rows(folder: Path, args: Namespace) -> list[dict]:
    """Time and peak memory of a whole run with few and with many rows; the cost per row is the slope between them."""
    import reporting

    figures = []
    roots = [make_rows(folder / f"rows{rows}", rows) for rows in args.rows]
    checkpoint = folder / "null"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(bytes(8))
    demo = HERE.parent / "demo" / "SA-IQA-model" / "sa-iqa-prompt4"
    for name in ("config.json", "preprocessor_config.json"):
        (checkpoint / name).write_bytes((demo / name).read_bytes())
    for count in (1, args.workers):
        few, many = (
            run_command("benchmarks/null_engine.py", checkpoint, root, folder / f"with{count}-{rows}", count)
            for root, rows in zip(roots, args.rows, strict=True)
        )
        cost = {f"{key}_per_row": (many[key] - few[key]) / (args.rows[1] - args.rows[0]) for key in few if "sec" in key}
        peaks = {"peak_bytes_few": few["peak_bytes"], "peak_bytes_many": many["peak_bytes"]}
        figures.append({"workers": count, "rows_few": args.rows[0], "rows_many": args.rows[1], **cost, **peaks})
    header = ("workers", "us/row", "us/row, CPU", *(f"peak MB at {rows} rows" for rows in args.rows))
    reporting.print_table(header, [_row_line(figure) for figure in figures])
    return figures


def _row_line(figure: dict) -> tuple:
    times = (f"{1e6 * figure[key]:.1f}" for key in ("seconds_per_row", "processor_seconds_per_row"))
    return (figure["workers"], *times, *(f"{figure[key] / 1e6:.0f}" for key in ("peak_bytes_few", "peak_bytes_many")))


def make_rows(root: Path, count: int) -> Path:
    """A data root with ``count`` questions, each about its own (empty) file."""
    images = [Path("images", str(i // FILES_A_FOLDER), f"{i:08}.jpg") for i in range(count)]
    for image in images:
        if not (root / image.parent).exists():
            (root / image.parent).mkdir(parents=True)
        os.close(os.open(root / image, os.O_CREAT | os.O_WRONLY))
    write_questions(root, images)
    return root


# ---- both ------------------------------------------------------------------------------------------------------------


def write_questions(root: Path, images: Sequence[Path]) -> None:
    """The questions about these images of a data root, in this project's words."""
    asked = {"query": facts.query(DIMENSION), "response": facts.response(DIMENSION, "good")}
    lines = ({**asked, "images": [f"{facts.DATA_FOLDER}/{image}"]} for image in images)
    path = folders.annotation_jsonl(root, DIMENSION, "test", facts.RECOMMENDED)
    assert isinstance(path, Path)
    jsonl.write_jsonl(path, lines)


def run_command(script: str, checkpoint: Path, data: Path, results: Path, workers: int, *flags: str) -> dict:
    """Run the infer stage in a separate process, with one thread per worker; the JSON object on its stdout, if any."""
    where = ["--model_path", checkpoint, "--data_root", data, "--results_dir", results, "--workers", str(workers)]
    command = [sys.executable, HERE.parent / script, "--mode", "infer", "--dimension", DIMENSION, "--device", "cpu"]
    done = subprocess.run(
        [*map(str, (*command, *where, *flags))], env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise Failed(f"{script} ended with exit code {done.returncode}", "Its messages are above")
    return json.loads(done.stdout) if done.stdout else {}


def only(folder: Path, pattern: str) -> Path:
    """The only file that matches this pattern in a folder."""
    (path,) = folder.glob(pattern)
    return path


if __name__ == "__main__":
    sys.exit(run(main))
