"""Every command in the README and docs/ is run, or only parsed if it needs downloads, GPUs or minutes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import httpx
import pytest

from helpers import COMMANDS, DOCS, MANUAL, REPOSITORY, run_command
from saiqa.cli.main import COMMANDS as SAIQA_COMMANDS
from serving import served

LINES = list(dict.fromkeys(re.findall(r"^    ((?:python|bash|make|hf|pip) .*?)(?:\s+#.*)?$", MANUAL, re.M)))
PYTHON = [shlex.split(line)[1:] for line in LINES if line.startswith("python tools/")]
BENCHMARKS = [shlex.split(line)[1:] for line in LINES if line.startswith("python benchmarks/")]
BASH = [shlex.split(line)[1:] for line in LINES if line.startswith("bash ")]


SAIQA = [shlex.split(line)[1:] for line in re.findall(r"^    (saiqa .*)$", MANUAL, re.M)]
EXAMPLES = re.findall(r"^```python\n(.*?)^```", MANUAL, re.M | re.S)

# Commands whose examples build on each other: run in order, with one folder in place of /tmp.
CHAINED = ("tools/score_images.py", "tools/best_of_n.py", "tools/filter_images.py", "tools/compare_images.py")
OWN_RATINGS = [one for one in PYTHON if one[0] == "tools/evaluate_correlation.py" and "".join(one[1:2]).startswith("/tmp/")]
SERVE = "tools/serve.py"  # runs until it is stopped
ALONE = [one for one in PYTHON if one[0] not in (*CHAINED, SERVE) and one not in OWN_RATINGS]
CURLS = re.findall(r"^    ((?:curl|echo .*\| curl) .*)$", MANUAL, re.M)


def test_the_readme_shows_commands_of_every_kind():
    assert len(PYTHON) >= 8 and len(BASH) >= 3
    assert {command[0] for command in PYTHON} == {f"tools/{name}" for name in COMMANDS}


def write_preferences(folder):
    """The files named in the README's lines about weights."""
    from judgements import simulate, write

    scored, pairs = write(folder, *simulate((1, 1, 1, 1), pairs=100, tie=0.5))
    scored.rename(folder / "renders.csv")
    pairs.rename(folder / "preferences.csv")
    (folder / "weights.json").write_text('{"weights": {"distortion": 1, "harmony": 0, "layout": 0, "lighting": 0}}')


def test_the_lines_of_the_installed_command():
    """They are run from an empty folder in test_package.py."""
    assert SAIQA
    for name, *flags in SAIQA:
        assert SAIQA_COMMANDS[name].load("parser")().parse_args(flags)


@pytest.mark.slow
@pytest.mark.parametrize("command", ALONE, ids=" ".join)
def test_python_commands(command, tmp_path):
    script, *flags = command
    name = script.removeprefix("tools/")
    on_demo = any("demo" in flag for flag in flags)
    if name == "fuse_scores.py":
        write_preferences(tmp_path)
        ran = run_command(name, *flags, cwd=tmp_path)
        assert ran.code == 0, ran.err
        return
    if name == "infer.py" and "eval" in flags:
        on_demo = False  # nothing is scored there: the error must say how to
        flags += ["--results_dir", str(tmp_path)]
    elif name == "infer.py":
        if "--limit" not in flags:  # the whole demo is scored in test_demo.py
            flags.append("--dry_run")
        flags += ["--results_dir", str(tmp_path)]
    if name == "evaluate_correlation.py":
        flags += ["--results_dir", str(tmp_path)]
        on_demo = False  # nothing is scored there: the error must say how to
    if name == "calibrate.py" or "--calibration" in flags:
        on_demo = False  # run in order in test_calibration.py; here the error must say how to
    if "--output_jsonl" in flags:
        flags[flags.index("--output_jsonl") + 1] = str(tmp_path / "out.jsonl")
    ran = run_command(name, *flags, cwd=REPOSITORY, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert "Traceback" not in ran.err
    if on_demo:
        assert ran.code == 0, ran.err
    elif name == "download.py":
        assert ran.code == 1 and "HF_HUB_OFFLINE is set" in ran.err, ran.err
    elif ran.code != 0:
        assert ran.code == 2 and ("tools/download.py" in ran.err or "infer.py" in ran.err or "calibrate.py" in ran.err), ran.err


@pytest.mark.slow
def test_commands_that_build_on_each_other(tmp_path):
    chained = [command for command in PYTHON if command[0] in CHAINED and "--calibration" not in command]
    assert {command[0] for command in chained} == set(CHAINED) and OWN_RATINGS
    commands = [*chained, *OWN_RATINGS]
    for script, *flags in commands:
        flags = [flag.replace("/tmp/", f"{tmp_path}/") for flag in flags]
        ran = run_command(script.removeprefix("tools/"), *flags, cwd=REPOSITORY)
        if "--demo" in flags or str(tmp_path) in flags[0]:
            assert ran.code == 0, ran.err
        else:  # its images and the released model are not there
            assert ran.code == 2 and "is not there" in ran.err and "Traceback" not in ran.err, ran.err
    assert (tmp_path / "best").is_dir() and (tmp_path / "rooms_ranking.csv").is_file()


@pytest.mark.parametrize("example", EXAMPLES)
def test_python_examples(example):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tools")}
    command = [sys.executable, "-c", example]
    ran = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


def test_the_service_and_what_to_ask_it(tmp_path):
    """The first command is run, the flags of the others are parsed; the requests are sent unchanged, to the running service."""
    from saiqa.cli import serve

    commands = [flags for script, *flags in PYTHON if script == SERVE]
    for flags in commands:
        serve.parser().parse_args(flags)
    with served(tmp_path / "log", *commands[0]) as service:
        answers = [
            subprocess.run(
                line.replace("http://127.0.0.1:8000", service.url), shell=True, cwd=REPOSITORY, capture_output=True, text=True
            )
            for line in CURLS
        ]
        paths = httpx.get(f"{service.url}/openapi.json").json()["paths"]
        assert service.stop(signal.SIGINT) == 130
    table = (REPOSITORY / "docs" / "service.md").read_text(encoding="utf-8")
    # 500 is for unforeseen errors.
    described = {status for path in ("/score", "/explain") for status in paths[path]["post"]["responses"]}
    assert set(re.findall(r"^\| (\d{3}) \|", table, re.M)) == {*described, "500"}
    *scored, mapped, decided = [json.loads(answer.stdout) for answer in answers]
    form, some, encoded = [answer["results"] for answer in scored]
    assert decided["answers"][0]["score"] + 1 == pytest.approx(form[0]["scores"]["layout"], abs=1e-5)
    assert [result["error"] is None for result in form] == [True, False]
    assert mapped["dimension"] == "harmony" and mapped["map"] and mapped["error"] is None
    assert list(some[0]["scores"]) == ["layout", "lighting"]
    assert encoded[0]["name"] == "rooms.jpg" and encoded[0]["scores"] == pytest.approx(form[0]["scores"], abs=1e-5)


def test_the_example_of_the_python_interface():
    assert any("from saiqa import Scorer" in example for example in EXAMPLES)


@pytest.mark.parametrize("command", BENCHMARKS, ids=" ".join)
def test_benchmark_commands_are_understood(command):
    """They take minutes, or a GPU; test_benchmarks.py runs small ones."""
    ran = subprocess.run([sys.executable, *command, "--help"], cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 0 and "usage:" in ran.stdout, ran.stderr


@pytest.mark.parametrize("command", BASH, ids=" ".join)
def test_bash_commands(command):
    flags = [*command, *([] if "--dry_run" in command else ["--dry_run"])]
    ran = subprocess.run(
        ["bash", *flags], cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable}
    )
    assert "Traceback" not in ran.stderr
    assert ran.returncode == 0 if "--demo" in command else ran.returncode in (0, 2), ran.stderr


def test_make_targets_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in {shlex.split(line)[1] for line in LINES if line.startswith("make ")}:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_download_lines_are_those_of_the_facts():
    from saiqa import facts

    for folder in facts.HUB_REPOSITORIES:
        assert facts.hub_command(folder) in LINES
        assert facts.hub_command(folder) in (REPOSITORY / folder / "README.md").read_text(encoding="utf-8")
    assert all(owner in MANUAL for owner in facts.HUB_OWNERS)


def test_every_file_of_the_tree_is_there():
    tree = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("## What is where", 1)[1].split("##", 1)[0]
    for name in re.findall(r"([\w-]+\.(?:py|sh))", tree):
        assert list((REPOSITORY / "tools").rglob(name)), name
    for folder in re.findall(r"^ {8}(\w+)/", tree, re.M):
        assert (REPOSITORY / "tools" / "saiqa" / folder / "__init__.py").is_file(), folder


def test_the_architecture_names_every_file():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8").split("## Every file", 1)[1]
    named = set(re.findall(r"([\w-]+\.py)", page))
    there = {path.name for path in (REPOSITORY / "tools" / "saiqa").rglob("*.py")}
    assert named - {"prompt_configs.py", "local_progress.py"} == there


def test_the_readme_is_no_manual():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


PAGES = [*DOCS, REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "SECURITY.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays its help out otherwise in every version of Python")
def test_the_page_of_commands_is_that_of_their_help():
    sys.path.insert(0, str(REPOSITORY / "docs"))
    import make_cli

    assert (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8") == make_cli.page()
