"""Image ids that occur more than once, or are the same number written in two ways. Pure: standard library only."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

Id = TypeVar("Id", bound=Hashable)  # an id, or an id with its dimension

_SHOWN = 5


def numbered(ids: Iterable[Id]) -> Iterator[tuple[Id, int]]:
    """Each id with the number of its earlier occurrences, from 0: this distinguishes rows with the same id."""
    before: Counter[Id] = Counter()
    for image_id in ids:
        yield image_id, before[image_id]
        before[image_id] += 1


def twins(ids: Iterable[str]) -> list[str]:
    """The ids that occur more than once, each listed once."""
    return [image_id for image_id, count in Counter(ids).items() if count > 1]


def same_number(ids: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """The ids that are missing among the others except for leading zeros: ``12`` -> ``0012``.

    Only ids of ASCII digits are numbers, and only unambiguous ones are returned: on each side exactly one id has the number.
    """
    ids, others = set(ids), set(others)
    if not any(map(_is_number, ids - others)) or not any(map(_is_number, others - ids)):
        return {}
    of_ids, of_others = _by_number(ids), _by_number(others)
    pairs = ((of_ids[number], of_others[number]) for number in of_ids.keys() & of_others.keys())
    return {one[0]: other[0] for one, other in pairs if len(one) == len(other) == 1 and one != other}


def _by_number(ids: Iterable[str]) -> dict[str, list[str]]:
    """Number, as its digits without leading zeros -> the ids with that number."""
    found: dict[str, list[str]] = defaultdict(list)
    for image_id in filter(_is_number, ids):
        found[image_id.lstrip("0")].append(image_id)
    return found


def _is_number(image_id: str) -> bool:
    return image_id.isascii() and image_id.isdigit()


def few(ids: Iterable[str], count: int) -> str:
    """The first few of ``count`` ids, for a message: ``a, b, c, d, e and 3 more``."""
    more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
    return ", ".join(itertools.islice(ids, _SHOWN)) + more
