"""The reference cases on a GPU, and independence of the batch: exact in float32, within 0.05 of a score in bfloat16.
``benchmarks/gpu_check.sh`` does the same, also on a machine without pytest.

    python -m pytest tests/gpu
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from helpers import REPOSITORY

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_reference_and_invariance(tmp_path):
    command = ["bash", str(REPOSITORY / "benchmarks" / "gpu_check.sh"), "--parts", "reference"]
    flags = ["--seconds", "300", "--output_json", str(tmp_path / "check.json")]
    ran = subprocess.run([*command, *flags], capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable})
    assert ran.returncode == 0, ran.stdout + ran.stderr
