"""The probability that one picture is better than another, and how such probabilities are judged."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from saiqa.facts import WORD_VALUES, WORDS
from saiqa.pictures.better import NoDistribution, better, calibration_error, reliability


def distribution(draw: random.Random) -> dict[str, float]:
    weights = [draw.random() ** 4 for _ in WORDS]
    return {word: weight / sum(weights) for word, weight in zip(WORDS, weights, strict=True)}


PAIRS = [(distribution(random.Random(i)), distribution(random.Random(1000 + i))) for i in range(200)]


def test_it_is_what_counting_all_outcomes_gives():
    for a, b in PAIRS:
        outcomes = itertools.product(WORDS, WORDS)
        counted = sum(
            a[x] * b[y] * (1 + (WORD_VALUES[x] > WORD_VALUES[y]) - (WORD_VALUES[x] < WORD_VALUES[y])) / 2 for x, y in outcomes
        )
        assert better(a, b) == pytest.approx(counted, abs=1e-12)


def test_the_order_does_not_count():
    for a, b in PAIRS:
        for t in (0.3, 1, 4):
            assert better(a, b, t) + better(b, a, t) == pytest.approx(1, abs=1e-15)
            assert better(a, a, t) == 0.5


def test_certain_words_decide():
    best, worst = ({w: float(w == word) for w in WORDS} for word in ("excellent", "bad"))
    assert (better(best, worst), better(worst, best)) == (1, 0)


def test_a_temperature_divides_the_log_odds():
    a, b = PAIRS[0]
    odds = [math.log(p / (1 - p)) for p in (better(a, b), better(a, b, 2), better(a, b, 0.5))]
    assert odds[1:] == pytest.approx([odds[0] / 2, odds[0] * 2])
    assert better(a, b, 1e-9) in (0, 1) and better(a, b, 1e9) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"good": 2.0}, "not from 0 to 1"), ({"good": float("nan")}, "not from 0 to 1"), ({"good": 0.9}, "sum to")],
)
def test_what_is_no_distribution(change, says):
    flat = dict.fromkeys(WORDS, 0.2)
    with pytest.raises(NoDistribution, match=says):
        better(flat, {**flat, **change})
    with pytest.raises(NoDistribution, match="no probability for bad"):
        better(dict.fromkeys(WORDS[:4], 0.25), flat)
    with pytest.raises(ValueError, match="above 0"):
        better(flat, flat, 0)


def test_reliability_of_probabilities_that_hold_and_that_do_not():
    draw = random.Random(3)
    said = [draw.random() for _ in range(20000)]
    table = reliability(said, [draw.random() < p for p in said])
    assert len(table) == 10 and sum(n for *_, n in table) == 20000
    assert calibration_error(table) < 0.02
    assert calibration_error(reliability([0.9] * 100, [True, False] * 50)) == pytest.approx(0.4)
