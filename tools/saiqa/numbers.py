"""What counts as a number in a file from elsewhere."""

from __future__ import annotations

import sys


def is_finite(value: object) -> bool:
    """Whether a JSON value is a finite number that fits a float; true and false are not numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
