"""A training from checking its inputs to the checkpoint: starts a new run or resumes the matching one."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from saiqa import errors
from saiqa.cli import console
from saiqa.files import checkpoint_folders, folders
from saiqa.files.checkpoint_files import CONFIG_FILE
from saiqa.training import runs, sizes
from saiqa.training.checkpoints import CURVES_FILE
from saiqa.training.inputs import Inputs
from saiqa.training.options import as_flags
from saiqa.training.plan import Plan, Run, note_batch
from saiqa.training.work import Work


def train(plan: Plan, arguments: argparse.Namespace, given: Collection[str], output: console.Output) -> None:
    """Check the inputs, train (or resume the matching run), and keep the checkpoint."""
    inputs = Inputs.read(plan, given, output)
    plan = inputs.plan
    fits(plan, inputs, arguments, output)
    decided = plan.identity(checkpoint_folders.fingerprint(plan.base), inputs.digests)
    identity = runs.digest(decided)
    run = None if arguments.fresh else runs.find(plan.output, identity)
    folder = run or runs.new(plan.output, identity, plan.nodes.count)
    record = runs.said(folder) or new_record(plan, inputs, identity, decided)
    placed = record["takes_output"] or not arguments.overwrite
    record["takes_output"] |= arguments.overwrite
    checkpoint = plan.output if record["takes_output"] else folder
    if runs.is_finished(folder) and placed and (checkpoint / CONFIG_FILE).is_file():
        output.result(folders.shown(checkpoint))
        output.note("this training has already finished; --fresh trains again")
        return
    work = Work(Run(plan, folder), inputs, record, output)
    if not record["takes_output"]:
        output.note(f"{folders.shown(plan.output)} already holds a checkpoint; the new one goes to {folders.shown(folder)}")
    output.note(f"training {folders.shown(plan.base)} -> {folders.shown(checkpoint)}")
    if not work.run():
        output.note("this machine's part is done; the checkpoint is on the first machine")
        return
    output.result(folders.shown(checkpoint))
    output.note(f"log, curves: {folders.shown(folder / runs.LOG_FILE)}, {folders.shown(folder / CURVES_FILE)}")
    output.note(f"TensorBoard: tensorboard --logdir {folders.shown(folder / runs.TENSORBOARD_FOLDER)}")
    output.note(f"score with it: {scoring_command(checkpoint, arguments)}")


def fits(plan: Plan, inputs: Inputs, arguments: argparse.Namespace, output: console.Output) -> None:
    """Report the resources that the run takes; if memory is too small, change the options (``--fit``) or refuse."""
    shape, longest = sizes.Shape.of(plan.base), inputs.longest
    free = sizes.free_on_devices(plan.cpu, plan.processes)
    need = sizes.needs(shape, plan.options, plan.world, longest)
    if need.device > free:
        changes = sizes.choose(shape, plan.options, plan.world, longest, free)
        what = f"a process takes about {sizes.shown(need.device)} of memory, but only {sizes.shown(free)} are free"
        if changes is None:
            raise errors.InputError(what, "Nothing would fit: use more or larger GPUs")
        flags = " ".join(as_flags(changes))
        if not arguments.fit:
            raise errors.InputError(what, f"This fits: {flags}; --fit uses it")
        output.note(f"{what}: training with {flags}")
        plan.options.update(changes)
        need = sizes.needs(shape, plan.options, plan.world, longest)
    sizes.check_disk(plan.output, need)
    output.note(
        f"a process takes about {sizes.shown(need.device)} of {sizes.shown(free)}, checkpoints {sizes.shown(need.disk)} of disk"
    )
    if not plan.cpu and not arguments.demo:
        note_batch(plan, output.note)


def new_record(plan: Plan, inputs: Inputs, identity: str, decided: Mapping[str, Any]) -> dict:
    """How a checkpoint is made, for its ``training.json``: names and numbers, without local folders.

    Args:
        identity: digest of ``decided``.
        decided: everything that decides the weights (``Plan.identity``).
    """
    return {
        "identity": identity,
        "takes_output": plan.takes_output,
        "base_name": plan.base.name,
        "command": shlex.join(["train_sft.sh", *map(_without_folder, sys.argv[1:])]),
        **decided,
        "examples": {"train": len(inputs.train), "val": len(inputs.val)},
        "longest": inputs.longest,
        "prompts": inputs.prompts(),
    }


def _without_folder(token: str) -> str:
    """A command-line token; an absolute path is reduced to its file name."""
    return Path(token).name if token.startswith("/") else token


def scoring_command(checkpoint: Path, arguments: argparse.Namespace) -> str:
    """The command that scores the benchmark with a checkpoint, or pictures if it was trained on other files."""
    if arguments.train_jsonl:
        return shlex.join(["python", "tools/score_images.py", "PICTURES", "--model_path", folders.shown(checkpoint)])
    demo = ["--demo"] if arguments.demo else []
    version = ["--prompt_version", str(arguments.prompt_version)] if arguments.prompt_version else []
    return shlex.join(["python", "tools/infer.py", *demo, *version, "--model_path", folders.shown(checkpoint)])
