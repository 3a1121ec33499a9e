"""The prompt ablation: a checkpoint per prompt version, its scores, and one table that compares them.

``tools/run_ablation.sh`` runs this. Every step is the command that a user would run, in a separate process.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saiqa import errors, facts
from saiqa.cli import console
from saiqa.evaluate import tables
from saiqa.files import csv_files, folders, text_files
from saiqa.files.checkpoint_files import CONFIG_FILE

PROGRAM = "run_ablation.sh"

FIGURES = {"plcc": "PLCC", "srcc": "SRCC"}
COLUMNS = ("prompt", "dimension", "n", "plcc", "plcc_low", "plcc_high", "srcc", "srcc_low", "srcc_high")
NOTE = "Brackets: 95% intervals, percentile bootstrap over images."


@dataclass(frozen=True)
class Step:
    """A command of the ablation and its purpose; with ``figures`` its stdout is an evaluation as JSON."""

    purpose: str
    command: list[str]
    figures: bool = False


def parser() -> console.ArgumentParser:
    """The flags of the command."""
    flags = console.ArgumentParser(
        description="Compare the prompts: use or train a checkpoint for each, score the four dimensions, and tabulate\n"
        "PLCC and SRCC with 95% intervals.\n"
        "Options not listed here are passed on to `train_sft.sh`, and from there to `swift sft`.",
        examples=(
            "bash tools/run_ablation.sh --demo --device cpu\n"
            "bash tools/run_ablation.sh --demo --prompt_versions 1 4 --dry_run\n"
            "bash tools/run_ablation.sh --no_train\n"
            "bash tools/run_ablation.sh --num_train_epochs 1"
        ),
    )
    add = flags.add_argument
    add("--prompt_versions", type=int, nargs="+", choices=facts.PROMPT_VERSIONS, default=list(facts.PROMPT_VERSIONS))
    add("--demo", action="store_true", help="the demo's data and small base model instead of the release's")
    add("--models_dir", metavar="DIR", help="folder of the sa-iqa-promptN checkpoints (default: ./SA-IQA-model)")
    add("--data_root", metavar="DIR", help="benchmark folder (default: ./SA-BENCH)")
    add("--results_dir", metavar="DIR", help="for scores and ablation.md, ablation.csv (default: ./results)")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default: auto")
    add("--no_train", action="store_true", help="only compare existing checkpoints; fail if one is missing")
    add("--resume", action="store_true", help="continue interrupted scoring")
    add("--dry_run", action="store_true", help="print the commands without running them")
    return flags


def checkpoint_folder(arguments: argparse.Namespace, version: int) -> Path:
    """Where the checkpoint of a prompt version is or goes."""
    models = folders.output_path(arguments.models_dir) if arguments.models_dir else folders.roots(arguments.demo).models
    return models / facts.tuned_model(version)


def results_folder(arguments: argparse.Namespace) -> Path:
    return folders.output_path(arguments.results_dir) if arguments.results_dir else folders.roots(arguments.demo).results


def plan(arguments: argparse.Namespace, training: Sequence[str]) -> dict[int, list[Step]]:
    """The steps for each prompt version.

    Raises:
        InputError: a checkpoint is missing and ``--no_train`` is set.
    """
    data = ["--data_root", arguments.data_root] if arguments.data_root else []
    common = [*(["--demo"] if arguments.demo else []), "--device", arguments.device, *data]
    results = ["--results_dir", str(results_folder(arguments))]
    steps: dict[int, list[Step]] = {}
    for version in arguments.prompt_versions:
        folder = checkpoint_folder(arguments, version)
        prompt = ["--prompt_version", str(version)]
        steps[version] = []
        if not (folder / CONFIG_FILE).is_file():
            if arguments.no_train:
                raise errors.InputError(f"{folders.shown(folder)} is not a checkpoint", "Leave out --no_train to train it")
            launch = [sys.executable, "-m", "saiqa.training.launcher", *common, *prompt, "--output_dir", str(folder)]
            steps[version].append(Step(f"training with prompt {version}", [*launch, *training]))
        infer = [sys.executable, "-m", "saiqa", "infer", *common, *prompt, "--model_path", str(folder), *results]
        steps[version].append(Step(f"scoring with prompt {version}", [*infer, *(["--resume"] if arguments.resume else [])]))
        pool = [sys.executable, "-m", "saiqa", "evaluate", *prompt, *results, "--full", "--json"]
        steps[version].append(Step(f"evaluating prompt {version}", pool, figures=True))
    return steps


def run_step(step: Step, output: console.Output) -> list[dict]:
    """Run a step; returns the lines of its evaluation, if it is one. Raises ``Failed`` with the step's exit code."""
    output.note(step.purpose)
    done = subprocess.run(step.command, stdout=subprocess.PIPE if step.figures else sys.stderr, text=True)
    if done.returncode != 0:
        raise errors.Failed(f"{step.purpose} ended with exit code {done.returncode}", "Its own message is above")
    return json.loads(done.stdout)["evaluation"] if step.figures else []


def tabulate(evaluations: dict[int, list[dict]]) -> list[dict]:
    """One row per prompt and dimension, with ``COLUMNS``; per-generator lines are left out."""
    rows = []
    for version, evaluation in evaluations.items():
        for found in (line for line in evaluation if line["generator"] is None):
            row = {"prompt": version, "dimension": found["dimension"], "n": found.get("n")}
            for name in FIGURES:
                low, high = found.get("intervals", {}).get(name, (None, None))
                row |= {name: found.get(name), f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
    return rows


def markdown(rows: Sequence[dict]) -> list[str]:
    """The table with one column per prompt."""
    versions = list(dict.fromkeys(row["prompt"] for row in rows))
    cells = {(row["prompt"], row["dimension"]): row for row in rows}
    lines = []
    for dimension in dict.fromkeys(row["dimension"] for row in rows):
        count = cells[versions[0], dimension]["n"]
        for name, title in FIGURES.items():
            line = [dimension, tables.NO_FIGURE if count is None else str(count), title]
            for version in versions:
                row = cells[version, dimension]
                interval = None if row[f"{name}_low"] is None else (row[f"{name}_low"], row[f"{name}_high"])
                line.append(tables.figure(row[name], interval))
            lines.append(line)
    header = ["dimension", "n", "", *(f"prompt {version}" for version in versions)]
    return tables.lines(tables.MARKDOWN, header, lines, [NOTE], labels=3)


def write(rows: Sequence[dict], folder: Path) -> tuple[Path, Path]:
    """Write ablation.md and ablation.csv, each completely or not at all; returns their paths."""
    text, table = folder / "ablation.md", folder / "ablation.csv"
    with text_files.atomic_writer(text) as file:
        file.write("\n".join(markdown(rows)) + "\n")
    cells = ({name: "" if row[name] is None else str(row[name]) for name in COLUMNS} for row in rows)
    csv_files.write_csv(table, COLUMNS, cells)
    return text, table


def main(argv: Sequence[str] | None = None) -> None:
    arguments, training = parser().parse_known_args(argv)
    output = console.Output()
    steps = plan(arguments, training)
    if arguments.dry_run:
        for step in (step for version in steps.values() for step in version):
            output.result(shlex.join(step.command))
        return
    evaluations = {}
    for version, todo in steps.items():
        for step in todo:
            evaluations[version] = run_step(step, output)
    rows = tabulate(evaluations)
    text, table = write(rows, results_folder(arguments))
    for line in markdown(rows):
        output.result(line)
    output.note(f"{folders.shown(text)}, {folders.shown(table)}")


if __name__ == "__main__":
    sys.argv[0] = PROGRAM
    sys.exit(console.run(main))
