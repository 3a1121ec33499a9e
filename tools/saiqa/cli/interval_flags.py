"""Flags of the intervals around scores, which several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from saiqa.calibration import CONFIDENCE
from saiqa.cli.console import between_0_and_1
from saiqa.errors import UsageError


def add_flags(add: Callable) -> None:
    """Add them with ``add``, the ``add_argument`` of a group."""
    add("--calibration", metavar="FILE", help="of calibrate.py: every score gets an interval")
    add("--confidence", type=between_0_and_1, metavar="P", help="how often an interval holds people's mean (default: 0.9)")
    add("--max_width", type=float, metavar="X", help="show no score whose interval is wider than X points")


def options(args: argparse.Namespace) -> dict[str, Any]:
    """The values, as ``results.Layout`` and ``app.Settings`` take them."""
    return {"confidence": args.confidence or CONFIDENCE, "max_width": args.max_width}


def check(args: argparse.Namespace) -> None:
    """Raise ``UsageError`` where there are flags of intervals and no calibration that they could be of."""
    if not args.calibration and (args.confidence or args.max_width is not None):
        raise UsageError("--confidence and --max_width are of intervals", "Give --calibration FILE, of tools/calibrate.py")
