"""What ``tools/train_sft.sh`` does: checks everything cheap, then starts the real ``swift sft`` and keeps its result.

The options of the run are one dictionary (``options``); what the machine, ``--demo`` and the user say is laid over it, and the
command is written from it. The same command goes on with a run that was ended; when training ends, the output folder itself is
a checkpoint.
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
        "Options that are not listed here go to `swift sft` as they are and win over the defaults.\n"
        "The same command goes on with a run that was ended before its time.",
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
    add("--cuda_visible_devices", metavar="IDS", help="GPUs to use, e.g. 0,1 (default: all that are visible)")
    add("--master_port", type=int, metavar="P", help="port of the process group (default: MASTER_PORT, 29500 + prompt version)")
    add("--nproc_per_node", type=console.positive_int, metavar="N", help="processes (default: one per GPU, 4 at most)")
    add("--model", metavar="PATH", help="checkpoint to start from (default: ./SA-IQA-model/Ovis2.5-9B)")
    add("--output_dir", metavar="PATH", help="where the checkpoint goes (default: ./SA-IQA-model/sa-iqa-prompt{N})")
    add("--overwrite", action="store_true", help="replace the checkpoint in it, when training has ended well")
    add("--fresh", action="store_true", help="start over where the same command was ended, or has ended")
    add("--data_root", metavar="PATH", help="benchmark folder (default: ./SA-BENCH)")
    add("--dimensions", nargs="+", choices=tuple(facts.DIMENSIONS), help="train on these (default: all four)")
    add("--train_jsonl", nargs="+", metavar="FILE", help="question files of your own, as convert_csv_to_jsonl.py makes them")
    add("--val_jsonl", nargs="+", metavar="FILE", help="validate on these (default: the val split, or a part of train)")
    add("--val_split", type=share, default=VAL_SHARE, metavar="X", help="part of the images to validate on; 0: none (0.05)")
    add("--val_on_test", action="store_true", help="let ms-swift evaluate on the test split every 10 steps, as the release")
    add("--loss", choices=LOSSES, default="answer", help="on the whole answer as the release, or on the rating (docs/train.md)")
    add("--fit", action="store_true", help="where memory does not suffice, shard, offload or adapt (LoRA) until it does")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default: auto (a GPU, or for --demo a CPU)")
    add("--demo", action="store_true", help="train the demo's small base model on the demo's rendered rooms")
    add("--dry_run", action="store_true", help="check everything, print the command and start nothing")
    return flags


def share(text: str) -> float:
    """A number from 0 to below 1, as an argparse type."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below 1")
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
    # One process a machine writes an output folder; on several with a shared one, the first holds the lock.
    held = plan.output if plan.nodes.rank == 0 else plan.output.with_name(f"{plan.output.name}.node{plan.nodes.rank}")
    with locks.exclusive([held]):
        from saiqa.training import job  # loads torch, which a mistyped option need not wait for

        job.train(plan, arguments, forwarded.keys(), output)


def check_together(arguments: argparse.Namespace) -> None:
    """Refuse flags that contradict each other. Raises ``UsageError``."""
    if arguments.val_on_test and (arguments.val_jsonl or arguments.train_jsonl):
        raise errors.UsageError("--val_on_test is for the benchmark's own files", "Leave --train_jsonl and --val_jsonl out")
    if arguments.train_jsonl and arguments.dimensions:
        raise errors.UsageError("--dimensions is for the benchmark's own files", "Give the files wanted to --train_jsonl")
    if arguments.train_jsonl and not arguments.output_dir:
        raise errors.UsageError("--train_jsonl needs --output_dir", "Say where the checkpoint goes")
    if arguments.val_jsonl and arguments.val_split != VAL_SHARE:
        raise errors.UsageError("--val_jsonl and --val_split exclude each other", "Give one of them")


def shell_line(run: Run) -> str:
    """The run as one line for a shell."""
    settings = [f"{name}={shlex.quote(value)}" for name, value in run.environment().items()]
    return " ".join([*settings, shlex.join(run.command())])


if __name__ == "__main__":
    sys.argv[0] = PROGRAM
    sys.exit(console.run(main))
