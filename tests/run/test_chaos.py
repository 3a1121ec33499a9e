"""A part of ``make chaos``: runs that are killed and resumed give the result of an undisturbed run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers import REPOSITORY

KILLS = 6


@pytest.mark.slow
def test_killed_runs_go_on_to_the_same_result(request):
    line = [sys.executable, REPOSITORY / "tests" / "chaos.py", "--kills", str(KILLS), "--seed", "7"]
    ran = subprocess.run(list(map(str, line)), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert f"{KILLS} kills" in ran.stdout and "0 wrong" in ran.stdout
    request.config.pluginmanager.get_plugin("terminalreporter").write_line("\n" + ran.stdout.strip())
