"""Damaged or malicious checkpoints: refused in one line, before anything is loaded, and none of their code runs."""

from __future__ import annotations

import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest

from helpers import SMALL_BUNDLE
from hostile_bundles import CASES, TRAPS
from saiqa import Scorer
from saiqa.cli.console import Output
from saiqa.errors import UserError
from saiqa.training import job, plan, runs
from trainings import examples, read_inputs

LONGEST_LINE = 500
ROOM = SMALL_BUNDLE / "images" / "ref_3.jpg"
ONLY_SCORING = ("weights nan", "weights inf", "weights minus", "arguments")
NO_DATA = ("adapter_config.json", "args.json")
COUNTS = {"damaged or hostile checkpoints": 0, "requests to a hub": 0, "files of a checkpoint that ran": 0}


@pytest.fixture(scope="module", autouse=True)
def counted(request):
    yield
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    reporter.write_line("\n" + ", ".join(f"{count} {what}" for what, count in COUNTS.items()))


@pytest.fixture(scope="module", autouse=True)
def hub():
    """The hub that libraries would contact: it counts requests, and has no files."""

    class Counting(BaseHTTPRequestHandler):
        def do_GET(self):
            COUNTS["requests to a hub"] += 1
            self.send_error(404)

        do_HEAD = do_POST = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    patch = pytest.MonkeyPatch()
    patch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    patch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    patch.setenv("MODELSCOPE_DOMAIN", f"127.0.0.1:{server.server_port}")
    yield
    patch.undo()
    server.shutdown()


@pytest.fixture
def bundle(tmp_path):
    shutil.copytree(SMALL_BUNDLE, tmp_path / "bundle", ignore=shutil.ignore_patterns("images", "expected*"))
    return tmp_path / "bundle"


def by_engine(name):
    return lambda folder: Scorer(folder, engine=name, device="cpu").engine


def train(folder):
    """Everything that training does before ms-swift starts."""
    output = folder.parent / "trained"
    flags = ["--demo", "--device", "cpu", "--model", folder, "--output_dir", output, "--val_split", 0]
    questions = examples(folder.parent / "questions", 4)
    arguments, inputs = read_inputs(*flags, "--train_jsonl", questions)
    job.fits(inputs.plan, inputs, arguments, Output())
    inputs.write(plan.Run(inputs.plan, runs.new(output, "", 1)))


WAYS = {"prefill": by_engine("prefill"), "swift": by_engine("swift")}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_a_damaged_checkpoint_is_refused_in_one_line(case, way, bundle):
    CASES[case](bundle)
    COUNTS["damaged or hostile checkpoints"] += 1
    started = time.monotonic()
    with pytest.raises(UserError) as refused:
        WAYS[way](bundle)
    said = str(refused.value)
    assert "\n" not in said and len(said) <= LONGEST_LINE
    assert str(bundle) in said
    assert refused.value.exit_code == 2
    assert time.monotonic() - started < 20


# Training does not check files that only scoring reads, or the values of the weights.
@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith(ONLY_SCORING)])
def test_training_refuses_a_damaged_base_model(case, bundle):
    CASES[case](bundle)
    COUNTS["damaged or hostile checkpoints"] += 1
    with pytest.raises(UserError) as refused:
        train(bundle)
    assert "\n" not in str(refused.value) and refused.value.exit_code == 2
    assert not list((bundle.parent / "trained").glob("**/model*"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("trap", TRAPS)
def test_nothing_of_a_checkpoint_runs_or_leads_elsewhere(trap, way, bundle, monkeypatch):
    monkeypatch.chdir(bundle.parent)
    expected = Scorer(bundle, engine=way, device="cpu").score([ROOM], ["layout"])[0].scores
    TRAPS[trap](bundle)
    COUNTS["damaged or hostile checkpoints"] += 1
    found = Scorer(bundle, engine=way, device="cpu").score([ROOM], ["layout"])[0].scores
    COUNTS["files of a checkpoint that ran"] += (bundle.parent / "canary").exists()
    assert found == expected
    assert (COUNTS["files of a checkpoint that ran"], COUNTS["requests to a hub"]) == (0, 0)


@pytest.mark.parametrize("trap", TRAPS)
def test_training_sees_nothing_of_the_base_model_but_its_data(trap, bundle):
    TRAPS[trap](bundle)
    train(bundle)
    view = next((bundle.parent / "trained").glob("v0-*/.inputs/model"))
    names = {file.name for file in view.iterdir()}
    assert not [name for name in names if name.endswith((".py", ".bin", ".pt", ".pth")) or name in NO_DATA]
    texts = "".join(file.read_text() for file in view.glob("*_config.json")) + (view / "config.json").read_text()
    for word in ("auto_map", "someone/", "custom_generate", "trust_remote_code", "/etc/passwd"):
        assert word not in texts
