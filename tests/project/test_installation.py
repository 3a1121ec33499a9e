"""``pip install -e .`` as in the README, in a fresh environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from helpers import REPOSITORY, SMALL_BUNDLE


@pytest.fixture
def environment(tmp_path) -> Path:
    """The interpreter of a new environment that sees the packages of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    [packages] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "of_the_tests.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return tmp_path / "venv" / "bin" / "python"


@pytest.fixture
def sources(tmp_path) -> Path:
    """A copy of the sources: building leaves files in them."""
    root = tmp_path / "sources"
    shutil.copytree(REPOSITORY / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, root)
    return root


@pytest.mark.slow
def test_an_editable_installation_is_importable_from_anywhere(environment, sources, tmp_path):
    pip = [sys.executable, "-m", "pip", "--python", environment, "install", "--quiet", "--no-deps", "-e", sources]
    installed = subprocess.run(list(map(str, pip)), capture_output=True, text=True)
    if "Could not find a version" in installed.stderr:
        pytest.skip("no package index here to get setuptools from")
    assert installed.returncode == 0, installed.stderr
    code = f"""
import saiqa
from saiqa import Scorer
print(saiqa.__file__)
print(Scorer({str(SMALL_BUNDLE)!r}, device="cpu", data_root=".").score([b""])[0].error)
"""
    ran = subprocess.run([environment, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        str(sources / "tools" / "saiqa" / "__init__.py"),
        "cannot read the image: this is not a JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC file",
    ]
