"""A command's output streams, flags and exit codes.

stdout carries only results; notes, warnings, errors and progress go to stderr. An expected error is one line,
``infer.py: error: what. what to do``; an unexpected one keeps its traceback.
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

# The system's error codes for a wrong path.
_OF_INPUT = (errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_LONGEST_LINE = 500  # characters of an error

# Control characters, bidirectional formatting characters, and lone surrogates.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


# ---- running a command -----------------------------------------------------------------------------------------------


def run(main: Callable[[Sequence[str] | None], object], argv: Sequence[str] | None = None) -> int:
    """Call ``main(argv)`` and turn its exceptions into exit codes: ``sys.exit(run(main))``.

    A ``KeyboardInterrupt`` may carry a hint as its message; SIGTERM and SIGHUP end a command as Ctrl-C does.
    With ``SAIQA_TRACEBACK=1`` expected errors keep their traceback.
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
            # The reader (head, less) has gone. Python flushes stdout once more at exit, so it must still be open.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except (OSError, MemoryError, RecursionError, UnicodeError) as error:
            # System errors (a full disk, an unreadable folder) can come from any line.
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
    """Print one line to stderr, whatever the length and content of the text."""
    line = printable(" ".join(line.splitlines()))
    cut = line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 200]} [...] {line[-190:]}"
    with suppress(OSError):  # stderr may be full or closed; the exit code remains
        print(cut, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """A text for a terminal: control characters, which file names may contain, are escaped."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def _said_stopped(program: str, hint: str) -> int:
    terminated = stopped_by() not in (None, signal.SIGINT)
    _say(f"{program}: {'terminated' if terminated else 'interrupted'}{f'. {hint}' if hint else ''}")
    return TERMINATED if terminated else INTERRUPTED


def _flush_quietly() -> None:
    """Flush stdout, so that earlier results precede the error if both streams go to one file."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---- flags -----------------------------------------------------------------------------------------------------------


class ArgumentParser(argparse.ArgumentParser):
    """argparse with underscored flags that may be typed with hyphens, no abbreviations, and examples after the flags.

    Args:
        description: what the command does.
        examples: real commands, one per line.
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
    """Add the flags for ``Output``; ``add`` is an ``add_argument``."""
    add("--json", action="store_true", help="print one JSON object to stdout")
    add("--quiet", action="store_true", help="print only results, warnings and errors: no notes, no progress")


def positive_int(text: str) -> int:
    """A whole number of at least 1, as an argparse type."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def floor(text: str) -> tuple[str, float]:
    """``layout=3`` as (column, minimum), as an argparse type."""
    column, _, minimum = text.rpartition("=")
    with suppress(ValueError):
        if column and math.isfinite(float(minimum)):
            return column, float(minimum)
    raise argparse.ArgumentTypeError(f"{text!r} is not of the form layout=3")


def between_0_and_1(text: str) -> float:
    """A probability, as an argparse type."""
    with suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")


def names_of(text: str) -> list[str]:
    """Comma-separated names, as an argparse type."""
    return [name.strip() for name in text.split(",") if name.strip()]


# ---- output ----------------------------------------------------------------------------------------------------------


class Output:
    """The two streams of a command.

    Args:
        as_json: print one JSON object to stdout at the end (``finish``) instead of the lines of ``result``.
        quiet: no notes, and no progress in this process.
    """

    def __init__(self, as_json: bool = False, quiet: bool = False):
        self.as_json, self.quiet = as_json, quiet
        progress.hush(quiet)
        self.program = os.path.basename(sys.argv[0])

    def result(self, line: str) -> None:
        """Print a line of results to stdout (not with ``--json``)."""
        if not self.as_json:
            print(printable(spoken(line)), flush=True)

    def note(self, line: str) -> None:
        """Print something worth knowing to stderr (not with ``--quiet``)."""
        if not self.quiet:
            print(printable(spoken(line)), file=sys.stderr, flush=True)

    def warn(self, line: str) -> None:
        """Print something probably not intended to stderr."""
        print(printable(f"{self.program}: warning: {line}"), file=sys.stderr, flush=True)

    def finish(self, payload: dict) -> None:
        """Print the JSON object to stdout (only with ``--json``)."""
        if self.as_json:
            print(to_json(payload), flush=True)

    def finish_with(self, payload: dict, name: str, values: Iterable[dict]) -> None:
        """As ``finish``, with a list under ``name`` that is written value by value and never held in memory."""
        if self.as_json:
            print(to_json(payload).removesuffix("\n}") + f",\n  {to_json(name)}: [", end="")
            for number, value in enumerate(values):
                print(",\n    " if number else "\n    ", to_json(value, indent=None), sep="", end="")
            print("\n  ]\n}", flush=True)
