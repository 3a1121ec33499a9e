"""The audit passes the demo's checkpoint and reports faults planted in copies of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from helpers import run_command
from saiqa import Scorer, facts
from saiqa.audit.examine import Audit, Examination
from saiqa.audit.ratings import unimodal
from saiqa.engines.loading import load_tokenizer
from saiqa.files import folders

DEMO = folders.roots(demo=True)
CHECKPOINT = DEMO.models / facts.tuned_model()
EMBEDDING = "llm.model.embed_tokens.weight"  # and in the head, which is tied to them


@pytest.fixture(scope="module")
def rooms():
    return [Image.open(room).convert("RGB") for room in folders.demo_rooms()[::3]]


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(CHECKPOINT, folder)
    return folder


def audited(checkpoint: Path, rooms: list) -> Audit:
    scorer = Scorer(checkpoint, data_root=DEMO.data, device="cpu", dtype="float32")
    return Examination(scorer, rooms).run()


def names(audit: Audit) -> set[str]:
    return {check.name for check in audit.failed}


def change(folder: Path, edit) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    edit(weights)
    save_file(weights, file, metadata={"format": "pt"})


def rows(folder: Path) -> list[int]:
    """The positions of the five words' embeddings."""
    return [load_tokenizer(folder).encode(f" {word}", add_special_tokens=False)[0] for word in facts.WORDS]


@pytest.mark.slow
def test_the_command_passes_the_demo_s_checkpoint(tmp_path):
    ran = run_command("audit.py", "--demo", "--report", tmp_path / "audit.html", "--json")
    assert ran.code == 0, ran.err
    assert len(ran.json["checks"]) == 17 and all(check["passed"] for check in ran.json["checks"])
    assert all(0 < value < 1 for value in ran.json["smallest_detectable_difference"].values())
    page = (tmp_path / "audit.html").read_text()
    assert page.count("<img") == 17 and "://" not in page and str(tmp_path) not in page


@pytest.mark.slow
def test_two_words_that_have_changed_places(copy, rooms):
    _, good, _, poor, _ = rows(copy)

    def swap(weights):
        weights[EMBEDDING][[good, poor]] = weights[EMBEDDING][[poor, good]].clone()

    change(copy, swap)
    assert "order of the words" in names(audited(copy, rooms))


@pytest.mark.slow
def test_answers_that_are_shifted_by_one(copy, rooms):
    places = rows(copy)

    def shift(weights):
        weights[EMBEDDING][places] = weights[EMBEDDING][places[-1:] + places[:-1]].clone()

    change(copy, shift)
    assert "order of the words" in names(audited(copy, rooms))


@pytest.mark.slow
def test_a_layer_of_zeros(copy, rooms):
    def clear(weights):
        for name in weights:
            if name.startswith("llm.model.layers.1."):
                weights[name].zero_()

    change(copy, clear)
    audit = audited(copy, rooms)
    assert "weights" in names(audit)
    assert "llm.model.layers.1." in next(check.found for check in audit.failed if check.name == "weights")


def test_adapters_that_were_never_merged(copy, rooms):
    save_file({"base_model.model.llm.lora_A.weight": torch.ones(2, 2)}, copy / "adapter_model.safetensors")
    (copy / "adapter_config.json").write_text("{}")
    assert names(audited(copy, rooms)) == {"adapters"}


def test_a_prompt_of_another_version(copy, rooms):
    """The checkpoint records its training data, which differs from the questions here."""
    (copy / "training.json").write_text(json.dumps({"prompts": {"layout": ["0" * 64]}}))
    audit = audited(copy, rooms)
    assert names(audit) == {"prompt"} and "layout" in audit.failed[0].found


@pytest.mark.slow
def test_a_base_model_with_random_answers_fails(rooms):
    """The small bundle of the reference has random weights."""
    from helpers import SMALL_BUNDLE

    assert len(names(audited(SMALL_BUNDLE, rooms))) >= 5


def test_one_peak():
    probabilities = [
        [0.1, 0.5, 0.3, 0.08, 0.02],
        [0.4, 0.1, 0.4, 0.05, 0.05],
        [0.2, 0.2, 0.2, 0.2, 0.2],
        [0.5, 0.1, 0.11, 0.2, 0.09],
    ]
    assert unimodal(torch.tensor(probabilities, dtype=torch.float64).log().numpy()).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--images", "nowhere"], "needs 4"), (["--report", "a.pdf"], ".html"), (["--count", "2"], "needs 4")],
)
def test_bad_input_is_one_line(flags, said):
    ran = run_command("audit.py", "--demo", *flags)
    assert ran.code == 2 and said in ran.err and len(ran.err.strip().splitlines()) == 1
