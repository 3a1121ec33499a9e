"""The metrics of the study of maps, on known maps, and the study on a few rooms."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from helpers import REPOSITORY


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    import explain_study

    return explain_study


def test_figures_of_known_maps(study):
    hits = np.array([True, False, False, True])
    assert study.pointing(np.array([0.1, 0.3, 0.2, 0.4]), hits) == 1 and study.pointing(np.array([1, 2, 0, 0]), hits) == 0
    assert study.area(np.array([3, 1, 0, 2]), hits) == 1 and study.area(np.zeros(4), hits) == 0.5
    assert study.area(np.array([1, 0, 2, 3]), hits) == 0.75
    assert np.isnan(study.area(np.zeros(2), np.ones(2, bool)))


def test_places_become_regions(study):
    place = np.zeros((42, 56))
    place[:21, :8] = 1
    share = study.shrunk(place, 5, 7).reshape(5, 7)
    assert share[:, 0].tolist() == pytest.approx([1, 1, 0.5, 0, 0]) and share[:, 1:].max() == 0
    assert study.middle(5, 7).argmax() == 2 * 7 + 3


@pytest.mark.slow
def test_the_study_of_a_few_rooms():
    line = [sys.executable, "benchmarks/explain_study.py", "--splits", "val", "--limit", "6", "--repeats", "1"]
    ran = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert all(f"\n{figure}:\n" in ran.stdout for figure in ("pointing", "ROC area", "deletion"))
    assert "| towards " in ran.stdout
