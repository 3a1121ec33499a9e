"""``saiqa COMMAND``: every command under one name, with the same flags as its script in the repository."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from saiqa.cli.console import ArgumentParser, run
from saiqa.errors import SCRIPTS, UsageError

PROGRAM = "saiqa"


@dataclass(frozen=True)
class Command:
    """A command of ``saiqa``: its module, and what it does in one line."""

    module: str
    does: str

    def load(self, name: str) -> Callable:
        """The function ``name`` of its module."""
        return getattr(importlib.import_module(self.module), name)


_WHAT = {
    "score": "score any pictures of rooms",
    "best": "keep the best of each group of scored pictures",
    "filter": "split scored pictures into kept and rejected, by floors",
    "compare": "the probability that one picture is better than another",
    "infer": "rate the test images of SA-BENCH and compare with people",
    "evaluate": "correlation of scores with people's ratings",
    "convert": "convert rating tables to questions and answers",
    "train": "fine-tune a checkpoint with ms-swift",
    "serve": "serve scores over HTTP, with a web page",
    "download": "download the released checkpoint and data",
    "fuse": "one overall score from the four, fitted to preferences",
    "calibrate": "fit intervals for scores to rated pictures",
    "audit": "check that a checkpoint works as a scorer",
    "explain": "show what lowers a picture's score",
    "ablation": "compare the four prompts",
    "completion": "shell completion for these commands",
}
_MODULES = {name: f"saiqa.cli.{script.removesuffix('.py')}" for name, script in SCRIPTS.items()}
_MODULES |= {"train": "saiqa.training.launcher", "ablation": "saiqa.training.ablation", "completion": "saiqa.cli.completion"}
COMMANDS = {name: Command(_MODULES[name], does) for name, does in _WHAT.items()}

EXAMPLES = """
saiqa score --demo
saiqa score room.jpg renders/ --model_path SA-IQA-model/sa-iqa-prompt4
saiqa COMMAND --help
"""


def start() -> int:
    """Run the command named on the command line, under the program name ``saiqa COMMAND``."""
    # argparse, errors and warnings take the program's name from here.
    name, *rest = sys.argv[1:] or [""]
    sys.argv[0] = f"{PROGRAM} {name}" if name in COMMANDS else PROGRAM
    if name in COMMANDS:
        return run(lambda argv: COMMANDS[name].load("main")(argv), rest)
    return run(main, sys.argv[1:])


def main(argv: Sequence[str] | None = None) -> None:
    """``saiqa`` without a command: help and version. Raises ``UsageError`` for anything else."""
    _, unknown = parser().parse_known_args(argv)
    what = f"{unknown[0]!r} is not a command" if unknown else "no command given"
    raise UsageError(what, f"One of {', '.join(COMMANDS)}; see {PROGRAM} --help")


def parser() -> ArgumentParser:
    """The flags of ``saiqa`` itself, and the names of the commands."""
    listed = "\n".join(f"  {name:<11} {command.does}" for name, command in COMMANDS.items())
    what = "Scores for pictures of rooms: distortion, harmony, layout, lighting and overall, from 1 to 5."
    usage = f"{PROGRAM} [-h] [--version] COMMAND ..."
    return ArgumentParser(description=f"{what}\n\ncommands:\n{listed}", examples=EXAMPLES, usage=usage)
