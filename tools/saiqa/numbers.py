"""What counts as a number in files of others."""

from __future__ import annotations

import sys


def is_finite(value: object) -> bool:
    """Whether a value of JSON is a finite number that a float can hold; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
