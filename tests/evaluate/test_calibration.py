"""Intervals around scores: their coverage on simulated ratings, and from the command to a scored table."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from helpers import calibrated_demo, run_command
from saiqa import Scorer, calibration, facts
from saiqa.calibration import Calibration, prompt_digest, spread
from saiqa.errors import InputError
from saiqa.evaluate import conformal
from saiqa.pictures.results import Layout

VALUES = np.array([facts.WORD_VALUES[word] for word in facts.WORDS])


def drawn(count: int, seed: int):
    """Scores, word distributions and means: the wider a distribution, the farther the mean from the score."""
    rng = np.random.default_rng(seed)
    centres, widths = rng.uniform(1.2, 4.8, count), rng.uniform(0.2, 1.5, count)
    weights = np.exp(-((VALUES - centres[:, None]) ** 2) / (2 * widths[:, None] ** 2))
    distributions = weights / weights.sum(1, keepdims=True)
    scores = distributions @ VALUES
    spreads = np.sqrt(distributions @ VALUES**2 - scores**2)
    mos = np.clip(0.3 + 0.9 * scores + rng.normal(0, 0.1 + 0.4 * spreads), 1, 5)
    return scores, [dict(zip(facts.WORDS, row.tolist(), strict=True)) for row in distributions], mos


def test_intervals_hold_the_mean_as_often_as_they_say():
    """Mean coverage over 100 calibrations of 120 pictures; wide and narrow ones have about the same coverage."""
    covered = {"all": [], "sure": [], "unsure": []}
    for seed in range(100):
        scores, distributions, mos = drawn(240, seed)
        fitted = conformal.fit(scores[:120], distributions[:120], mos[:120], "")
        held = []
        for score, distribution, mean in zip(scores[120:], distributions[120:], mos[120:], strict=True):
            low, high = fitted.interval(score, distribution)
            held.append((low <= mean <= high, high - low))
        middle = np.median([width for _, width in held])
        covered["all"] += [inside for inside, _ in held]
        covered["sure"] += [inside for inside, width in held if width <= middle]
        covered["unsure"] += [inside for inside, width in held if width > middle]
    assert 0.88 <= np.mean(covered["all"]) <= 0.92
    assert np.mean(covered["sure"]) >= 0.85 and np.mean(covered["unsure"]) >= 0.85


def test_high_scores_that_are_often_far_too_high_have_intervals_that_reach_down():
    """A model that mistakes some bad pictures for good ones: the coverage is also correct for high scores."""
    held, below = [], []
    for seed in range(100):
        scores, distributions, mos = drawn(240, seed)
        fooled = np.random.default_rng(1000 + seed).random(240) < 0.15
        mos = np.where(fooled & (scores > 3.8), 1.5, mos)
        fitted = conformal.fit(scores[:120], distributions[:120], mos[:120], "")
        for score, distribution, mean in zip(scores[120:], distributions[120:], mos[120:], strict=True):
            low, high = fitted.interval(score, distribution)
            if score > 3.8:
                held.append(low <= mean <= high)
                below.append(mean < low)
    assert np.mean(held) >= 0.88 and np.mean(below) <= 0.06  # 0.76 and 0.14 if all scores shared their residuals


def test_the_width_follows_the_spread():
    scores, distributions, mos = drawn(300, 1)
    fitted = conformal.fit(scores, distributions, mos, "")
    sure, unsure = (distributions[place] for place in np.argsort([spread(one) for one in distributions])[[0, -1]])
    low, high = fitted.interval(3.0, sure)
    wide_low, wide_high = fitted.interval(3.0, unsure)
    assert wide_high - wide_low > 2 * (high - low)
    assert fitted.interval(3.0, sure, 0.5)[0] > low
    assert fitted.interval(3.0, sure, 0.9999) == (1.0, 5.0)  # more than 300 pictures can support


def test_what_cannot_be_calibrated_is_refused():
    scores, distributions, mos = drawn(40, 2)
    with pytest.raises(conformal.ConformalError, match="10 pictures"):
        conformal.fit(scores[:10], distributions[:10], mos[:10], "")
    with pytest.raises(conformal.ConformalError, match="all 40 scores"):
        conformal.fit(np.full(40, 3.0), distributions, mos, "")


def test_another_checkpoint_engine_or_prompt_is_refused():
    scores, distributions, mos = drawn(40, 3)
    prompt = prompt_digest("Layout?", "It is")
    found = Calibration("a" * 64, "prefill", {"layout": conformal.fit(scores, distributions, mos, prompt)})
    found.check("a" * 64, "prefill", {"layout": prompt})
    for other in (
        ("b" * 64, "prefill", {"layout": prompt}),
        ("a" * 64, "swift", {"layout": prompt}),
        ("a" * 64, "prefill", {"layout": prompt_digest("Layout?", "")}),
        ("a" * 64, "prefill", {"harmony": prompt}),
    ):
        with pytest.raises(InputError, match="calibration"):
            found.check(*other)


@pytest.mark.parametrize("text", ["", "{}", '{"model": "", "engine": "", "dimensions": {"layout": {"n": 1}}}', "[1]"])
def test_a_broken_file_is_named(tmp_path, text):
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(InputError, match="not a calibration"):
        calibration.read(file)


@pytest.fixture(scope="module")
def demo_calibration(tmp_path_factory):
    """The demo's."""
    folder = tmp_path_factory.mktemp("calibration")
    made = calibrated_demo(folder)
    assert {name: one["n"] for name, one in made.json["dimensions"].items()} == dict.fromkeys(facts.DIMENSIONS, 120)
    assert all(0.5 < one["width"] < 3 for one in made.json["dimensions"].values())
    return folder / "calibration.json"


@pytest.mark.slow
def test_a_scored_table_has_the_intervals(demo_calibration, tmp_path):
    output = tmp_path / "rooms.csv"
    flags = ("score_images.py", "--demo", "--dtype", "float32", "--calibration", demo_calibration)
    ran = run_command(*flags, "--output_csv", output)
    assert ran.code == 0, ran.err
    rows = list(csv.DictReader(output.open()))
    assert len(rows) == 12
    scorer = Scorer(demo=True, dtype="float32", device="cpu", calibration=demo_calibration)
    for row, result in zip(rows, scorer.score([row["image"] for row in rows]), strict=True):
        for name in facts.DIMENSIONS:
            low, high = float(row[f"{name}_low"]), float(row[f"{name}_high"])
            assert 1 <= low < high <= 5
            assert result.intervals[name] == pytest.approx((low, high), abs=1e-4)

    wider = run_command(*flags, "--confidence", "0.98", "--output_jsonl", tmp_path / "wider.jsonl")
    assert wider.code == 0, wider.err
    first = json.loads((tmp_path / "wider.jsonl").read_text().splitlines()[0])
    assert first["intervals"]["layout"][0] <= float(rows[0]["layout_low"])

    abstaining = run_command(*flags, "--max_width", "1.2", "--output_csv", tmp_path / "sure.csv")
    assert abstaining.code == 0, abstaining.err
    for row in csv.DictReader((tmp_path / "sure.csv").open()):
        unsure = row["unsure"].split()
        for name in facts.DIMENSIONS:
            assert (row[name] == "") == (name in unsure) == (float(row[f"{name}_high"]) - float(row[f"{name}_low"]) > 1.2)
        assert (row["overall"] == "") == bool(unsure)


@pytest.mark.slow
def test_a_finished_table_without_distributions_is_scored_again_for_its_intervals(demo_calibration, tmp_path):
    output = tmp_path / "rooms.csv"
    flags = ("score_images.py", "--demo", "--dtype", "float32", "--output_csv", output)
    assert run_command(*flags).code == 0
    again = run_command(*flags, "--resume", "--calibration", demo_calibration)
    assert again.code == 0, again.err
    rows = list(csv.DictReader(output.open()))
    assert len(rows) == 12 and all(float(row["layout_low"]) < float(row["layout_high"]) for row in rows)


def test_a_score_without_an_interval_is_not_sure(demo_calibration):
    found = calibration.read(demo_calibration)
    partly = replace(found, dimensions={"layout": found.dimensions["layout"]})
    layout = Layout(["layout", "lighting"], False, None, calibration=partly, max_width=4)
    words = {name: {"fair": 1.0} for name in layout.dimensions}
    line = {"scores": {"layout": 3.0, "lighting": 3.0}, "probabilities": words}
    judged = layout.judged(line)
    assert judged.unsure == ["lighting"] and judged.scores == {"layout": 3.0}


def test_flags_of_intervals_need_a_calibration(demo_calibration):
    ran = run_command("score_images.py", "--demo", "--max_width", "1")
    assert ran.code == 2 and "--calibration" in ran.err
    ran = run_command("score_images.py", "--demo", "--calibration", demo_calibration, "--engine", "swift")
    assert ran.code == 2 and "the calibration is for another" in ran.err
