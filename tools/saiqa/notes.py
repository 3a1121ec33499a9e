"""What library code says while it works, and to whom."""

from __future__ import annotations

from typing import Protocol


class Notes(Protocol):
    """Whoever listens to a stage: the commands' ``Output``, or an object of two functions."""

    def note(self, line: str) -> None:
        """Something worth knowing."""

    def warn(self, line: str) -> None:
        """Something probably not intended."""
