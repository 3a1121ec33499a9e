"""Errors that a user can do something about, their exit codes, and the names of the commands."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

FAILED, BAD_INPUT, INCOMPLETE, INTERRUPTED, TERMINATED = 1, 2, 3, 130, 143
TRACEBACK_VARIABLE = "SAIQA_TRACEBACK"

OR_DEMO = ", or try --demo"

# Command -> its script in the repository.
SCRIPTS = {
    "score": "score_images.py",
    "best": "best_of_n.py",
    "filter": "filter_images.py",
    "compare": "compare_images.py",
    "infer": "infer.py",
    "evaluate": "evaluate_correlation.py",
    "convert": "convert_csv_to_jsonl.py",
    "train": "train_sft.sh",
    "serve": "serve.py",
    "download": "download.py",
    "fuse": "fuse_scores.py",
    "calibrate": "calibrate.py",
    "audit": "audit.py",
    "explain": "explain.py",
    "ablation": "run_ablation.sh",
}
_OF_SCRIPT = {script: name for name, script in SCRIPTS.items()}
_SCRIPT = re.compile(r"(?:(?:python|bash) )?\btools/(\w+\.(?:py|sh))")
# Whether this is a clone of the repository, with its scripts beside the package.
HAS_SCRIPTS = os.path.isfile(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), SCRIPTS["score"]))


def spoken(text: str) -> str:
    """A text that names commands as scripts, adapted to this installation: ``saiqa score`` where there are no scripts or
    where the running command was called that way. The hint to try ``--demo`` is dropped where ``--demo`` was given."""
    if "--demo" in sys.argv[1:]:
        text = text.replace(OR_DEMO, "")
    if HAS_SCRIPTS and not sys.argv[0].startswith("saiqa"):
        return text
    return _SCRIPT.sub(lambda found: f"saiqa {_OF_SCRIPT[found[1]]}" if found[1] in _OF_SCRIPT else found[0], text)


class UserError(Exception):
    """An error with a remedy.

    Args:
        what: what is wrong, with file and line where they apply; no full stop at the end.
        remedy: what to do about it.
    """

    exit_code = FAILED

    def __init__(self, what: str, remedy: str = ""):
        super().__init__(what, remedy)
        self.what, self.remedy = what, remedy

    def __str__(self) -> str:
        return spoken(f"{self.what}. {self.remedy}" if self.remedy else self.what)


class Failed(UserError):
    """The work failed although the input was valid."""


def lacking(what: str, package: str | None, extra: str = "") -> Failed:
    """The error for a feature whose package is not installed; ``extra`` is the extra of this package that installs it."""
    installs = "make setup" if HAS_SCRIPTS else f"pip install 'sa-iqa{f'[{extra}]' if extra else ''}'"
    return Failed(f"{what} needs {package}, which is not installed", f"Run `{installs}`")


def first_line(error: BaseException) -> str:
    """The first line of a library's error message; the name of its class if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class UsageError(UserError):
    """Flags that are wrong or cannot be combined."""

    exit_code = BAD_INPUT


class InputError(UserError):
    """A file or folder that is missing, broken or not of the expected kind."""

    exit_code = BAD_INPUT


class Incomplete(UserError):
    """The work is finished, but some items have no result.

    Args:
        what: how many items lack which result.
        items: (item, reason) for each of them.
        remedy: what to do about it.
    """

    exit_code = INCOMPLETE

    def __init__(self, what: str, items: Sequence[tuple[str, str]], remedy: str = ""):
        super().__init__(what, remedy)
        self.items = list(items)


def wants_traceback() -> bool:
    return os.environ.get(TRACEBACK_VARIABLE, "") not in ("", "0")
