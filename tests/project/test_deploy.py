"""What is in deploy/: lint, and that every command line in it is one that exists."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import REPOSITORY
from saiqa.cli.main import COMMANDS

DEPLOY = REPOSITORY / "deploy"
DOCKERFILES = sorted(DEPLOY.rglob("Dockerfile"))


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_dockerfiles_are_clean(file):
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    ran = subprocess.run([hadolint, "--failure-threshold", "info", file], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def test_everything_that_is_copied_exists_and_everything_that_builds_the_package_is_copied():
    kept = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all((REPOSITORY / name).exists() for name in kept)
    assert {"pyproject.toml", "setup.py", "tools", "requirements.txt", "README.md", "LICENSE", "NOTICE"} <= set(kept)


def test_torch_is_the_tested_one():
    (pinned,) = re.findall(r"^(torch==\S+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
    for file in DOCKERFILES:
        assert set(re.findall(r"\btorch==[\d.]+", file.read_text())) == {pinned}


def lines() -> list[list[str]]:
    """Every line of ``saiqa`` in deploy/, as a shell splits it."""
    found = []
    for file in DOCKERFILES:
        text = file.read_text()
        found += [json.loads(line) for line in re.findall(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)]
        found += [shlex.split(json.loads(line)[-1])[1:] for line in re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)]
    cells = json.loads((DEPLOY / "colab.ipynb").read_text())["cells"]
    source = "".join(line for cell in cells for line in cell["source"] + ["\n"])
    return found + [shlex.split(line) for line in re.findall(r"!(saiqa [^`\n]*)", source)]


def test_the_command_lines_are_understood():
    assert len(lines()) >= 4
    for _, name, *flags in lines():
        COMMANDS[name].load("parser")().parse_args(flags)


def test_the_notebook_runs():
    cells = json.loads((DEPLOY / "colab.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    program = "\n".join(part for part in code if not part.startswith(("#", "%")))
    ran = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY / "tools", capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "best: room_" in ran.stdout
