"""The twelve reference cases on a GPU: exact in float32, within 0.05 of a score in bfloat16.

    python -m pytest tests/gpu
"""

from __future__ import annotations

import json

import pytest
import torch

from conftest import SMALL_BUNDLE
from saiqa.engines import Request, load_engine
from saiqa.facts import WORDS
from saiqa.scoring import score_of

CASES = json.loads((SMALL_BUNDLE / "expected.json").read_text())["cases"]
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def ratings(dtype):
    engine = load_engine("prefill", SMALL_BUNDLE, device="cuda", dtype=dtype, system="")
    requests = [Request(SMALL_BUNDLE / case["image"], case["query"], case["answer_prefix"]) for case in CASES]
    return engine.rate(requests)


def test_float32_is_exact():
    torch.backends.cuda.matmul.allow_tf32 = False
    for rating, case in zip(ratings("float32"), CASES, strict=True):
        assert max(abs(rating.logprobs[word] - case["label_logprobs"][word]) for word in WORDS) < 1e-4


def test_bfloat16_is_close():
    for rating, case in zip(ratings("bfloat16"), CASES, strict=True):
        assert abs(score_of(rating.logprobs) - score_of(case["label_logprobs"])) < 0.05
