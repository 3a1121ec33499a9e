#!/usr/bin/env python3
"""``saiqa explain`` as a script of the repository."""

from __future__ import annotations

import saiqa  # noqa: F401  (first: Ctrl-C is one line from here on)

# isort: split

import sys

from saiqa.cli.console import run
from saiqa.cli.explain import main

if __name__ == "__main__":
    sys.exit(run(main))
