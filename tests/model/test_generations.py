"""Checkpoints saved by either generation of transformers and read by the other: a real 4.57 in a separate process.

``make test`` installs it into ``transformers4`` next to the environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import SMALL_BUNDLE, TOOLS

OTHER = Path(sys.prefix) / "transformers4"
CASES = json.loads((SMALL_BUNDLE / "expected.json").read_text())["cases"][:3]

pytestmark = pytest.mark.skipif(not OTHER.is_dir(), reason=f"no transformers 4.57 in {OTHER}; make test installs it")

SAVE = """
import sys
from saiqa.engines.loading import load_model, load_tokenizer
load_model(sys.argv[1]).save_pretrained(sys.argv[2])
load_tokenizer(sys.argv[1]).save_pretrained(sys.argv[2])
"""
RATE = """
import json, sys, transformers
from saiqa.engines import Request, load_engine
cases, answers = json.loads(sys.argv[1]), []
for folder in sys.argv[2:]:
    engine = load_engine("prefill", folder, device="cpu", system="")
    ratings = engine.rate([Request(case["image"], case["query"], case["answer_prefix"]) for case in cases])
    answers.append([rating.logprobs for rating in ratings])
print(json.dumps([transformers.__version__, answers]))
"""


def run(code: str, other: bool, *args: object) -> str:
    paths = [str(OTHER)] if other else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, str(TOOLS)])}
    ran = subprocess.run([sys.executable, "-c", code, *map(str, args)], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout.strip().splitlines()[-1] if ran.stdout else ""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The reference checkpoint as 4.57 and as 5 save it."""
    folders = [tmp_path_factory.mktemp("by_4"), tmp_path_factory.mktemp("by_5")]
    for folder, other in zip(folders, (True, False), strict=True):
        run(SAVE, other, SMALL_BUNDLE, folder)
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("other", (True, False), ids=("read by 4.57", "read by 5"))
def test_either_generation_rates_what_either_has_saved_as_the_reference(saved, other):
    cases = [{**case, "image": str(SMALL_BUNDLE / case["image"])} for case in CASES]
    version, answers = json.loads(run(RATE, other, json.dumps(cases), *saved))
    assert version.startswith("4.57" if other else "5.")
    for logprobs in answers:
        for found, case in zip(logprobs, CASES, strict=True):
            assert found == pytest.approx(case["label_logprobs"], abs=1e-4)


def test_plain_transformers_4_finds_the_base_of_the_rotary_embedding(saved):
    """The release's programs do not know ours: the values must be where 4.57 looks for them."""
    code = "import json, sys\nfrom transformers import Qwen3Config\nllm = json.load(open(sys.argv[1]))['llm_config']\n"
    found = run(code + "print(Qwen3Config(**llm).rope_theta)", True, saved[1] / "config.json")
    assert float(found) == json.loads((SMALL_BUNDLE / "config.json").read_text())["llm_config"]["rope_theta"]
