"""Print a script for shell completion of saiqa's commands and flags."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from saiqa.cli.console import ArgumentParser, Output

SHELLS = ("bash", "zsh", "tcsh")

EXAMPLES = """
saiqa completion bash > ~/.local/share/bash-completion/completions/saiqa
saiqa completion zsh > ~/.zfunc/_saiqa
"""


def parser() -> ArgumentParser:
    """The flags of the command."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    flags.add_argument("shell", choices=SHELLS)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises ``errors.UserError``."""
    import shtab

    from saiqa.cli.main import COMMANDS, PROGRAM

    args = parser().parse_args(argv)
    whole = argparse.ArgumentParser(prog=PROGRAM)
    commands = whole.add_subparsers()
    for name, command in COMMANDS.items():
        commands.add_parser(name, parents=[command.load("parser")()], add_help=False, help=command.does)
    Output().result(shtab.complete(whole, args.shell))
