"""Everything that a supervised command has started ends with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import TOOLS
from saiqa.training import supervise
from trainings import gone

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TOOLS)}
# As torchrun: a process in its own session, which reports that it runs, and one that waits for it.
WAITS = "import sys, time, pathlib; pathlib.Path(sys.argv[1], 'there').touch(); time.sleep(300)"
STARTS = f"import sys, subprocess; subprocess.run([sys.executable, '-c', {WAITS!r}, sys.argv[1]], start_new_session=True)"
SUPERVISES = (
    "import os, sys; from saiqa.training import supervise;"
    f"supervise.start([sys.executable, '-c', {STARTS!r}, sys.argv[1]], dict(os.environ), 2).wait()"
)


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path.name} does not come"
        time.sleep(0.02)


def test_the_exit_code_is_the_command_s(tmp_path):
    with open(tmp_path / "log", "w") as log:
        process = supervise.start(["bash", "-c", "echo said; exit 7"], ENVIRONMENT, log.fileno())
        assert process.wait(60) == 7
    assert (tmp_path / "log").read_text() == "said\n"


def test_what_is_ended_ends_all_that_it_has_started(tmp_path):
    with open(os.devnull, "w") as log:
        process = supervise.start([sys.executable, "-c", STARTS, str(tmp_path)], ENVIRONMENT, log.fileno())
    wait_for(tmp_path / "there")
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert gone(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_nothing_outlives_who_has_started_it(tmp_path, number):
    starter = subprocess.Popen([sys.executable, "-c", SUPERVISES, str(tmp_path)], env=ENVIRONMENT)
    wait_for(tmp_path / "there")
    starter.send_signal(number)
    assert starter.wait(60) == -number
    assert gone(tmp_path)
