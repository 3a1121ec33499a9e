"""What a command says, where it says it, and the exit code it leaves.

stdout carries results and nothing else; notes, warnings, errors and progress go to stderr. An error of a known kind is
one line, ``infer.py: error: what. what to do``; an unknown one keeps its traceback.
"""

from __future__ import annotations

import argparse
import errno
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from saiqa import __version__, progress
from saiqa.errors import (
    FAILED,
    INTERRUPTED,
    TERMINATED,
    TRACEBACK_VARIABLE,
    Failed,
    Incomplete,
    InputError,
    UsageError,
    UserError,
    spoken,
    wants_traceback,
)
from saiqa.files.jsonl import to_json
from saiqa.stopping import as_interrupt, stoppable, stopped_by

# What the system says of a path that is not what it should be.
_OF_INPUT = (errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_LONGEST_LINE = 500  # characters of an error

# Control characters, what turns the direction of writing, and halves of characters.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


# ---- running a command -----------------------------------------------------------------------------------------------


def run(main: Callable[[Sequence[str] | None], object], argv: Sequence[str] | None = None) -> int:
    """Call ``main(argv)`` and turn what it raises into an exit code: ``sys.exit(run(main))``.

    A ``KeyboardInterrupt`` may carry a hint as its message; SIGTERM and SIGHUP end a command as Ctrl-C does.
    ``SAIQA_TRACEBACK=1`` lets known errors keep their traceback.
    """
    program = os.path.basename(sys.argv[0])
    with stoppable():
        try:
            with as_interrupt():
                main(argv)
            sys.stdout.flush()
            return _said_stopped(program, "") if stopped_by() else 0
        except UserError as error:
            _flush_quietly()
            if wants_traceback():
                raise
            _report(program, error)
            return error.exit_code
        except KeyboardInterrupt as interrupt:
            return _said_stopped(program, str(interrupt))
        except BrokenPipeError:
            # The reader (head, less) has left. Python flushes stdout once more at exit and must find something open there.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except (OSError, MemoryError, RecursionError, UnicodeError) as error:
            # What a machine refuses (a full disk, a folder that cannot be read) can come from any line.
            if wants_traceback():
                raise
            known = InputError if getattr(error, "errno", None) in _OF_INPUT else Failed
            said = known(str(error) or type(error).__name__, f"{TRACEBACK_VARIABLE}=1 shows where")
            _report(program, said)
            return said.exit_code


def _report(program: str, error: UserError) -> None:
    if isinstance(error, Incomplete):
        for item, reason in error.items:
            _say(f"{item}: {reason}")
        _say(f"{program}: incomplete: {error}")
    else:
        _say(f"{program}: error: {error}")


def _say(line: str) -> None:
    """One line on stderr, however long and full of what the text is."""
    line = printable(" ".join(line.splitlines()))
    cut = line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 200]} [...] {line[-190:]}"
    with suppress(OSError):  # stderr may be full or closed, and the exit code still tells
        print(cut, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """A text for a terminal: control characters, which a file name can hold, as escapes."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def _said_stopped(program: str, hint: str) -> int:
    terminated = stopped_by() not in (None, signal.SIGINT)
    _say(f"{program}: {'terminated' if terminated else 'interrupted'}{f'. {hint}' if hint else ''}")
    return TERMINATED if terminated else INTERRUPTED


def _flush_quietly() -> None:
    """Results said before an error come before the error where both streams go to one file."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---- flags -----------------------------------------------------------------------------------------------------------


class ArgumentParser(argparse.ArgumentParser):
    """argparse with underscored flags that may be typed with hyphens, no abbreviations, and examples after the flags.

    Args:
        description: what the command does.
        examples: real commands, one a line.
    """

    def __init__(self, *, description: str, examples: str, **options: Any):
        super().__init__(
            description=description,
            epilog="examples:\n" + "\n".join(f"  {spoken(line)}" for line in examples.strip().splitlines()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )
        self.add_argument("--version", action="version", version=f"saiqa {__version__}")

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        typed = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._underscored(arg) for arg in typed], namespace)

    def _underscored(self, arg: str) -> str:
        flag, equals, value = arg.partition("=")
        name = "--" + flag[2:].replace("-", "_")
        return name + equals + value if flag.startswith("--") and name in self._option_string_actions else arg

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"See {self.prog} --help")


def add_output(add: Callable[..., object]) -> None:
    """The flags that ``Output`` takes; ``add`` is an ``add_argument``."""
    add("--json", action="store_true", help="one JSON object on stdout")
    add("--quiet", action="store_true", help="results, warnings and errors only: no notes, no progress")


def positive_int(text: str) -> int:
    """A whole number from 1 up, as an argparse type."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return value


def floor(text: str) -> tuple[str, float]:
    """``layout=3`` as (column, minimum), an argparse type."""
    column, _, minimum = text.rpartition("=")
    with suppress(ValueError):
        if column and math.isfinite(float(minimum)):
            return column, float(minimum)
    raise argparse.ArgumentTypeError(f"{text!r} is not like layout=3")


def between_0_and_1(text: str) -> float:
    """A probability, as an argparse type."""
    with suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")


def names_of(text: str) -> list[str]:
    """Names with commas between, an argparse type."""
    return [name.strip() for name in text.split(",") if name.strip()]


# ---- output ----------------------------------------------------------------------------------------------------------


class Output:
    """The two streams of a command.

    Args:
        as_json: stdout gets one JSON object at the end (``finish``) instead of the lines of ``result``.
        quiet: no notes, and no progress in this process.
    """

    def __init__(self, as_json: bool = False, quiet: bool = False):
        self.as_json, self.quiet = as_json, quiet
        progress.hush(quiet)
        self.program = os.path.basename(sys.argv[0])

    def result(self, line: str) -> None:
        """A line of what was asked for, on stdout (not with ``--json``)."""
        if not self.as_json:
            print(printable(spoken(line)), flush=True)

    def note(self, line: str) -> None:
        """Something worth knowing, on stderr (not with ``--quiet``)."""
        if not self.quiet:
            print(printable(spoken(line)), file=sys.stderr, flush=True)

    def warn(self, line: str) -> None:
        """Something probably not intended, on stderr."""
        print(printable(f"{self.program}: warning: {line}"), file=sys.stderr, flush=True)

    def finish(self, payload: dict) -> None:
        """The one JSON object on stdout, with ``--json`` only."""
        if self.as_json:
            print(to_json(payload), flush=True)

    def finish_with(self, payload: dict, name: str, values: Iterable[dict]) -> None:
        """As ``finish``, with a list under ``name`` that is written value by value and never held."""
        if self.as_json:
            print(to_json(payload).removesuffix("\n}") + f",\n  {to_json(name)}: [", end="")
            for number, value in enumerate(values):
                print(",\n    " if number else "\n    ", to_json(value, indent=None), sep="", end="")
            print("\n  ]\n}", flush=True)
