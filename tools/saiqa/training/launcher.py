"""What ``tools/train_sft.sh`` does: checks everything cheap, then starts the real ``swift sft`` and keeps its result.

The options of the run are one dictionary (``RELEASE_OPTIONS``); what the machine, ``--demo`` and the user say is laid
over it, and the command is written from it. When training ends, the output folder itself is a checkpoint.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from saiqa import errors, facts, scoring
from saiqa.cli import console
from saiqa.files import folders, jsonl, question_files
from saiqa.files.places import Place
from saiqa.model.checkpoint_view import make_view
from saiqa.model.pixels import Preprocessing
from saiqa.training.checkpoints import install, newest_step, promote
from saiqa.training.plan import Plan, forwarded_options, make_plan

PROGRAM = "train_sft.sh"


# --- Flags -----------------------------------------------------------------------------------------------------------


def parser() -> console.ArgumentParser:
    """The flags of the command."""
    flags = console.ArgumentParser(
        description="Fine-tune a checkpoint on SA-BENCH with ms-swift and DeepSpeed ZeRO-2, as the release does.\n"
        "Options that are not listed here go to `swift sft` as they are and win over the defaults.",
        examples=(
            "bash tools/train_sft.sh --prompt_version 4\n"
            "bash tools/train_sft.sh --prompt_version 4 --num_train_epochs 1 --gradient_accumulation_steps 64\n"
            "bash tools/train_sft.sh --demo --device cpu --max_steps 10 --output_dir /tmp/small\n"
            "bash tools/train_sft.sh --demo --dry_run"
        ),
    )
    add = flags.add_argument
    add("--prompt_version", type=int, choices=facts.PROMPT_VERSIONS, help="prompt of the annotations to train on")
    add("--cuda_visible_devices", metavar="IDS", help="GPUs to use, e.g. 0,1 (default: all that are visible)")
    add("--master_port", type=int, metavar="P", help="port of the process group (default: 29500 + prompt version)")
    add("--nproc_per_node", type=console.positive_int, metavar="N", help="processes (default: one per GPU, 4 at most)")
    add("--model", metavar="PATH", help="checkpoint to start from (default: ./SA-IQA-model/Ovis2.5-9B)")
    add("--output_dir", metavar="PATH", help="where the checkpoint goes (default: ./SA-IQA-model/sa-iqa-prompt{N})")
    add("--overwrite", action="store_true", help="replace the checkpoint in it, when training has ended well")
    add("--data_root", metavar="PATH", help="benchmark folder (default: ./SA-BENCH)")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default: auto (a GPU, or for --demo a CPU)")
    add("--demo", action="store_true", help="train the demo's small base model on the demo's rendered rooms")
    add("--dry_run", action="store_true", help="check everything, print the command and start nothing")
    return flags


# --- The run ---------------------------------------------------------------------------------------------------------


def prepare_inputs(plan: Plan) -> None:
    """Fill ``plan.inputs``: a view of the base model, and the annotations with the images' full paths.

    Raises:
        InputError: a line is broken, an image is not there, or an answer rates nothing.
    """
    from saiqa.engines.loading import check_weights, load_tokenizer

    check_weights(plan.base)
    load_tokenizer(plan.base)
    Preprocessing.of_checkpoint(plan.base)
    shutil.rmtree(plan.inputs, ignore_errors=True)
    make_view(plan.base, plan.view)
    for file in (file for files in plan.data.values() for file in files):
        jsonl.write_jsonl(plan.inputs / file.name, _with_full_paths(file, plan.data_root))


def _with_full_paths(file: Place, data_root: Path) -> list[dict]:
    examples = []
    for record in question_files.read_records(file):
        image = folders.resolve_image(record.image, data_root).resolve()
        if not image.is_file():
            raise folders.missing_data(f"{folders.shown(file)} names {folders.shown(image)}, which is not there")
        if scoring.split_answer(record.response) is None:
            raise errors.InputError(f"{folders.shown(file)}: the response of {record.image} has no rating word")
        examples.append({"query": record.query, "response": record.response, "images": [str(image)]})
    return examples


def run_training(plan: Plan) -> None:
    """Start ``swift sft`` and make a checkpoint of what it saved last.

    What earlier runs have left stays as it is until this one has ended well.

    Raises:
        Failed: ``swift sft`` failed, or ended without a checkpoint.
    """
    try:
        # stdout is for results: ms-swift's log joins the other messages.
        code = subprocess.run(plan.command(), env={**os.environ, **plan.environment}, stdout=sys.stderr).returncode
        if code != 0:
            raise errors.Failed(f"swift sft ended with exit code {code}{_left(plan.run)}", "Its own message is above")
        last = newest_step(plan.run)
        if last is None:
            raise errors.Failed(f"swift sft saved no checkpoint in {plan.run}", "See its log above")
        promote(last, plan.run, plan.view)
    finally:
        shutil.rmtree(plan.inputs, ignore_errors=True)
    if plan.takes_output:
        install(plan.run, plan.output)


def _left(run: Path) -> str:
    """Where a run that failed has left checkpoints; a folder without any is removed."""
    if newest_step(run) is None:
        shutil.rmtree(run, ignore_errors=True)
        return ""
    return f"; what it saved is in {folders.shown(run)}"


def shell_line(plan: Plan) -> str:
    """The run as one line for a shell."""
    settings = [f"{name}={shlex.quote(value)}" for name, value in plan.environment.items()]
    return " ".join([*settings, shlex.join(plan.command())])


def main(argv: Sequence[str] | None = None) -> None:
    arguments, unknown = parser().parse_known_args(argv)
    output = console.Output()
    plan = make_plan(arguments, forwarded_options(unknown, output.note), output.note)
    if arguments.dry_run:
        output.result(shell_line(plan))
        return
    if importlib.util.find_spec("swift") is None:
        raise errors.lacking("training", f"ms-swift (in {sys.executable})", "train")
    prepare_inputs(plan)
    checkpoint = plan.output if plan.takes_output else plan.run
    output.note(f"training {folders.shown(plan.base)} -> {folders.shown(checkpoint)}")
    run_training(plan)
    output.result(folders.shown(checkpoint))
    output.note(f"score with it: {scoring_command(checkpoint, arguments)}")


def scoring_command(checkpoint: Path, arguments: argparse.Namespace) -> str:
    """The line that scores the benchmark with a checkpoint."""
    demo = ["--demo"] if arguments.demo else []
    version = ["--prompt_version", str(arguments.prompt_version)] if arguments.prompt_version else []
    return shlex.join(["python", "tools/infer.py", *demo, *version, "--model_path", folders.shown(checkpoint)])


if __name__ == "__main__":
    sys.argv[0] = PROGRAM
    sys.exit(console.run(main))
