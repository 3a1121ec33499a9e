"""infer.py --mode score and --mode eval on their own: from ratings to scores and from scores to correlations."""

from __future__ import annotations

import json
import shutil

import pytest

from helpers import GOOD, IDS, SMALL_BUNDLE, rating, read_csv, write_csv, write_jsonl
from saiqa.files import folders
from saiqa.scoring import score_of, score_of_known


def score_lighting(root, run_main, lines, *flags):
    write_jsonl(root.ratings("lighting"), lines)
    return run_main("infer.py", *root.flags, "--dimension", "lighting", "--mode", "score", *flags)


def test_score_needs_no_model(make_data_root, run_main):
    root = make_data_root(["lighting"])
    lines = [rating("lighting", i, {**GOOD, "bad": -n}) for n, i in enumerate(IDS)]
    assert score_lighting(root, run_main, lines, "--model_path", f"/nowhere/{SMALL_BUNDLE.name}").code == 0


def test_lines_that_lack_words_are_scored_over_the_others_and_counted(make_data_root, run_main):
    root = make_data_root(["lighting"])
    lines = [rating("lighting", i, GOOD) for i in IDS]
    lines[1]["logits"] = {"excellent": -1.0, "good": -1.0}
    lines[2]["logits"] = {**GOOD, "bad": -50.0, "poor": -50}
    lines[3]["logits"] = dict.fromkeys(GOOD, -50.0)
    lines[4]["logits"] = {}
    ran = score_lighting(root, run_main, lines)
    assert ran.code == 3
    for image_id in ("0010", "nan"):
        assert f"lighting {image_id}: no log-probability for excellent, good, fair, poor, bad" in ran.err
    assert f"lighting: 2 lines of {root.ratings('lighting')} scored over fewer than the five words" in ran.err
    scores = [row["score_pred"] for row in read_csv(root.scores("lighting"))]
    known = {word: GOOD[word] for word in ("excellent", "good", "fair")}
    assert [float(score) for score in scores[:3]] == pytest.approx([score_of(GOOD), 4.5, score_of_known(known)[0]])
    assert scores[3:] == ["", ""]
    record = json.loads(folders.run_record_path(root.scores("lighting")).read_text())["score"]
    assert (record["n"], record["lines_lacking_words"]) == (3, 2)


def test_complete_lines_are_nothing_to_speak_of(make_data_root, run_main):
    ran = score_lighting(make_data_root(["lighting"]), run_main, [rating("lighting", i, GOOD) for i in IDS])
    assert ran.code == 0 and "fewer" not in ran.err


def test_ratings_and_rows_without_each_other_are_listed(make_data_root, run_main):
    root = make_data_root(["lighting"])
    lines = [rating("lighting", i, GOOD) for i in ["stranger", *IDS[1:]]]
    ran = score_lighting(root, run_main, lines)
    assert ran.code == 3
    assert "lighting stranger: not in" in ran.err
    assert "lighting 007: no rating in" in ran.err


def test_scoring_again_replaces_the_prediction(make_data_root, run_main):
    root = make_data_root(["lighting"])
    lines = [rating("lighting", i, GOOD) for i in IDS]
    score_lighting(root, run_main, lines)
    again = root.path / "lighting_again.csv"
    shutil.copy(root.scores("lighting"), again)
    score_lighting(root, run_main, lines, "--input_csv", again)
    assert root.scores("lighting").read_bytes() == again.read_bytes()


@pytest.mark.parametrize(
    ("mode", "says"), [("score", "--mode infer --dimension lighting"), ("eval", "--mode all --dimension lighting")]
)
def test_a_missing_result_names_the_command_that_makes_it(make_data_root, run_main, mode, says):
    root = make_data_root(["lighting"])
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--mode", mode)
    assert ran.code == 2
    assert says in ran.err
    assert f"--results_dir {root.results}" in ran.err


def evaluate_lighting(root, run_main, predictions, *flags):
    rows = zip(IDS, ("1", "2", "3", "4", "5"), predictions, strict=True)
    table = [{"id": i, "lighting_score_mos": mos, "score_pred": prediction} for i, mos, prediction in rows]
    write_csv(root.scores("lighting"), table)
    return run_main("infer.py", *root.flags, "--dimension", "lighting", "--mode", "eval", *flags)


def test_eval_prints_two_lines(make_data_root, run_main):
    ran = evaluate_lighting(make_data_root(["lighting"]), run_main, ["1.1", "2.1", "3.0", "4.0", "5.0"])
    assert (ran.code, ran.out) == (0, "PLCC: 1.000\nSRCC: 1.000\n")


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_constant_predictions_have_no_correlation(make_data_root, run_main, flags):
    ran = evaluate_lighting(make_data_root(["lighting"]), run_main, ["3.0"] * 5, *flags)
    assert ran.code == 2
    assert "all 5 predictions are 3" in ran.err
    assert "nan" not in ran.out.lower()


def test_eval_lists_rows_without_a_score(make_data_root, run_main):
    ran = evaluate_lighting(make_data_root(["lighting"]), run_main, ["1.1", "", "3.1", "4.1", "5.0"])
    assert ran.code == 3
    assert "lighting abc: no score_pred" in ran.err
    assert "n 4, dropped 1" in ran.err


def test_fewer_than_three_rows_have_no_correlation(make_data_root, run_main):
    ran = evaluate_lighting(make_data_root(["lighting"]), run_main, ["1.1", "x", "nan", "", "5.0"])
    assert ran.code == 3
    assert "2 rows have both" in ran.err
    assert ran.out == ""
