"""A real ``serve.py`` on a free port of this machine, for the tests and the benchmark of the service."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1] / "tools"
STOP_SECONDS = 60


@dataclass
class Served:
    """A running service."""

    url: str
    process: subprocess.Popen
    log: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


@contextlib.contextmanager
def served(log: Path, *flags: str | Path, env: dict[str, str] | None = None) -> Iterator[Served]:
    """Run ``serve.py`` with these flags until the block is left; its stderr goes to ``log``."""
    command = [sys.executable, TOOLS / "serve.py", "--port", "0", *flags]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, **(env or {})}
        )
    try:
        url = process.stdout.readline().strip()
        if not url:
            process.wait(STOP_SECONDS)
            raise RuntimeError(log.read_text())
        yield Served(url, process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
