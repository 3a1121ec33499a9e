"""What a command says, where it says it, and the exit code it leaves.

stdout carries results and nothing else; notes, warnings, errors and progress go to stderr. An error of a known kind is
one line, ``infer.py: error: what. what to do``; an unknown one keeps its traceback.
"""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

FAILED, BAD_INPUT, INCOMPLETE, INTERRUPTED, TERMINATED = 1, 2, 3, 130, 143
# What the system says of a path that is not what it should be.
_OF_INPUT = (errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_LONGEST_LINE = 500  # characters of an error

# Control characters, what turns the direction of writing, and halves of characters.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
TRACEBACK_VARIABLE = "SAIQA_TRACEBACK"

# Command -> its script in the repository.
SCRIPTS = {
    "score": "score_images.py",
    "best": "best_of_n.py",
    "infer": "infer.py",
    "evaluate": "evaluate_correlation.py",
    "convert": "convert_csv_to_jsonl.py",
    "train": "train_sft.sh",
    "serve": "serve.py",
    "download": "download.py",
    "fuse": "fuse_scores.py",
    "ablation": "run_ablation.sh",
}
_OF_SCRIPT = {script: name for name, script in SCRIPTS.items()}
_SCRIPT = re.compile(r"(?:(?:python|bash) )?\btools/(\w+\.(?:py|sh))")
# Whether this is a clone of the repository, with its scripts beside the package.
HAS_SCRIPTS = os.path.isfile(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), SCRIPTS["score"]))


def spoken(text: str) -> str:
    """A text that names commands as scripts, with the names they have here: ``saiqa score`` where there are no scripts,
    and where the running command was called so."""
    if HAS_SCRIPTS and not sys.argv[0].startswith("saiqa"):
        return text
    return _SCRIPT.sub(lambda found: f"saiqa {_OF_SCRIPT[found[1]]}" if found[1] in _OF_SCRIPT else found[0], text)


# ---- errors a user can do something about ----------------------------------------------------------------------------


class UserError(Exception):
    """An error with a remedy.

    Args:
        what: what is wrong, naming file and line where there is one; no full stop at the end.
        remedy: what to do about it.
    """

    exit_code = FAILED

    def __init__(self, what: str, remedy: str = ""):
        super().__init__(what, remedy)
        self.what, self.remedy = what, remedy

    def __str__(self) -> str:
        return spoken(f"{self.what}. {self.remedy}" if self.remedy else self.what)


class Failed(UserError):
    """The work could not be done although the input was right."""


def lacking(what: str, package: str | None, extra: str = "") -> Failed:
    """The error for something that needs a package which is not installed; ``extra`` is the part of ours that brings it."""
    installs = "make setup" if HAS_SCRIPTS else f"pip install 'sa-iqa{f'[{extra}]' if extra else ''}'"
    return Failed(f"{what} needs {package}, which is not installed", f"Run `{installs}`")


def first_line(error: BaseException) -> str:
    """What an error of a library says first; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class UsageError(UserError):
    """Flags that are wrong or do not go together."""

    exit_code = BAD_INPUT


class InputError(UserError):
    """A file or folder that is missing, broken or not what it should be."""

    exit_code = BAD_INPUT


class Incomplete(UserError):
    """The work is finished, but some items have no result.

    Args:
        what: how many of what are without which result.
        items: (item, reason) for every one of them.
        remedy: what to do about it.
    """

    exit_code = INCOMPLETE

    def __init__(self, what: str, items: Sequence[tuple[str, str]], remedy: str = ""):
        super().__init__(what, remedy)
        self.items = list(items)


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


def wants_traceback() -> bool:
    return os.environ.get(TRACEBACK_VARIABLE, "") not in ("", "0")


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


# ---- being stopped ---------------------------------------------------------------------------------------------------

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_stopped: int | None = None  # the signal that has asked this process to end


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, SIGINT, SIGTERM and SIGHUP raise ``KeyboardInterrupt``."""
    global _stopped
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _stopped = None
    unraisable = sys.unraisablehook
    with keeping_signals():
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, _stop)
        # A KeyboardInterrupt in a destructor is lost, and Python would print where; ``check_stopped`` raises it again.
        sys.unraisablehook = lambda lost: None if issubclass(lost.exc_type, KeyboardInterrupt) else unraisable(lost)
        try:
            yield
        finally:
            sys.unraisablehook = unraisable


def _stop(number: int, frame: object) -> NoReturn:
    global _stopped
    _stopped = number
    raise KeyboardInterrupt


@contextmanager
def as_interrupt() -> Iterator[None]:
    """Libraries make errors of their own of a signal's ``KeyboardInterrupt``: numpy, while it is imported, an ImportError."""
    try:
        yield
    except Exception as error:
        if _stopped is None or wants_traceback():
            raise
        raise KeyboardInterrupt from error


def stopped_by() -> int | None:
    """The signal that has asked this process to end."""
    return _stopped


def check_stopped() -> None:
    """Raise ``KeyboardInterrupt`` where a signal has come: one that comes inside a library's callback is lost there."""
    if _stopped:
        raise KeyboardInterrupt


@contextmanager
def keeping_signals() -> Iterator[None]:
    """Within, handlers of signals may be set, which do not stay."""
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


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

    def __init__(self, *, description: str, examples: str, **options):
        super().__init__(
            description=description,
            epilog="examples:\n" + "\n".join(f"  {spoken(line)}" for line in examples.strip().splitlines()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def parse_known_args(self, args=None, namespace=None):
        typed = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._underscored(arg) for arg in typed], namespace)

    def _underscored(self, arg: str) -> str:
        flag, equals, value = arg.partition("=")
        name = "--" + flag[2:].replace("-", "_")
        return name + equals + value if flag.startswith("--") and name in self._option_string_actions else arg

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"See {self.prog} --help")


def positive_int(text: str) -> int:
    """A whole number from 1 up, as an argparse type."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return value


# ---- output ----------------------------------------------------------------------------------------------------------


class Output:
    """The two streams of a command.

    Args:
        as_json: stdout gets one JSON object at the end (``finish``) instead of the lines of ``result``.
    """

    def __init__(self, as_json: bool = False):
        self.as_json = as_json
        self.program = os.path.basename(sys.argv[0])

    def result(self, line: str) -> None:
        """A line of what was asked for, on stdout (not with ``--json``)."""
        if not self.as_json:
            print(printable(spoken(line)), flush=True)

    def note(self, line: str) -> None:
        """Something worth knowing, on stderr."""
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


def to_json(payload, indent: int | None = 2) -> str:
    """Strict JSON: paths as text, numbers that are not finite as null, numpy's numbers as numbers."""
    return json.dumps(_plain(payload), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "item"):
        return _plain(value.item())
    return value if value is None or isinstance(value, str | int | bool) else str(value)
