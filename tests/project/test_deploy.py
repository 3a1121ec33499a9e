"""The files in deploy/: linting, and a check that every command line in them is valid."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from helpers import REPOSITORY
from saiqa.cli.main import COMMANDS

DEPLOY = REPOSITORY / "deploy"
NOTEBOOK = REPOSITORY / "docs" / "first-steps.ipynb"
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
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    source = "".join(line for cell in cells for line in cell["source"] + ["\n"])
    return found + [shlex.split(line) for line in re.findall(r"!(saiqa [^`\n]*)", source)]


def test_the_command_lines_are_understood():
    assert len(lines()) >= 4
    for _, name, *flags in lines():
        COMMANDS[name].load("parser")().parse_args(flags)


def test_the_notebook_runs(monkeypatch, tmp_path):
    """In a separate kernel; every cell except the one that installs the package, which is this one."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tools"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # as it is stored
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", ())]
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    said = "".join(output.get("text", "") for output in shown)
    pages = [output["data"]["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert "distortion is what pulls it down" in said and "the first is better with" in said
    before, after = map(float, re.search(r"lighting ([\d.]+), in the dark ([\d.]+)", said).groups())
    assert after < before - 1
    assert "data:image/jpeg" in pages[0] and "room_layout_test_0001" in pages[1]  # bars and thumbnail, the table
    assert any("image/png" in output.get("data", {}) for output in shown)
