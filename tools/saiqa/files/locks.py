"""A result is written by one process at a time: a lock that only a living process can hold."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from saiqa.errors import Failed
from saiqa.files import folders

_LONGEST = 200  # characters of a command that are shown


@contextlib.contextmanager
def exclusive(results: Iterable[Path]) -> Iterator[None]:
    """Within, no other process can write the results. The lock is a file beside each result, removed at the end.

    The kernel releases the lock when the process ends, however it ends; a leftover lock file is reused.

    Raises:
        Failed: another process holds a lock (the message says which), or a lock file cannot be written.
    """
    with contextlib.ExitStack() as held:
        for result in results:
            held.enter_context(_exclusive(result))
        yield


@contextlib.contextmanager
def _exclusive(result: Path) -> Iterator[None]:
    path = result.with_name(f".{result.name}.lock")
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    except OSError as error:
        raise Failed(f"cannot write {folders.shown(path)}: {error.strerror}", "Choose another folder") from None
    if descriptor is None:
        holder = _holder(path)
        raise Failed(f"{folders.shown(result)} is being written by {holder}", "Wait for it, end it, or give another output")
    try:
        with contextlib.suppress(OSError):  # the lock works even on a full disk
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps({"process": os.getpid(), "command": shlex.join(sys.argv)}).encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)
        with contextlib.suppress(OSError):  # a folder that is not empty stays
            for folder in made:
                folder.rmdir()


def _locked(path: Path) -> int | None:
    """A descriptor of the file, locked; None if another process holds the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed the file between the two calls.
            if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        said = json.loads(path.read_bytes())
        return f"process {said['process']}, {said['command'][:_LONGEST]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
