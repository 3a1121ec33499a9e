"""Flags for the intervals around scores, shared by several commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from saiqa.calibration import CONFIDENCE
from saiqa.cli.console import between_0_and_1
from saiqa.errors import UsageError


def add_flags(add: Callable) -> None:
    """Add the flags with ``add``, the ``add_argument`` of a group."""
    add("--calibration", metavar="FILE", help="file from calibrate.py: every score gets an interval")
    add("--confidence", type=between_0_and_1, metavar="P", help="probability that an interval contains the MOS (default: 0.9)")
    add("--max_width", type=float, metavar="X", help="hide scores whose interval is wider than X points")


def options(args: argparse.Namespace) -> dict[str, Any]:
    """The values for ``results.Layout`` and ``app.Settings``."""
    return {"confidence": args.confidence or CONFIDENCE, "max_width": args.max_width}


def check(args: argparse.Namespace) -> None:
    """Raise ``UsageError`` for interval flags without a calibration."""
    if not args.calibration and (args.confidence or args.max_width is not None):
        raise UsageError("--confidence and --max_width need intervals", "Give --calibration FILE, from tools/calibrate.py")
