"""Scores of pictures of rooms: ``from saiqa import Scorer``. Importing this package loads nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saiqa.scorer import ImageScore, Scorer

__all__ = ["ImageScore", "Scorer"]


def __getattr__(name: str):
    if name in __all__:
        from saiqa import scorer

        return getattr(scorer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
