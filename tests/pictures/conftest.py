"""Shared by the tests of score_images.py: a folder of pictures, and the command on the small bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import NO_ANNOTATIONS, SMALL_BUNDLE, Ran, paint


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four pictures, two of them with the same name, among other files."""
    root = tmp_path / "renders"
    for seed, name in enumerate(("b/room.png", "a/room.png", "a/deep/007.jpg", "z.webp")):
        paint(root / name, seed)
    paint(root / ".hidden" / "x.png")
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture
def score(run_main, tmp_path):
    """Run the command on the small bundle, without annotations."""

    def run(*args: str | Path) -> Ran:
        flags = ["--model_path", SMALL_BUNDLE, "--data_root", NO_ANNOTATIONS, "--device", "cpu"]
        return run_main("score_images.py", *args, *flags)

    return run
