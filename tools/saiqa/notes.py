"""How library code reports what happens while it works."""

from __future__ import annotations

from typing import Protocol


class Notes(Protocol):
    """Receives a stage's messages: the commands' ``Output``, or any object with these two methods."""

    def note(self, line: str) -> None:
        """Something worth knowing."""

    def warn(self, line: str) -> None:
        """Something probably not intended."""
