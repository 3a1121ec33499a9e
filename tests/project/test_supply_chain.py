"""The records of packages agree with the installed ones: lock file, SBOM, licences."""

from __future__ import annotations

import json
import re

import pytest

from helpers import REPOSITORY

PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;#\\]+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    return {found[1].lower().replace("_", "-"): found[2] for found in PIN.finditer((REPOSITORY / name).read_text())}


def test_the_lock_has_every_pin_and_a_hash_for_each_package():
    locked = pins("requirements.lock")
    assert pins("requirements.txt").items() <= locked.items()
    text = re.sub(r"(?m)^\s*#.*$", "", (REPOSITORY / "requirements.lock").read_text())
    entries = [entry for entry in re.split(r"(?m)^(?=[A-Za-z])", text) if entry.strip()]
    assert len(entries) == len(locked)
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_list_of_parts_is_of_the_lock():
    parts = json.loads((REPOSITORY / "sbom.cdx.json").read_text())
    assert parts["bomFormat"] == "CycloneDX"
    found = {part["name"].lower().replace("_", "-"): part["version"] for part in parts["components"]}
    assert found == pins("requirements.lock")


@pytest.mark.parametrize("name", ("requirements.txt", "requirements-dev.txt", "requirements-demo.txt"))
def test_every_direct_dependency_has_its_licence_in_the_notice(name):
    notice = (REPOSITORY / "NOTICE").read_text()
    for package in PIN.findall((REPOSITORY / name).read_text()):
        assert re.search(rf"(?m)^  {re.escape(package[0])}\s+\S", notice), package[0]


def test_lock_and_list_name_no_other_place_than_pypi():
    assert "://" not in (REPOSITORY / "requirements.lock").read_text()
    places = set(re.findall(r'"https?://([^/"]+)', (REPOSITORY / "sbom.cdx.json").read_text()))
    assert places <= {"pypi.org", "github.com", "cyclonedx.org"} | {place for place in places if "cyclonedx" in place}
