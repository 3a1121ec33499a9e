"""Write docs/cli.md: what ``--help`` of every command says. ``make docs`` does it, and a test holds the page to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "cli.md"
COLUMNS = "100"  # of the terminal that is written for

HEAD = """# Every command

Made from `--help` by `python docs/make_cli.py`. With the package installed, `saiqa NAME` is the same command.
"""


def page() -> str:
    """The page: a section for each command."""
    sys.path.insert(0, str(REPOSITORY / "tools"))
    from saiqa.errors import SCRIPTS

    sections = (f"## saiqa {name}: {script}\n\n```text\n{said(script)}\n```\n" for name, script in SCRIPTS.items())
    return "\n".join([HEAD, *sections])


def said(script: str) -> str:
    """What a command says of itself."""
    start = ["bash"] if script.endswith(".sh") else [sys.executable]
    environment = {**os.environ, "COLUMNS": COLUMNS, "PYTHON": sys.executable}
    command = [*start, f"tools/{script}", "--help"]
    ran = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    return ran.stdout.rstrip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
