"""Files of Debian packages without installing them: downloaded with apt-get, without root, and unpacked in a cache."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

CACHE_VARIABLE = "SAIQA_DEBIAN_CACHE"


def cache_folder() -> Path:
    """Where packages are unpacked: $SAIQA_DEBIAN_CACHE or ~/.cache/sa-iqa/debian."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "sa-iqa" / "debian")


def unpacked(package: str, pattern: str) -> Path:
    """The first file of a package that matches the pattern (relative to the root); the package is downloaded if needed."""
    folder = cache_folder() / package
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several rendering processes may need it at once
        found = sorted(folder.glob(pattern))
        if not found:
            subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
            archive = max(folder.glob(f"{package}_*.deb"))
            subprocess.run(["dpkg", "-x", archive.name, "."], cwd=folder, check=True)
            found = sorted(folder.glob(pattern))
    return found[0]
