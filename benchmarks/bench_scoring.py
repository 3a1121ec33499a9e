#!/usr/bin/env python3
"""Scores and correlations of many rated images: the commands from ratings to pooled figures, with and without startup."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]

from saiqa import facts
from saiqa.cli.console import ArgumentParser, positive_int, run
from saiqa.errors import Failed
from saiqa.files import csv_files, folders, jsonl

EXAMPLES = """
python benchmarks/bench_scoring.py
python benchmarks/bench_scoring.py --rows 400 --repeats 1
"""

MODEL = facts.tuned_model()
SEED = 42
RATERS = 5
FEW = 10  # rows per dimension that take no measurable time: what is left is the startup


def parser() -> ArgumentParser:
    """The flags of the benchmark."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument
    add("--rows", type=positive_int, default=100_000, metavar="N", help="images in all four dimensions (default: 100000)")
    add("--repeats", type=positive_int, default=3, metavar="N", help="runs; the fastest counts (default: 3)")
    add("--output_json", default="benchmarks/results/scoring.json", metavar="FILE")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark. Raises ``errors.UserError``."""
    args = parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="saiqa-bench-") as name:
        few, all_rows = commands(Path(name) / "few", FEW), commands(Path(name) / "all", args.rows // len(facts.DIMENSIONS))
        stages = {}
        for stage, command in all_rows.items():
            total, start = quickest(command, args.repeats), quickest(few[stage], args.repeats)
            stages[stage] = {"total_s": total, "start_s": start, "difference_s": total - start}
        interpreter = quickest(["-c", "pass"], args.repeats)
    stages["all"] = {name: sum(stage[name] for stage in stages.values()) for name in stages["score"]}
    import torch

    import reporting

    header = ("stage", f"seconds for {args.rows} rows", f"for {FEW * len(facts.DIMENSIONS)} rows (start)", "difference")
    reporting.print_table(header, [(name, *(f"{value:.2f}" for value in stage.values())) for name, stage in stages.items()])
    print(f"startup of the interpreter: {interpreter:.3f} s, included {len(all_rows)} times above")
    figures = {"rows": args.rows, "interpreter_start_s": interpreter, "stages": stages}
    reporting.write_json(args.output_json, {**figures, "machine": reporting.machine(torch.device("cpu"))})


def commands(folder: Path, rows: int) -> dict[str, list[str | Path]]:
    """The command of each stage, on ratings made in ``folder``, ``rows`` per dimension."""
    folder.mkdir()
    make_ratings(folder, rows)
    where: list[str | Path] = ["--data_root", folder, "--results_dir", folder, "--model_path", folder / MODEL]
    return {
        "score": ["tools/infer.py", "--mode", "score", *where],
        "eval": ["tools/infer.py", "--mode", "eval", *where],
        "pooled": ["tools/evaluate_correlation.py", "--results_dir", folder],
    }


def make_ratings(folder: Path, rows: int) -> None:
    """Ratings of a model and of people, ``rows`` images per dimension."""
    chance = random.Random(SEED)
    for dimension in facts.DIMENSIONS:
        ids = [f"{dimension}_{number:06}" for number in range(rows)]
        ratings = ({"images": [f"{facts.DATA_FOLDER}/images/{i}.jpg"], "logits": logits(chance)} for i in ids)
        jsonl.write_jsonl(folder / facts.result_name(dimension, facts.RECOMMENDED, MODEL, ".jsonl"), ratings)
        columns = [f"{dimension}_score_{rater}" for rater in range(RATERS)]
        mean = facts.mos_column(dimension)
        table = []
        for image_id in ids:
            scores = [chance.randint(1, 5) for _ in columns]
            row = {facts.ID_COLUMN: image_id, **dict(zip(columns, map(str, scores), strict=True))}
            table.append({**row, mean: f"{sum(scores) / RATERS:.2f}"})
        path = folders.annotation_csv(folder, dimension, "test")
        assert isinstance(path, Path)
        csv_files.write_csv(path, [facts.ID_COLUMN, *columns, mean], table)


def logits(chance: random.Random) -> dict[str, float]:
    """Log-probabilities of the five words, with as many digits as a model's."""
    return {word: -8 * chance.random() for word in facts.WORDS}


def quickest(command: Sequence[str | Path], repeats: int) -> float:
    """Wall-clock seconds of a Python command, the best of ``repeats``."""
    return min(seconds_of([sys.executable, *command]) for _ in range(repeats))


def seconds_of(command: Sequence[str | Path]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise Failed(f"{command[1]} ended with exit code {done.returncode}: {done.stderr.strip()}")
    return seconds


if __name__ == "__main__":
    sys.exit(run(main))
