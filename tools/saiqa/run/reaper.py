"""Ends the descendants of a process once it is gone, however it ended: ``python reaper.py PID``, with a pipe from it as stdin.

Ray ends its processes when the program that started it ends, but some of its agents outlive a program that is killed.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

_LOOK_EVERY_SECONDS = 0.5
_GRACE_SECONDS = 3  # for processes that end by themselves

Started = dict[int, str]  # process id -> start time by the kernel's clock, because ids are reused


def watch_over() -> subprocess.Popen:
    """Start a process that ends this process's descendants when this process is gone."""
    import subprocess  # not at the top: --help must be fast

    return subprocess.Popen(
        [sys.executable, __file__, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that Ctrl-C does not reach it
    )


def main(process: int) -> None:
    """Record the descendants of a process until its end of the pipe is closed, then end those still running."""
    known: Started = {}
    while not select.select([sys.stdin], [], [], _LOOK_EVERY_SECONDS)[0]:
        known |= descendants(process)
    time.sleep(_GRACE_SECONDS)
    alive = _all()
    for number, started in known.items():
        if number != os.getpid() and number in alive and alive[number][1] == started:
            os.kill(number, signal.SIGKILL)


def descendants(process: int) -> Started:
    """All processes started by a process, directly or indirectly."""
    everyone, found = _all(), {process: ""}
    while more := {n: started for n, (parent, started) in everyone.items() if parent in found and n not in found}:
        found |= more
    del found[process]
    return found


def _all() -> dict[int, tuple[int, str]]:
    """Parent and start time of every process."""
    everyone = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # After the name in brackets: state, parent, ..., and as the twentieth field the start time.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        everyone[int(folder.name)] = (int(fields[1]), fields[19])
    return everyone


if __name__ == "__main__":
    main(int(sys.argv[1]))
