#!/usr/bin/env python3
"""``saiqa filter`` as a script of the repository."""

from __future__ import annotations

import saiqa  # noqa: F401  (first: Ctrl-C is one line from here on)

# isort: split

import sys

from saiqa.cli.console import run
from saiqa.cli.filter_images import main

if __name__ == "__main__":
    sys.exit(run(main))
