"""The system prompt of a checkpoint. The question itself comes from the benchmark's files."""

from __future__ import annotations

from pathlib import Path

from saiqa.files.checkpoint_files import broken, read_object

# ms-swift writes it into the folder of a checkpoint that it has trained, and reads the system prompt from it at inference.
ARGUMENTS_FILE = "args.json"


def system_prompt(checkpoint: str | Path, given: str | None = None) -> str:
    """The system prompt to use with a checkpoint; empty for none.

    Args:
        checkpoint: a checkpoint folder; ``system`` in its args.json is what it was trained with.
        given: the user's own system prompt; empty for none; None for the checkpoint's.

    Raises:
        InputError: the args.json is broken.
    """
    if given is not None:
        return given
    path = Path(checkpoint) / ARGUMENTS_FILE
    if not path.exists():
        return ""
    remedy = "Download the checkpoint again, or give a system prompt"
    system = read_object(path, remedy).get("system")
    if system is not None and not isinstance(system, str):
        raise broken(path, f"cannot be used: its system prompt is {str(system)[:60]}, not a text", remedy)
    return system or ""


def shown(system: str) -> str:
    """A system prompt as one line, for display."""
    text = " ".join(system.split())
    return repr(text if len(text) <= 80 else text[:77] + "...") if system else "none"
