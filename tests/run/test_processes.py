"""Scorer and Reward in programs with several processes and over many images: pickled, forked, and without leaks."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from helpers import SMALL_BUNDLE
from saiqa import Scorer
from saiqa.reward import Reward

ROOM = str(SMALL_BUNDLE / "images" / "ref_3.jpg")
LEAK_IMAGES = 5000
LEAK_BYTES = 30_000_000  # of 5,000 images: 6 kB each


@pytest.fixture(scope="module")
def scorer():
    scorer = Scorer(SMALL_BUNDLE, device="cpu")
    scorer.score([ROOM])
    return scorer


def test_a_scorer_and_a_reward_can_be_pickled_loaded_or_not(scorer):
    expected = scorer.score([ROOM])[0].scores
    again = pickle.loads(pickle.dumps(scorer))
    assert again.score([ROOM])[0].scores == expected
    reward = pickle.loads(pickle.dumps(Reward(scorer)))
    assert reward([ROOM])[0] == Reward(scorer)([ROOM])[0]
    client = pickle.loads(pickle.dumps(Reward(service="http://127.0.0.1:9")))
    assert client.source.service == "http://127.0.0.1:9"


def scored_elsewhere(scorer, answers):
    try:
        answers.put(scorer.score([ROOM])[0].scores)
    except RuntimeError as error:
        answers.put(str(error))


@pytest.mark.parametrize("method", ("fork", "spawn"))
def test_a_forked_scorer_says_spawn_and_a_spawned_one_works(method, scorer):
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    process = context.Process(target=scored_elsewhere, args=(scorer, answers))
    process.start()
    answer = answers.get(timeout=120)
    process.join(30)
    assert process.exitcode == 0
    assert "spawn" in answer if method == "fork" else answer == pytest.approx(scorer.score([ROOM])[0].scores, abs=1e-5)


def held_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_thousands_of_images_leave_no_memory_behind():
    scorer = Scorer(SMALL_BUNDLE, device="cpu", min_pixels=1024, max_pixels=4096)
    frames = np.random.default_rng(0).integers(0, 255, (LEAK_IMAGES, 48, 64, 3), dtype=np.uint8)
    for result in scorer.stream(frames[:500], ["layout"]):
        assert result.error is None
    before = held_bytes()
    count = sum(result.error is None for result in scorer.stream(iter(frames), ["layout"]))
    assert count == LEAK_IMAGES
    assert held_bytes() - before < LEAK_BYTES
