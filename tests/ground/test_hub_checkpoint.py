"""``Scorer("owner/name")``: the demo's checkpoint from a small Hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from helpers import REPOSITORY, TOOLS, run_command
from hub_server import COMMIT, Hub

CHECKPOINT = REPOSITORY / "demo" / "SA-IQA-model" / "sa-iqa-prompt4"
ROOM = REPOSITORY / "demo" / "series" / "layout"
CODE = """
import json, sys
from saiqa import Scorer
scorer = Scorer(sys.argv[1], device="cpu")
result = scorer(sys.argv[2])
print(json.dumps([str(scorer.model.checkpoint), scorer.model_name, result.scores]))
"""


@pytest.fixture(scope="module")
def room():
    return next(ROOM.glob("00_*.jpg"))


@pytest.fixture(scope="module")
def hub():
    files = {path.name: path.read_bytes() for path in CHECKPOINT.iterdir() if path.is_file()}
    code = {"modeling_x.py": b"raise SystemExit", "pytorch_model.bin": b"a pickle", ".hidden.json": b"{}", "../up.json": b"{}"}
    repositories = {
        "models/someone/rooms": {**files, **code, "other/notes.json": b"{}"},
        "models/someone/release": {f"sa-iqa-prompt4/{name}": content for name, content in {**files, **code}.items()},
        "models/someone/pickles": {"config.json": b"{}", "pytorch_model.bin": b"a pickle"},
        "models/someone/nothing": {"README.md": b"a card"},
        "models/someone/gated": files,
    }
    with Hub(repositories, gated_files={"models/someone/gated"}) as running:
        yield running


def scored(tmp_path, endpoint: str, name: str, room, **env: str):
    """Score one room with a checkpoint from the Hub, in a process with its own HF_HOME and an empty working folder."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    home = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(TOOLS)}
    line = [sys.executable, "-c", CODE, name, str(room)]
    (tmp_path / "empty").mkdir(exist_ok=True)
    return subprocess.run(
        line, cwd=tmp_path / "empty", env={**clean, **home, **env}, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
@pytest.mark.parametrize("repository", ["rooms", "release"])
def test_it_is_fetched_once_and_without_code(hub, tmp_path, room, repository):
    hub.requests.clear()
    ran = scored(tmp_path, hub.endpoint, f"someone/{repository}", room)
    assert ran.returncode == 0, ran.stderr
    folder, name, scores = json.loads(ran.stdout)
    assert (tmp_path / "hf/saiqa/someone" / repository) in [(tmp_path / folder), (tmp_path / folder).parent]
    assert name == {"rooms": "rooms", "release": "sa-iqa-prompt4"}[repository] and "files" in ran.stderr
    assert not [one for one in hub.fetched() if one.endswith((".py", ".bin", "hidden.json", "up.json", "notes.json"))]
    here = {path.name for path in (tmp_path / folder).iterdir() if path.is_file()}
    assert here == {path.name for path in CHECKPOINT.iterdir()} | {".commit"}
    assert (tmp_path / folder / ".commit").read_text().strip() == COMMIT
    local = scored(tmp_path, hub.endpoint, str(CHECKPOINT), room)
    assert json.loads(local.stdout)[2] == scores

    hub.requests.clear()
    again = scored(tmp_path, hub.endpoint, f"someone/{repository}", room, HF_HUB_OFFLINE="1")
    assert json.loads(again.stdout)[2] == scores and hub.requests == [] and again.stderr == ""


def test_a_path_that_is_there_is_a_path(hub, tmp_path, room):
    (tmp_path / "empty/someone").mkdir(parents=True)
    hub.requests.clear()
    ran = scored(tmp_path, hub.endpoint, "someone/typing-error", room)
    assert "checkpoint someone/typing-error is not there" in ran.stderr
    ran = scored(tmp_path, hub.endpoint, "SA-IQA-model/sa-iqa-prompt9", room)
    assert "checkpoint SA-IQA-model/sa-iqa-prompt9 is not there" in ran.stderr and hub.requests == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("someone/unknown", "someone/unknown is not there"),
        ("someone/pickles", "someone/pickles has no *.safetensors"),
        ("someone/nothing", "someone/nothing has no config.json"),
        ("someone/gated", "someone/gated is gated"),
    ],
)
def test_what_cannot_be_had_is_one_line(hub, tmp_path, room, name, says):
    env = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
    ran = run_command("score_images.py", room, "--model_path", name, cwd=tmp_path, env={**os.environ, **env})
    last = ran.err.strip().splitlines()[-1]
    assert ran.code == 2 and says in last and "Traceback" not in ran.err, ran.err


def test_a_hub_that_cannot_be_reached(tmp_path, room):
    ran = scored(tmp_path, "http://127.0.0.1:9", "someone/rooms", room)
    assert ran.returncode == 1 and "cannot download from http://127.0.0.1:9" in ran.stderr
