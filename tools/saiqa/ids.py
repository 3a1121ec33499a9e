"""Ids of images that come more than once. Pure: standard library only."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

Id = TypeVar("Id", bound=Hashable)  # an id, or one with its dimension

_SHOWN = 5


def numbered(ids: Iterable[Id]) -> Iterator[tuple[Id, int]]:
    """Each id with the number of times that it came before, from 0: it tells the rows of one id apart."""
    before: Counter[Id] = Counter()
    for image_id in ids:
        yield image_id, before[image_id]
        before[image_id] += 1


def twins(ids: Iterable[str]) -> list[str]:
    """The ids that come more than once, each once."""
    return [image_id for image_id, count in Counter(ids).items() if count > 1]


def few(ids: Iterable[str], count: int) -> str:
    """The first few of so many, for a message: ``a, b, c, d, e and 3 more``."""
    more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
    return ", ".join(itertools.islice(ids, _SHOWN)) + more
