"""What a checkpoint is told before the question: its system prompt. The question itself is a record's own, see ``records``."""

from __future__ import annotations

import json
from pathlib import Path

from saiqa.console import InputError

# ms-swift leaves it in the folder of a checkpoint that it has trained, and asks the checkpoint as it says.
ARGUMENTS_FILE = "args.json"


def system_prompt(checkpoint: str | Path, given: str | None = None) -> str:
    """The system prompt to ask a checkpoint with; empty for none.

    Args:
        checkpoint: a checkpoint folder; ``system`` of its args.json is what it was trained with.
        given: what the user says instead; empty for none; None to leave it to the checkpoint.

    Raises:
        InputError: the args.json is broken.
    """
    if given is not None:
        return given
    path = Path(checkpoint) / ARGUMENTS_FILE
    if not path.is_file():
        return ""
    try:
        arguments = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(path, str(error)[:200]) from None
    system = arguments.get("system") if isinstance(arguments, dict) else arguments
    if system is not None and not isinstance(system, str):
        raise _broken(path, f"its system prompt is {str(system)[:60]}, not a text")
    return system or ""


def _broken(path: Path, why: str) -> InputError:
    return InputError(f"{path} cannot be read: {why}", "Download the checkpoint again, or give a system prompt")


def shown(system: str) -> str:
    """A system prompt for people, in one line."""
    text = " ".join(system.split())
    return repr(text if len(text) <= 80 else text[:77] + "...") if system else "none"
