"""Errors and exit codes, flags, and the output on each stream."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import saiqa
from helpers import TOOLS, run_command
from local_progress import Progress, progress_iter
from saiqa.cli.console import ArgumentParser, Output, positive_int, run
from saiqa.errors import Failed, Incomplete, InputError, UsageError
from saiqa.files.jsonl import to_json


def raising(error: BaseException):
    def main(argv):
        raise error

    return main


@pytest.fixture
def named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/tool.py"])


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (Failed("No room", "Free some"), 1, "tool.py: error: No room. Free some\n"),
        (UsageError("two of them", "Give one"), 2, "tool.py: error: two of them. Give one\n"),
        (InputError("a.csv is empty"), 2, "tool.py: error: a.csv is empty\n"),
        (
            Incomplete("1 of 3", [("007", "broken")], "Mend it"),
            3,
            "007: broken\ntool.py: incomplete: 1 of 3. Mend it\n",
        ),
        (KeyboardInterrupt(), 130, "tool.py: interrupted\n"),
        (KeyboardInterrupt("--resume goes on"), 130, "tool.py: interrupted. --resume goes on\n"),
    ],
)
def test_errors_become_exit_codes_and_one_line(named, capsys, error, code, says):
    assert run(raising(error)) == code
    assert capsys.readouterr() == ("", says)


def test_a_good_end_is_zero(named):
    assert run(lambda argv: None) == 0


def test_an_unknown_error_keeps_its_traceback(named):
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()))


def test_an_interrupt_that_a_library_makes_its_own_error_of_is_still_one(named, capsys):
    """As numpy does if the signal arrives during its import."""

    def main(argv):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ImportError("a bad install\nof many lines") from None

    assert run(main) == 130
    assert capsys.readouterr().err == f"{Path(sys.argv[0]).name}: interrupted\n"


def test_a_variable_gives_the_traceback_of_known_errors(named, monkeypatch):
    monkeypatch.setenv("SAIQA_TRACEBACK", "1")
    with pytest.raises(InputError):
        run(raising(InputError("x")))


def test_a_reader_that_leaves_is_no_error():
    code = "import sys; from saiqa.cli.console import run\nsys.exit(run(lambda _: [print('x' * 99) for _ in range(9999)]))"
    environment = {**os.environ, "PYTHONPATH": str(TOOLS)}
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    writer.stdout.read(10)
    writer.stdout.close()
    assert writer.stderr.read() == b""
    assert writer.wait() == 1


@pytest.fixture
def flags():
    parser = ArgumentParser(description="d", examples="tool.py --big_number 3", prog="tool.py")
    parser.add_argument("--big_number", type=positive_int)
    parser.add_argument("--text")
    return parser


@pytest.mark.parametrize("typed", [["--big_number", "3"], ["--big-number", "3"], ["--big-number=3"]])
def test_hyphens_are_as_good_as_underscores(flags, typed):
    assert flags.parse_args(typed).big_number == 3


def test_values_keep_their_hyphens(flags):
    assert flags.parse_args(["--text=--big-number"]).text == "--big-number"


@pytest.mark.parametrize("typed", [["--big", "3"], ["--big_number"], ["--big_number=0"], ["--big_number=x"], ["y"]])
def test_wrong_flags_are_usage_errors(flags, typed):
    with pytest.raises(UsageError, match=r"See tool\.py --help"):
        flags.parse_args(typed)


def test_examples_end_the_help(flags):
    assert flags.format_help().endswith("examples:\n  tool.py --big_number 3\n")


def test_results_go_to_stdout_and_all_else_to_stderr(named, capsys):
    out = Output()
    out.result("PLCC: 0.500")
    out.note("n 3")
    out.warn("odd. Look")
    out.finish({"a": 1})
    assert capsys.readouterr() == ("PLCC: 0.500\n", "n 3\ntool.py: warning: odd. Look\n")


def test_json_replaces_the_results_by_one_object(named, capsys):
    out = Output(as_json=True)
    out.result("PLCC: 0.500")
    out.finish({"path": Path("a/b"), "bad": math.nan, "deep": [(1.5, math.inf)], "yes": True, "none": None})
    expected = {"path": "a/b", "bad": None, "deep": [[1.5, None]], "yes": True, "none": None}
    assert json.loads(capsys.readouterr().out) == expected


def test_numbers_of_other_libraries_stay_numbers():
    numpy = pytest.importorskip("numpy")
    assert json.loads(to_json({"a": numpy.float32(0.5), "b": numpy.int64(3)})) == {"a": 0.5, "b": 3}


def test_progress_writes_whole_lines_where_there_is_no_terminal():
    log = io.StringIO()
    with Progress(200, "lighting", stream=log) as progress:
        for _ in range(200):
            progress.advance()
    lines = log.getvalue().splitlines()
    assert 10 <= len(lines) <= 11
    assert lines[-1].startswith("lighting: 200/200 (100%)")
    assert "\r" not in log.getvalue()


def test_an_unknown_flag_is_one_line_and_exit_code_2():
    ran = run_command("infer.py", "--no_such_flag")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith("infer.py: error: unrecognized arguments: --no_such_flag. See infer.py --help")


def test_the_names_that_scripts_around_the_release_import(capsys):
    import prompt_configs

    assert prompt_configs.SUBSET_MAP == {"distortion": "2k", "harmony": "7k", "layout": "6k", "lighting": "3k"}
    assert list(progress_iter(range(40), desc="lighting")) == list(range(40))
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("lighting: 40/40 (100%)") and "\r" not in err
    assert list(progress_iter(iter("ab"))) == ["a", "b"] and capsys.readouterr().err == ""
    assert list(progress_iter(iter("ab"), total=2, desc="x")) == ["a", "b"] and "x: 2/2" in capsys.readouterr().err


# ---- a terminal ------------------------------------------------------------------------------------------------------


def on_a_terminal(*args: object) -> tuple[int, str]:
    """Run a command with both streams on one terminal: its exit code and its output."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    command = [sys.executable, str(TOOLS / str(args[0])), *map(str, args[1:])]
    written = b""
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # how a pseudo-terminal ends on Linux
            while part := os.read(ours, 65536):
                written += part
    os.close(ours)
    return process.returncode, written.decode()


def test_a_terminal_shows_a_bar_below_the_rows_and_what_is_loaded():
    code, seen = on_a_terminal("score_images.py", "--demo")
    assert code == 0 and "loading sa-iqa-prompt4" in seen
    assert re.search(r"score: +\d+%.*\d+/12 \[", seen)
    rows = [line for line in re.split(r"[\r\n]+", seen) if line.endswith(".jpg")]
    assert len(rows) == 12 and not any("score:" in row for row in rows)


@pytest.mark.slow
def test_quiet_leaves_results_alone():
    noisy, quiet = (run_command("score_images.py", "--demo", *flags) for flags in ((), ("--quiet",)))
    assert noisy.code == quiet.code == 0 and "images/s" in noisy.err
    assert quiet.err == "" and quiet.out == noisy.out
    failed = run_command("score_images.py", "--demo", "--quiet", "nowhere.jpg")
    assert failed.code == 2 and "nowhere.jpg" in failed.err


@pytest.mark.parametrize("command", ["infer.py", "score_images.py", "evaluate_correlation.py"])
def test_every_command_tells_its_version(command):
    ran = run_command(command, "--version")
    assert ran.code == 0 and ran.out == f"saiqa {saiqa.__version__}\n"


def test_who_asked_for_the_demo_is_not_sent_to_it(tmp_path):
    for flags, sent in (([], True), (["--demo"], False)):
        ran = run_command("score_images.py", "rooms", *flags, "--model_path", tmp_path / "nowhere")
        assert ran.code == 2 and ("try --demo" in ran.err) == sent
