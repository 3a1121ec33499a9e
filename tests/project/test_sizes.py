"""Upper limits of the lines of a file and of a function, to keep both readable; the model's single file is exempt."""

from __future__ import annotations

import ast
import subprocess

from helpers import REPOSITORY

FILE_LINES, FUNCTION_LINES = 330, 40
LONGER = "tools/saiqa/model/ovis2_5.py"  # one model, one file


def sources() -> dict[str, str]:
    """Every Python file of the repository, path -> text."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return {name: (REPOSITORY / name).read_text(encoding="utf-8") for name in listed.stdout.split()}


def test_files_and_functions_are_short():
    found = sources()
    assert LONGER in found
    files = [name for name, text in found.items() if text.count("\n") > FILE_LINES and name != LONGER]
    assert not files
    functions = [
        f"{name}: {node.name}"
        for name, text in found.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES
    ]
    assert not functions
