"""Temporary folders of this program. Those of a killed process are removed when the next one needs a folder."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_NAME = re.compile(r"saiqa-(\d+)-.+")


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder, removed at the end of the block."""
    _sweep(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=f"saiqa-{os.getpid()}-", ignore_cleanup_errors=True) as path:
        yield Path(path)


def _sweep(place: Path) -> None:
    """Remove the folders of this user's processes that have ended."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(place):
            found = _NAME.fullmatch(entry.name)
            if found and not is_alive(int(found[1])) and entry.stat(follow_symlinks=False).st_uid == os.getuid():
                shutil.rmtree(entry.path, ignore_errors=True)


def is_alive(process: int) -> bool:
    """Whether a process is running on this machine, whoever owns it."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
