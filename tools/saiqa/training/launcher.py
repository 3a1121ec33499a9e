"""The command behind ``tools/train_sft.sh``: runs all cheap checks, then starts ``swift sft`` and keeps its result.

The options of the run are one dictionary (``options``), with layers for the machine, ``--demo`` and the user's options, from
which the command line is built. Running the same command again resumes an interrupted run; when training ends, the output
folder itself is a checkpoint.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Sequence

from saiqa import errors, facts
from saiqa.cli import console
from saiqa.files import locks
from saiqa.training import runs, swift_options
from saiqa.training.options import forwarded_options
from saiqa.training.plan import VAL_SHARE, Run, make_plan
from saiqa.training.soft_labels import LOSSES

PROGRAM = "train_sft.sh"


# --- Flags -----------------------------------------------------------------------------------------------------------


def parser() -> console.ArgumentParser:
    """The flags of the command."""
    flags = console.ArgumentParser(
        description="Fine-tune a checkpoint on SA-BENCH with ms-swift and DeepSpeed ZeRO-2, as the release does.\n"
        "Options not listed here are passed to `swift sft` unchanged and override the defaults.\n"
        "Running the same command again resumes an interrupted run.",
        examples=(
            "bash tools/train_sft.sh --prompt_version 4\n"
            "bash tools/train_sft.sh --prompt_version 4 --num_train_epochs 1 --gradient_accumulation_steps 64\n"
            "bash tools/train_sft.sh --prompt_version 4 --tuner_type lora --dimensions layout lighting\n"
            "bash tools/train_sft.sh --train_jsonl mine_prompt4.jsonl --output_dir my-checkpoint\n"
            "bash tools/train_sft.sh --demo --device cpu --max_steps 10 --output_dir /tmp/small\n"
            "bash tools/train_sft.sh --demo --dry_run"
        ),
    )
    add = flags.add_argument
    add("--prompt_version", type=int, choices=facts.PROMPT_VERSIONS, help="prompt of the annotations to train on")
    add("--cuda_visible_devices", metavar="IDS", help="GPUs to use, e.g. 0,1 (default: all visible)")
    add("--master_port", type=int, metavar="P", help="port of the process group (default: MASTER_PORT, 29500 + prompt version)")
    add("--nproc_per_node", type=console.positive_int, metavar="N", help="processes (default: one per GPU, at most 4)")
    add("--model", metavar="PATH", help="checkpoint to start from (default: ./SA-IQA-model/Ovis2.5-9B)")
    add("--output_dir", metavar="PATH", help="where the checkpoint goes (default: ./SA-IQA-model/sa-iqa-prompt{N})")
    add("--overwrite", action="store_true", help="replace an existing checkpoint there, once training has succeeded")
    add("--fresh", action="store_true", help="start over instead of resuming or keeping an earlier run of the same command")
    add("--data_root", metavar="PATH", help="benchmark folder (default: ./SA-BENCH)")
    add("--dimensions", nargs="+", choices=tuple(facts.DIMENSIONS), help="train on these (default: all four)")
    add("--train_jsonl", nargs="+", metavar="FILE", help="your own question files, as written by convert_csv_to_jsonl.py")
    add("--val_jsonl", nargs="+", metavar="FILE", help="validate on these (default: the val split, or a share of train)")
    add("--val_split", type=share, default=VAL_SHARE, metavar="X", help="share of images to validate on; 0: none (0.05)")
    add("--val_on_test", action="store_true", help="let ms-swift evaluate on the test split every 10 steps, as in the release")
    add("--loss", choices=LOSSES, default="answer", help="on the whole answer (as in the release) or the rating: docs/train.md")
    add("--fit", action="store_true", help="if memory is too small, shard, offload or use LoRA until it fits")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default: auto (a GPU, or for --demo a CPU)")
    add("--demo", action="store_true", help="train the demo's small base model on the demo's rendered rooms")
    add("--dry_run", action="store_true", help="check the options, print the command, and start nothing")
    return flags


def share(text: str) -> float:
    """A number of at least 0 and below 1, as an argparse type."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0 and below 1")
    return value


# --- The command -----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    arguments, unknown = parser().parse_known_args(argv)
    output = console.Output()
    forwarded = forwarded_options(unknown, output.note)
    swift_options.check(forwarded)
    check_together(arguments)
    plan = make_plan(arguments, forwarded, output.note)
    if arguments.dry_run:
        output.result(shell_line(Run(plan, runs.new(plan.output, "", 1))))
        return
    if importlib.util.find_spec("swift") is None:
        raise errors.lacking("training", f"ms-swift (in {sys.executable})", "train")
    # One process per machine writes an output folder; if several machines share it, the first one holds the lock.
    held = plan.output if plan.nodes.rank == 0 else plan.output.with_name(f"{plan.output.name}.node{plan.nodes.rank}")
    with locks.exclusive([held]):
        from saiqa.training import job  # imports torch, so it comes after the checks of the options

        job.train(plan, arguments, forwarded.keys(), output)


def check_together(arguments: argparse.Namespace) -> None:
    """Raise ``UsageError`` for flags that contradict each other."""
    if arguments.val_on_test and (arguments.val_jsonl or arguments.train_jsonl):
        raise errors.UsageError("--val_on_test is for the benchmark's own files", "Leave out --train_jsonl and --val_jsonl")
    if arguments.train_jsonl and arguments.dimensions:
        raise errors.UsageError("--dimensions is for the benchmark's own files", "Give only the wanted files to --train_jsonl")
    if arguments.train_jsonl and not arguments.output_dir:
        raise errors.UsageError("--train_jsonl needs --output_dir", "Give a folder for the checkpoint")
    if arguments.val_jsonl and arguments.val_split != VAL_SHARE:
        raise errors.UsageError("--val_jsonl and --val_split cannot be combined", "Give one of them")


def shell_line(run: Run) -> str:
    """The run as one shell command line."""
    settings = [f"{name}={shlex.quote(value)}" for name, value in run.environment().items()]
    return " ".join([*settings, shlex.join(run.command())])


if __name__ == "__main__":
    sys.argv[0] = PROGRAM
    sys.exit(console.run(main))
