"""Stamps that tell whether a picture is still the one that was rated: file size and time and, on request, a digest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from saiqa.files import digests
from saiqa.files.digests import text_digest
from saiqa.files.places import RemotePath, is_url

PICTURE_KEY = "picture"  # of a line: the stamp of its picture


def of(file: str | os.PathLike | RemotePath, with_digest: bool = False) -> dict | None:
    """The stamp of an image file, as lines store it; None for a URL or a missing file.

    Args:
        with_digest: add the SHA-256 of the file, which reads all of it.
    """
    if isinstance(file, RemotePath) or (isinstance(file, str) and is_url(file)):
        return None
    try:
        status = os.stat(file)
        stamp = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}
        return stamp | {"sha256": digests.of_file(Path(file))} if with_digest else stamp
    except (OSError, ValueError):
        return None


def numbers(line: Mapping) -> tuple[int, int]:
    """The stamp of a line as two numbers, one for size and time and one for the digest; 0 for a missing one."""
    stamp = line.get(PICTURE_KEY)
    if not isinstance(stamp, Mapping):
        return 0, 0
    times = text_digest(f"{stamp.get('bytes')} {stamp.get('modified_ns')}") if "bytes" in stamp else 0
    return times, text_digest(str(stamp["sha256"])) if "sha256" in stamp else 0


def differ(kept: tuple[int, int], now: tuple[int, int]) -> bool:
    """Whether two stamps belong to different pictures: by digest if both have one, else by size and time."""
    (kept_times, kept_digest), (times, digest) = kept, now
    if kept_digest and digest:
        return kept_digest != digest
    return bool(kept_times and times and kept_times != times)
