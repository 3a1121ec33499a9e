"""The flags of serve.py: where a token comes from, and mistakes, reported before a model is loaded."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from helpers import REPOSITORY, run_command
from saiqa.errors import InputError


def test_the_token_may_come_from_the_environment(monkeypatch):
    from saiqa.cli import serve

    monkeypatch.setenv("SAIQA_TOKEN", " secret-2\n")
    assert serve.read_token(None) == "secret-2"
    monkeypatch.delenv("SAIQA_TOKEN")
    assert serve.read_token(None) is None


@pytest.mark.parametrize("token", ["", "two words", "späť"])
def test_a_token_that_clients_could_not_send_is_refused(monkeypatch, token):
    from saiqa.cli import serve

    monkeypatch.setenv("SAIQA_TOKEN", token)
    with pytest.raises(InputError, match="SAIQA_TOKEN"):
        serve.read_token(None)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "70000"], "not a port"),
        (["--model_path", "nowhere"], "checkpoint nowhere"),
        (["--token_file", "nowhere"], "--token_file nowhere"),
        (["--max_images", "9", "--max_queue", "8"], "--max_queue"),
        (["--host", "192.0.2.1"], "cannot listen"),
        (["--host", "no.such.host.invalid"], "cannot listen"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(flags, said, tmp_path):
    ran = run_command("serve.py", "--port", "0", *flags, cwd=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err and len(ran.err.strip().splitlines()) == 1


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = run_command("serve.py", "--demo", "--port", taken.getsockname()[1])
    assert ran.code == 2 and "cannot listen" in ran.err


def test_a_service_that_others_reach_needs_a_token_or_a_word(run_main):
    ran = run_main("serve.py", "--demo", "--host", "0.0.0.0", "--port", "0")
    assert ran.code == 2 and "--no_token" in ran.err


@pytest.mark.parametrize("name", ("example.org", "https://a.b/page", "https://a.b; script-src *", "'self'"))
def test_only_an_origin_may_frame(run_main, name):
    ran = run_main("serve.py", "--demo", "--allow_frame", name)
    assert ran.code == 2 and "is not an origin. Give one like https://example.org" in ran.err


def test_help_loads_no_server():
    said = "serve.parser().format_help(); print({'fastapi', 'torch', 'uvicorn'} & set(sys.modules))"
    code = f"import sys; from saiqa.cli import serve; {said}"
    ran = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY / "tools", capture_output=True, text=True)
    assert ran.stdout.strip() == "set()", ran.stderr
