"""One check of an audit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """What was checked, whether it passed, and what was found."""

    name: str
    passed: bool
    found: str
