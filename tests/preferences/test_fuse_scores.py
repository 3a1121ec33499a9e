"""fuse_scores.py: weights from simulated preferences, and the overall score of scored files."""

from __future__ import annotations

import hashlib
import itertools
import json

import numpy
import pytest

from helpers import read_csv, read_jsonl, write_csv, write_jsonl
from judgements import DIMENSIONS, name, simulate, write
from saiqa import overall
from saiqa.preferences import bradley_terry

COMMAND = "fuse_scores.py"


def arrays(scores, judged):
    a, b, outcomes = map(numpy.array, zip(*judged, strict=True))
    return scores[a] - scores[b], outcomes


@pytest.fixture
def files(tmp_path):
    return write(tmp_path, *simulate((0.5, 1.5, 0.2, 0.8), pairs=300, tie=0.5))


# ---- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tie", [0.0, 0.7])
def test_known_weights_are_recovered(tie):
    strengths = numpy.array([0.4, 1.6, 0.2, 0.8])
    fitted = bradley_terry.fit(*arrays(*simulate(strengths, tie=tie)))
    assert fitted.weights == pytest.approx(strengths / 3, abs=0.03)
    assert fitted.strengths.sum() == pytest.approx(3, rel=0.1)
    assert fitted.tie == pytest.approx(tie, rel=0.15)


def test_a_dimension_that_counts_against_gets_no_weight():
    strengths = numpy.array([1.0, -0.8, 0.5, 0.5])
    fitted = bradley_terry.fit(*arrays(*simulate(strengths, tie=0.3)))
    assert fitted.strengths[1] == 0
    assert (fitted.strengths[[0, 2, 3]] > 0.3).all()
    assert fitted.weights.sum() == pytest.approx(1)


def test_the_fit_is_a_maximum_under_its_bounds():
    differences, outcomes = arrays(*simulate((1.0, -0.8, 0.5, 0.0), pairs=500, tie=0.3))
    fitted = bradley_terry.fit(differences, outcomes)
    best = numpy.append(fitted.strengths, numpy.log(fitted.tie))
    least, gradient = bradley_terry._loss(best, differences, outcomes, True)
    at_bound = best[:4] == 0
    assert at_bound[1] and (gradient[:4][at_bound] >= 0).all()
    assert abs(gradient[:4][~at_bound]).max() < 1e-3 and abs(gradient[4]) < 1e-3
    for step in itertools.product((-0.01, 0, 0.01), repeat=5):
        other = numpy.concatenate([numpy.maximum(best[:4] + step[:4], 0), best[4:] + step[4]])
        assert bradley_terry._loss(other, differences, outcomes, True)[0] >= least - 1e-9


def test_the_gradient_is_that_of_the_loss():
    from scipy.optimize import approx_fprime

    data = arrays(*simulate((1.0, 0.3, 0.5, 0.1), pairs=80, tie=0.5))
    for point, ties in (([0.3, 0.1, 0.7, 0.2, -0.4], True), ([0.3, 0.1, 0.7, 0.2], False)):
        outcomes = data[1] if ties else numpy.where(data[1] == 0, 1, data[1])
        numeric = approx_fprime(numpy.array(point), lambda p: bradley_terry._loss(p, data[0], outcomes, ties)[0])  # noqa: B023
        assert bradley_terry._loss(numpy.array(point), data[0], outcomes, ties)[1] == pytest.approx(numeric, abs=1e-4)


def test_the_intervals_of_the_weights_hold_the_true_ones_and_tell_twins():
    """If two dimensions have the same scores, preferences cannot separate their weights, and the intervals show it."""
    strengths = numpy.array([0.4, 1.6, 0.2, 0.8])
    scores, judged = simulate(strengths, pairs=1000, tie=0.3)
    differences, outcomes = arrays(scores, judged)
    groups = numpy.arange(len(outcomes))
    spans = bradley_terry.weight_intervals(differences, outcomes, groups)
    assert all(low < true < high and high - low < 0.2 for (low, high), true in zip(spans, strengths / 3, strict=True))
    differences[:, 3] = differences[:, 1] + numpy.random.default_rng(0).normal(0, 0.02, len(groups))
    twins = bradley_terry.weight_intervals(differences, outcomes, groups)
    assert all(high - low > 0.4 for low, high in (twins[1], twins[3]))


def test_preferences_against_every_score_have_no_weights():
    with pytest.raises(bradley_terry.FitError, match="all weights would be 0"):
        _ = bradley_terry.fit(*arrays(*simulate((-1, -1, -1, -1)))).weights


def test_judgements_of_one_pair_stay_on_one_side():
    """Thirty pairs with random winners, each judged ten times alike: seen pairs would be predicted, unseen ones are not."""
    draw = numpy.random.default_rng(2)
    differences = draw.normal(size=(30, 4)).repeat(10, axis=0)
    outcomes = draw.choice([bradley_terry.A, bradley_terry.B], size=30).repeat(10)
    found = bradley_terry.cross_validate(differences, outcomes, numpy.arange(30).repeat(10), seed=0)
    low, high = found.intervals["fitted"]
    assert high - low > 0.2  # as for 30 pairs; for 300 it would be 0.11
    assert low < 0.5 < high


# ---- fit -------------------------------------------------------------------------------------------------------------


def test_fit_writes_weights_that_fusion_reads(run_main, tmp_path):
    scored, pairs = write(tmp_path, *simulate((0.3, 2.4, 0.1, 0.6), pairs=1500, tie=0.4))
    output = tmp_path / "new" / "weights.json"
    ran = run_main(COMMAND, "fit", scored, pairs, "--output", output, "--json")
    assert ran.code == 0, ran.err
    weights = overall.read_weights(output)
    assert list(weights.values()) == pytest.approx([0.09, 0.71, 0.03, 0.18], abs=0.05)
    written = json.loads(output.read_text())
    assert written["weights"] == ran.json["weights"] == weights
    assert written["made_from"]["preferences"]["sha256"] == hashlib.sha256(pairs.read_bytes()).hexdigest()
    counts = written["pairs"]
    assert counts["a"] + counts["b"] + counts["tie"] == counts["n"] == 1500 and counts["left_out"] == 0
    held_out = written["held_out"]
    assert held_out["pairs"] == counts["a"] + counts["b"]
    assert held_out["fitted"] > held_out["mean"] and held_out["intervals"]["difference"][0] > 0
    low, high = held_out["intervals"]["fitted"]
    assert low < held_out["fitted"] < high


def test_fit_says_weights_and_accuracy(files, run_main, tmp_path):
    ran = run_main(COMMAND, "fit", *files, "--output", tmp_path / "w.json")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == list(DIMENSIONS)
    assert [line.split()[0] for line in lines[6:]] == ["fitted", "mean", "difference"]
    assert all("[" in line for line in [*lines[1:5], *lines[6:]])
    assert "300 judgements of" in ran.err and "0 left out" in ran.err


@pytest.mark.parametrize("by", ["letters", "images", "ids"])
def test_winners_and_images_by_letter_name_or_id(run_main, tmp_path, by):
    scores, judged = simulate((0.5, 1.5, 0.2, 0.8), pairs=200)
    files = write(tmp_path, scores, judged)
    expected = run_main(COMMAND, "fit", *files, "--output", tmp_path / "w.json", "--json").json["weights"]
    rows = read_csv(files[1])
    for row in rows:
        a, b = (row[c] if by != "ids" else row[c].split("/")[1].removesuffix(".png") for c in ("image_a", "image_b"))
        winner = row["winner"].upper() + " " if by == "letters" else {"a": a, "b": b}[row["winner"]]
        row.update(image_a=a, image_b=b, winner=winner)
    write_csv(files[1], rows)
    ran = run_main(COMMAND, "fit", *files, "--output", tmp_path / "w.json", "--json")
    assert ran.json["weights"] == expected, ran.err


def test_one_order_of_all_pairs_is_said(run_main, tmp_path):
    scores, judged = simulate((1, 1, 1, 1), pairs=40)
    judged = [(a, b, 1 if scores[a].sum() > scores[b].sum() else -1) for a, b, _ in judged]
    ran = run_main(COMMAND, "fit", *write(tmp_path, scores, judged), "--output", tmp_path / "w.json")
    assert ran.code == 0 and "predict every decided pair correctly" in ran.err


def test_pairs_without_scores_are_left_out_and_listed(files, run_main, tmp_path):
    rows = read_csv(files[0])
    rows[5].update(layout="", error="broken")
    write_csv(files[0], rows)
    affected = [r for r in read_csv(files[1]) if name(5) in (r["image_a"], r["image_b"])]
    ran = run_main(COMMAND, "fit", *files, "--output", tmp_path / "w.json", "--json")
    assert ran.code == 3 and affected
    assert ran.json["pairs"]["left_out"] == len(affected) == ran.err.count(f"{name(5)} has no score of layout")
    assert ran.json["pairs"]["n"] == 300 - len(affected)


def change_pair(**cells):
    def change(scored, pairs):
        pairs[7].update(cells)

    return change


def constant(scored, pairs):
    for row in scored:
        row["layout"] = "3.0"


def all_ties(scored, pairs):
    for row in pairs:
        row["winner"] = "tie"


def without_layout(scored, pairs):
    for row in scored:
        del row["layout"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (change_pair(image_a="who.png"), "1 images in 1 of 300 pairs are not scored, or their names are ambiguous: who.png"),
        (change_pair(image_a="other/001.png"), "other/001.png"),
        (change_pair(image_a=name(1), image_b=name(1)), "line 9: renders/001.png is compared with itself"),
        (change_pair(winner="c"), "line 9: winner 'c' is neither a, b, tie nor one of the two images"),
        (change_pair(winner=""), "winner '' is neither"),
        (constant, "the layout scores are equal within every pair"),
        (all_ties, "0 distinct pairs have a winner (ties: 300, without scores: 0), but a fit needs 20"),
        (lambda scored, pairs: pairs.__delitem__(slice(10, None)), "a fit needs 20"),
        (lambda scored, pairs: scored.append(scored[3]), "image renders/003.png comes more than once"),
        (lambda scored, pairs: scored[3].update(layout="good"), "line 5: layout is 'good', not a number"),
        (without_layout, "has no scores of layout"),
        (lambda scored, pairs: [row.pop("winner") for row in pairs], "has no column winner"),
    ],
)
def test_input_that_is_refused(files, run_main, tmp_path, change, says):
    scored, pairs = map(read_csv, files)
    change(scored, pairs)
    write_csv(files[0], scored)
    write_csv(files[1], pairs)
    output = tmp_path / "w.json"
    ran = run_main(COMMAND, "fit", *files, "--output", output)
    assert (ran.code, ran.out) == (2, "") and says in ran.err
    assert not output.exists()


def test_no_pairs_at_all(files, run_main, tmp_path):
    files[1].write_text("image_a,image_b,winner\n")
    ran = run_main(COMMAND, "fit", *files, "--output", tmp_path / "w.json")
    assert ran.code == 2 and "has a header and no rows" in ran.err


def test_winners_against_every_score_leave_no_file(run_main, tmp_path):
    scores, judged = simulate((-1, -1, -1, -1), pairs=300)
    ran = run_main(COMMAND, "fit", *write(tmp_path, scores, judged), "--output", tmp_path / "w.json")
    assert ran.code == 2 and "all weights would be 0" in ran.err
    assert not (tmp_path / "w.json").exists()


def test_an_input_is_not_written_over(files, run_main):
    ran = run_main(COMMAND, "fit", *files, "--output", files[1])
    assert ran.code == 2 and "--output is also an input" in ran.err


# ---- apply -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"weights": dict(zip(DIMENSIONS, (0.5, 0.0, 0.3, 0.2), strict=True))}))
    return path


SCORED = [
    {"image": "007", "distortion": "1", "harmony": "2", "layout": "3", "lighting": "4.50", "overall": "9", "note": "x,y"},
    {"image": "b", "distortion": "5", "harmony": "4", "layout": "", "lighting": "1", "overall": "", "note": ""},
]


@pytest.mark.parametrize("weighted", [True, False])
def test_apply_adds_overall_and_keeps_the_rest(run_main, tmp_path, weights, weighted):
    write_csv(tmp_path / "s.csv", SCORED)
    flags = ["--weights", weights] if weighted else []
    ran = run_main(COMMAND, "apply", tmp_path / "s.csv", *flags, "--output", tmp_path / "o.csv")
    assert ran.code == 3
    assert "b: no score of layout" in ran.err and "which is replaced" in ran.err
    rows = read_csv(tmp_path / "o.csv")
    assert list(rows[0]) == list(SCORED[0])
    assert [{**row, "overall": ""} for row in rows] == [{**row, "overall": ""} for row in SCORED]
    assert float(rows[0]["overall"]) == pytest.approx(0.5 + 0.9 + 0.9 if weighted else 10.5 / 4)
    assert rows[1]["overall"] == ""


def test_apply_to_jsonl(run_main, tmp_path, weights):
    lines = [
        {"images": ["a.png"], "scores": dict(zip(DIMENSIONS, (1, 2, 3, 4), strict=True)), "x": {"y": 1}},
        {"images": ["b.png"], "scores": {}, "error": "broken"},
    ]
    write_jsonl(tmp_path / "s.jsonl", lines)
    ran = run_main(COMMAND, "apply", tmp_path / "s.jsonl", "--weights", weights, "--output", tmp_path / "o.jsonl", "--json")
    assert ran.code == 3 and ran.json["n"] == 1
    assert [failed["image"] for failed in ran.json["failed"]] == ["b.png"]
    found = read_jsonl(tmp_path / "o.jsonl")
    assert found[0]["overall"] == pytest.approx(2.2) and found[0]["x"] == {"y": 1}
    assert found[1]["overall"] is None


def test_apply_to_fewer_dimensions_says_so(run_main, tmp_path, weights):
    write_csv(tmp_path / "s.csv", [{"id": "a", "layout": "2", "lighting": "4", "harmony": "1"}])
    ran = run_main(COMMAND, "apply", tmp_path / "s.csv", "--weights", weights, "--output", tmp_path / "o.csv")
    assert ran.code == 0 and "has only harmony, layout, lighting" in ran.err
    assert float(read_csv(tmp_path / "o.csv")[0]["overall"]) == pytest.approx((0.6 + 0.8) / 0.5)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"image": "a", "harmony": "2"}, "the weights of harmony are all 0"),
        ({"image": "a", "x": "2"}, "has no scores for distortion"),
        ({"name": "a", "layout": "2"}, "has no column image or id"),
        ({"image": "a", "layout": "nan"}, "line 2: layout is 'nan'"),
    ],
)
def test_files_that_get_no_overall(run_main, tmp_path, weights, row, says):
    write_csv(tmp_path / "s.csv", [row])
    ran = run_main(COMMAND, "apply", tmp_path / "s.csv", "--weights", weights, "--output", tmp_path / "o.csv")
    assert (ran.code, ran.out) == (2, "") and says in ran.err
    assert not (tmp_path / "o.csv").exists()


def test_an_action_is_needed(run_main):
    ran = run_main(COMMAND)
    assert ran.code == 2 and "fit|apply" in ran.err


def test_an_empty_name_is_refused_in_one_line(run_main, tmp_path):
    ran = run_main(COMMAND, "fit", "", tmp_path / "pairs.csv", "--output", tmp_path / "weights.json")
    assert ran.code == 2 and "Traceback" not in ran.err and ran.err.count("\n") == 1, ran.err
