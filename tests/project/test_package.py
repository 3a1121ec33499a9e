"""The wheel: actually built, installed into a separate folder, and used from an empty one without access to a clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from helpers import REPOSITORY
from saiqa import facts
from saiqa.cli.completion import SHELLS
from saiqa.cli.main import COMMANDS

MOST_BYTES = 10_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("tools", "demo/SA-IQA-model", "demo/SA-BENCH"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(REPOSITORY / name, source)
    for file in (REPOSITORY / "demo").glob("reference.*"):
        shutil.copy(file, source / "demo")
    line = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run(line, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Run the installed ``saiqa`` in an empty folder; the libraries under it are those of the tests."""
    target, empty = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("empty")
    line = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel]
    subprocess.run(line, check=True, capture_output=True)

    def run(*line, **variables):
        environment = {**os.environ, "PYTHONPATH": str(target), **variables}
        return subprocess.run(list(map(str, line)), cwd=empty, env=environment, capture_output=True, text=True, timeout=300)

    run.target, run.saiqa = target, target / "bin" / "saiqa"
    return run


def test_what_is_in_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.stat().st_size < MOST_BYTES
    assert {name.split("/")[0].split("-")[0] for name in names} == {"saiqa", "sa_iqa"}  # no module outside the package
    assert sum(name.endswith(".jpg") for name in names) == 12
    kept = [path for kind in ("*.j2", "*.css", "*.html", "*.js") for path in (REPOSITORY / "tools/saiqa").rglob(kind)]
    assert {str(path.relative_to(REPOSITORY / "tools")) for path in kept} <= set(names)
    demo = ("SA-IQA-model/sa-iqa-prompt4/model.safetensors", "reference.csv", "reference.run.json")
    assert {"saiqa/service/page/index.html", *(f"saiqa/demo/{name}" for name in demo)} <= set(names)


def test_its_description_is_one_that_pypi_takes(wheel):
    ran = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def test_the_demo_without_a_clone(installed, run_main):
    ran = installed(installed.saiqa, "score", "--demo", "--json", "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    scored = json.loads(ran.stdout)["images"]
    assert len(scored) == 12
    here = run_main("score_images.py", "--demo", "--json", "--device", "cpu")
    for away, close in zip(scored, json.loads(here.out)["images"], strict=True):
        assert os.path.basename(away["images"][0]) == os.path.basename(close["images"][0])
        assert away["scores"] == pytest.approx(close["scores"], abs=1e-5)


def test_the_library_without_a_clone(installed):
    code = """
from saiqa import Scorer
from saiqa.files.folders import demo_rooms
(room, *_) = Scorer(demo=True, device="cpu").score(demo_rooms())
print(*room.scores)
"""
    ran = installed(sys.executable, "-c", code)
    assert ran.returncode == 0 and ran.stdout.split() == list(facts.DIMENSIONS), ran.stderr


def test_results_go_to_the_working_directory_or_to_saiqa_home(installed, tmp_path):
    flags = ("infer", "--demo", "--dimension", "lighting", "--device", "cpu")
    ran = installed(installed.saiqa, *flags, SAIQA_HOME=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert len(list((tmp_path / "results/demo").glob("lighting_*.csv"))) == 1
    ran = installed(installed.saiqa, "score", "nothing.jpg", SAIQA_HOME=tmp_path)
    assert ran.returncode == 2 and f"`saiqa download model annotations` in {tmp_path}" in ran.stderr


@pytest.mark.parametrize("line", ([], ["-m", "saiqa"]))
def test_every_command_has_its_name(installed, line):
    saiqa = [sys.executable, *line] if line else [installed.saiqa]
    ran = installed(*saiqa, "--help")
    assert ran.returncode == 0 and all(f"\n  {name} " in ran.stdout for name in COMMANDS)
    assert installed(*saiqa, "--version").stdout.startswith("saiqa ")
    for name in COMMANDS:
        ran = installed(*saiqa, name, "--help")
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.startswith(f"usage: saiqa {name} ") and "tools/" not in ran.stdout


def test_mistakes_are_one_line(installed):
    for line, says in (
        (["frobnicate"], "saiqa: error: 'frobnicate' is not a command. One of score, best"),
        ([], "saiqa: error: no command given."),
        (["score"], "saiqa score: error: no pictures given. Name files, folders or lists, or try --demo"),
        (["score", "--frobnicate"], "saiqa score: error: "),
        (["completion", "fish"], "saiqa completion: error: "),
    ):
        ran = installed(installed.saiqa, *line)
        assert ran.returncode == 2 and ran.stderr.startswith(says) and ran.stderr.count("\n") == 1, ran.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_completion(installed, shell):
    ran = installed(installed.saiqa, "completion", shell)
    assert ran.returncode == 0 and "score" in ran.stdout and "output_csv" in ran.stdout
    if shell == "bash":
        words = 'COMP_WORDS=(saiqa score --output_c); COMP_CWORD=2; _shtab_saiqa saiqa --output_c score; echo "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", f"{ran.stdout}\n{words}"], capture_output=True, text=True)
        assert done.stdout.split() == ["--output_csv"], done.stderr


def test_an_interrupt_while_it_starts_is_one_line(installed):
    code = "import os, signal, sys; sys.argv[0] = 'saiqa'; import saiqa; os.kill(os.getpid(), signal.SIGINT)"
    ran = installed(sys.executable, "-c", code)
    assert (ran.returncode, ran.stderr) == (130, "saiqa: interrupted\n")
