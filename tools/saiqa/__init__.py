"""Scores for pictures of rooms: ``from saiqa import Scorer``. Importing this package loads nothing else."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saiqa.image_score import ImageScore
    from saiqa.scorer import Scorer

__all__ = ["ImageScore", "Scorer"]
__version__ = "0.2.0"


def _end_early(number: int, frame: object) -> None:
    """End a command that is still importing: there is no work to lose yet."""
    os.write(2, f"{os.path.basename(sys.argv[0])}: interrupted\n".encode())
    os._exit(128 + number)


def _is_command() -> bool:
    """Whether the process is a command: a script of ``tools/``, ``saiqa``, or ``python -m saiqa`` (still ``-m`` by now)."""
    if sys.argv and (sys.argv[0] == "-m" or os.path.basename(sys.argv[0]) == "saiqa"):
        return True
    folder = os.path.dirname(os.path.abspath(sys.argv[0])) if sys.argv else ""
    return folder == os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


# Until ``console.run`` installs its own handlers. Programs that import this package keep theirs.
if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end_early)


def __getattr__(name: str) -> type[ImageScore | Scorer]:
    if name in __all__:
        from saiqa import image_score, scorer

        return getattr(scorer if name == "Scorer" else image_score, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
