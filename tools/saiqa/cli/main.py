"""``saiqa COMMAND``: every command under one name, with the flags that its script in the repository has."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from saiqa import __version__
from saiqa.console import SCRIPTS, ArgumentParser, UsageError, run

PROGRAM = "saiqa"
SHELLS = ("bash", "zsh", "tcsh")


@dataclass(frozen=True)
class Command:
    """A command of ``saiqa``: the module that holds it, and what it does in one line."""

    module: str
    does: str

    def load(self, name: str) -> Callable:
        """The function ``name`` of its module."""
        return getattr(importlib.import_module(self.module), name)


_WHAT = {
    "score": "score any pictures of rooms",
    "best": "keep the best of each group of scored pictures",
    "infer": "rate the test images of SA-BENCH and compare with people",
    "evaluate": "correlation of scores with people's ratings",
    "convert": "rating tables to questions and answers",
    "train": "fine-tune a checkpoint with ms-swift",
    "serve": "serve scores over HTTP, with a page for people",
    "download": "get the released checkpoint and data",
    "fuse": "one overall score from the four, fitted to preferences",
    "ablation": "compare the four prompts",
}
_ELSEWHERE = {"train": "saiqa.training.launcher", "ablation": "saiqa.training.ablation"}
COMMANDS = {name: Command(_ELSEWHERE.get(name, f"saiqa.cli.{SCRIPTS[name][:-3]}"), does) for name, does in _WHAT.items()}

EXAMPLES = """
saiqa score --demo
saiqa score room.jpg renders/ --model_path SA-IQA-model/sa-iqa-prompt4
saiqa COMMAND --help
saiqa completion bash >> ~/.bashrc
"""


def start() -> int:
    """Run the command that the command line names, under the name ``saiqa COMMAND``."""
    # Everything that names the running program, argparse, errors, warnings, takes it from here.
    typed = sys.argv[1:]
    sys.argv[0] = PROGRAM
    if typed and typed[0] in COMMANDS:
        sys.argv[0] = f"{PROGRAM} {typed[0]}"
        return run(lambda argv: COMMANDS[typed[0]].load("main")(argv), typed[1:])
    return run(main, typed)


def main(argv: Sequence[str] | None = None) -> None:
    """What ``saiqa`` does without a command: help, version, completion. Raises ``UsageError`` for anything else."""
    args = parser().parse_args(argv)
    if args.command == "completion":
        print(completion(args.shell))


def parser() -> ArgumentParser:
    """The flags of ``saiqa`` itself, and the names of the commands."""
    listed = "\n".join(f"  {name:<9} {command.does}" for name, command in COMMANDS.items())
    what = "Scores of pictures of rooms: distortion, harmony, layout, lighting and overall, from 1 to 5."
    description = f"{what}\n\ncommands:\n{listed}"
    flags = _Parser(prog=PROGRAM, description=description, examples=EXAMPLES, usage="saiqa [-h] [--version] COMMAND ...")
    flags.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = flags.add_subparsers(dest="command", metavar="COMMAND", required=True, help=argparse.SUPPRESS)
    does = {"prog": f"{PROGRAM} completion", "description": "Print the completion for a shell."}
    shells = commands.add_parser("completion", **does, examples="saiqa completion bash")
    shells.add_argument("shell", choices=SHELLS)
    return flags


class _Parser(ArgumentParser):
    def error(self, message: str):
        wanted = sys.argv[1:2]
        if wanted and not wanted[0].startswith("-") and wanted[0] != "completion":
            raise UsageError(f"{wanted[0]!r} is no command", f"One of {', '.join(COMMANDS)}; see saiqa --help")
        raise UsageError("no command is named" if not wanted else message, f"One of {', '.join(COMMANDS)}; see saiqa --help")


def completion(shell: str) -> str:
    """The text that makes a shell complete commands and flags."""
    import shtab

    whole = argparse.ArgumentParser(prog=PROGRAM)
    whole.add_argument("--version", action="store_true", help="the version")
    commands = whole.add_subparsers()
    for name, command in COMMANDS.items():
        known = command.load("parser")()
        commands.add_parser(name, parents=[known], add_help=False, help=command.does)
    commands.add_parser("completion", help="completion for a shell").add_argument("shell", choices=SHELLS)
    return shtab.complete(whole, shell)
