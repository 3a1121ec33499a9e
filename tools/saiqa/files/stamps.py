"""What tells whether a picture is still the one that was rated: size and time of its file and, on request, its digest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from saiqa.files import digests
from saiqa.files.digests import text_digest
from saiqa.files.places import RemotePath, is_url

PICTURE_KEY = "picture"  # of a line: the stamp of its picture


def of(file: str | os.PathLike | RemotePath, with_digest: bool = False) -> dict | None:
    """The stamp of an image file, as it stands in a line; None behind a URL, and where the file is not there.

    Args:
        with_digest: read the whole file for its SHA-256.
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
    """The stamp of a line as two numbers, of size and time, and of the digest; 0 for what it does not have."""
    stamp = line.get(PICTURE_KEY)
    if not isinstance(stamp, Mapping):
        return 0, 0
    times = text_digest(f"{stamp.get('bytes')} {stamp.get('modified_ns')}") if "bytes" in stamp else 0
    return times, text_digest(str(stamp["sha256"])) if "sha256" in stamp else 0


def differ(kept: tuple[int, int], now: tuple[int, int]) -> bool:
    """Whether two stamps are of different pictures: by their digests where both have one, else by size and time."""
    (kept_times, kept_digest), (times, digest) = kept, now
    if kept_digest and digest:
        return kept_digest != digest
    return bool(kept_times and times and kept_times != times)
