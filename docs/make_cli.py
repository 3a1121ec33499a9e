"""Write docs/cli.md: the ``--help`` of every command. ``make docs`` runs this, and a test compares the page with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "cli.md"
COLUMNS = "100"  # width of the terminal

HEAD = """# Every command

Generated from `--help` by `python docs/make_cli.py`. With the package installed, `saiqa NAME` is the same command.
"""


def page() -> str:
    """The page: a section for each command."""
    sys.path.insert(0, str(REPOSITORY / "tools"))
    from saiqa.errors import SCRIPTS

    sections = (f"## saiqa {name}: {script}\n\n```text\n{said(script)}\n```\n" for name, script in SCRIPTS.items())
    return "\n".join([HEAD, *sections])


def said(script: str) -> str:
    """The help text of a command."""
    start = ["bash"] if script.endswith(".sh") else [sys.executable]
    environment = {**os.environ, "COLUMNS": COLUMNS, "PYTHON": sys.executable}
    command = [*start, f"tools/{script}", "--help"]
    ran = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    return ran.stdout.rstrip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
