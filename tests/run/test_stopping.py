"""Runs that are stopped, killed, out of disk space, or concurrent: nothing lost, nothing left behind, a one-line message."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from helpers import SMALL_BUNDLE, TOOLS, read_jsonl

PICTURES = 100  # more than are rated and written at a time


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        source = ("ref_3.jpg", "ref_4.png", "ref_5.jpg")[number % 3]
        shutil.copy(SMALL_BUNDLE / "images" / source, folder / f"{number:03d}.jpg")
    return folder


def command(pictures, output, *flags):
    model = ["--model_path", SMALL_BUNDLE, "--device", "cpu", "--batch_size", "1"]
    return list(map(str, [sys.executable, TOOLS / "score_images.py", pictures, *model, "--output_jsonl", output, *flags]))


@pytest.fixture
def start(tmp_path):
    """Start a command with a separate temporary folder; processes still running at the end are killed."""
    running = []
    (tmp_path / "tmp").mkdir()

    def started(line, **options):
        environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "OMP_NUM_THREADS": "1"}
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(line, env=environment, **streams, **options)
        running.append(process)
        return process

    yield started
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "scores.jsonl"
    subprocess.run(command(pictures, output), check=True, capture_output=True)
    return output.read_bytes()


def left_behind(folder):
    """Temporary files of this program; a kill may also leave some of torch."""
    return [name for name in os.listdir(folder) if name.startswith("saiqa-")]


def wait_for_lines(process, log, count):
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if log.is_file() and log.read_bytes().count(b"\n") > count:
            return
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code", "word"), ((signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")))
def test_a_stopped_run_says_so_cleans_up_and_goes_on(number, code, word, pictures, whole, start, tmp_path):
    output = tmp_path / "scores.jsonl"
    process = start(command(pictures, output))
    wait_for_lines(process, tmp_path / "scores.jsonl.partial", 3)
    process.send_signal(number)
    err = process.communicate(timeout=30)[1]
    assert (process.returncode, "Traceback" in err) == (code, False)
    assert f"score_images.py: {word}. " in err and "continue with --resume" in err
    assert left_behind(tmp_path / "tmp") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.jsonl.partial", "tmp"]
    assert start(command(pictures, output, "--resume")).wait() == 0
    assert output.read_bytes() == whole


@pytest.mark.parametrize("after", (0.06, 0.1, 0.2, 0.4, 0.8, 1.5, 2.5))
def test_an_early_interrupt_is_one_line(after, pictures, start, tmp_path):
    process = start(command(pictures, tmp_path / "scores.jsonl"))
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    # Before Python has started, the signal ends the process, which a shell also reports as 130.
    assert process.returncode in (130, -signal.SIGINT) and "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("lines", range(0, PICTURES, 25))
def test_a_killed_run_leaves_its_lines_and_nothing_else(lines, pictures, whole, start, tmp_path):
    output = tmp_path / "scores.jsonl"
    process = start(command(pictures, output))
    wait_for_lines(process, tmp_path / "scores.jsonl.partial", lines)
    process.kill()
    process.wait()
    assert not list(tmp_path.glob("**/*.tmp"))
    resumed = start(command(pictures, output, "--resume"))
    assert resumed.wait() == 0, resumed.stderr.read()
    assert output.read_bytes() == whole
    assert left_behind(tmp_path / "tmp") == []
    assert {path.name for path in tmp_path.iterdir()} == {"scores.jsonl", "scores.run.json", "tmp"}


def test_two_runs_never_share_a_result(pictures, whole, start, tmp_path):
    output = tmp_path / "scores.jsonl"
    first = start(command(pictures, output))
    wait_for_lines(first, tmp_path / "scores.jsonl.partial", 1)
    first.send_signal(signal.SIGSTOP)
    second = start(command(pictures, output, "--resume"))
    err = second.communicate(timeout=60)[1]
    assert second.returncode == 1
    assert f"is being written by process {first.pid}, " in err and "score_images.py" in err
    first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    assert output.read_bytes() == whole


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on_elsewhere(pictures, start, tmp_path):
    """A file size limit simulates a full disk: both fail in the middle of a write."""
    output = tmp_path / "scores.jsonl"
    limit = (
        "import resource, signal, sys, runpy; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); sys.argv = sys.argv[1:]; "
        "sys.path.insert(0, sys.argv[0].rpartition('/')[0]); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    python, *rest = command(pictures, output)
    process = start([python, "-c", limit, *rest])
    err = process.communicate(timeout=60)[1]
    assert (process.returncode, "Traceback" in err) == (1, False)
    assert "error: cannot write" in err and "File too large" in err
    assert start(command(pictures, output, "--resume")).wait() == 0
    assert len(read_jsonl(output)) == PICTURES


@pytest.mark.slow
def test_a_fifo_is_passed_over_and_never_waited_for(pictures, start, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(pictures, folder)
    os.mkfifo(folder / "fifo.jpg")
    process = start(command(folder, tmp_path / "scores.jsonl"))
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and "1 no regular file" in err
    named = start(command(folder / "fifo.jpg", tmp_path / "other.jsonl"))
    assert "is not a regular file" in named.communicate(timeout=60)[1]
    assert named.returncode == 3
