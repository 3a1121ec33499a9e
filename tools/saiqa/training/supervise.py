"""Runs a command and leaves none of its processes behind, however it or its parent ends.

``python -m saiqa.training.supervise PARENT COMMAND...``: torchrun gives every training process its own session, so ending only
torchrun would leave them training. Here they stay descendants: the kernel notifies this process when its parent ends, and
orphaned descendants become its children.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from saiqa.run.reaper import descendants
from saiqa.stopping import SIGNALS

_PARENT_DEATH_SIGNAL, _CHILD_SUBREAPER = 1, 36  # of prctl
_GRACE_SECONDS = 5
_LOOK_EVERY_SECONDS = 0.05


class _Ended(Exception):
    """A signal has asked this process to end."""


def start(command: Sequence[str], environment: dict[str, str], log: int) -> subprocess.Popen:
    """Start a command under supervision, with its output into the open file ``log``; end it with ``terminate``."""
    supervised = [sys.executable, "-m", "saiqa.training.supervise", str(os.getpid()), *command]
    return subprocess.Popen(
        supervised, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )


def main(parent: int, command: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    for number in SIGNALS:
        signal.signal(number, _end)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        libc.prctl(_CHILD_SUBREAPER, 1)
    try:
        if os.getppid() != parent:  # the parent ended before prctl
            return 128 + signal.SIGTERM
        return subprocess.Popen(command).wait()
    except _Ended:
        return 128 + signal.SIGTERM
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        end_all()


def _end(number: int, frame: object) -> NoReturn:
    raise _Ended


def end_all() -> None:
    """End every descendant of this process: first with SIGTERM, then with SIGKILL."""
    for number, seconds in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, 2 * _GRACE_SECONDS)):
        until = time.monotonic() + seconds
        sent: set[int] = set()
        while (left := _alive()) and time.monotonic() < until:
            for process in left - sent if number == signal.SIGTERM else left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
                sent.add(process)
            time.sleep(_LOOK_EVERY_SECONDS)


def _alive() -> set[int]:
    with contextlib.suppress(ChildProcessError):  # reap ended children, so that they no longer count as descendants
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return set(descendants(os.getpid()))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
