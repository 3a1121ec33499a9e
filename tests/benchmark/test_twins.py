"""Duplicate ids, and ids that are the same number written differently: every row is scored, counted and reported."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from helpers import IDS, MOS, rating, read_csv, read_jsonl, record, write_csv, write_jsonl
from saiqa import facts
from saiqa.files import folders, ids
from saiqa.scoring import score_of

# Log-probabilities of a confident model for each level.
SURE = {word: {**dict.fromkeys(facts.WORDS, -9.0), word: -0.01} for word in facts.WORDS}
SCORE = {word: score_of(logits) for word, logits in SURE.items()}


def put(root, rows, words) -> None:
    """A table with the ids of ``rows``, and a result with these (id, word)."""
    write_csv(root.csv("lighting"), [{"id": i, "lighting_score_mos": m} for i, m in zip(rows, "1234512345", strict=False)])
    write_jsonl(root.ratings("lighting"), [rating("lighting", i, SURE.get(word, {})) for i, word in words])


def scored(root, run_main, *flags):
    """Run the score stage; its output, its predictions by row, and its record."""
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--mode", "score", *flags)
    record = json.loads(folders.run_record_path(root.scores("lighting")).read_text())["score"]
    return ran, [row["score_pred"] for row in read_csv(root.scores("lighting"))], record


def test_each_row_of_an_id_takes_the_rating_at_its_place(make_data_root, run_main):
    root = make_data_root(["lighting"])
    put(root, ["a", "b", "a"], [("a", "good"), ("a", "bad"), ("b", "fair")])
    ran, predictions, record = scored(root, run_main)
    assert ran.code == 0, ran.err
    assert predictions == [repr(SCORE[word]) for word in ("good", "fair", "bad")]
    assert f"lighting: 1 ids that come more than once in {root.csv('lighting')}, each row scored (a)" in ran.err
    assert f"lighting: 1 ids that come more than once in {root.ratings('lighting')} (a)" in ran.err
    assert (record["n"], record["twin_ids_of_people"], record["twin_ids_of_model"]) == (3, 1, 1)
    assert record["rows_sharing_a_rating"] == record["ratings_left_over"] == 0


def test_the_last_rating_serves_the_rows_that_are_left(make_data_root, run_main):
    root = make_data_root(["lighting"])
    put(root, ["a", "a", "a", "b", "b"], [("a", "good"), ("b", "fair"), ("a", "bad")])
    ran, predictions, record = scored(root, run_main)
    assert ran.code == 0, ran.err
    assert predictions == [repr(SCORE[word]) for word in ("good", "bad", "bad", "fair", "fair")]
    assert "lighting: 2 rows scored by the rating of an earlier row" in ran.err
    assert record["rows_sharing_a_rating"] == 2


def test_ratings_that_no_row_takes_are_said(make_data_root, run_main):
    root = make_data_root(["lighting"])
    rated = [("a", "good"), ("a", "bad"), ("a", "poor"), ("b", "fair"), ("stranger", "good"), ("stranger", "bad")]
    put(root, ["a", "b"], rated)
    ran, predictions, record = scored(root, run_main)
    assert (ran.code, predictions) == (3, [repr(SCORE["good"]), repr(SCORE["fair"])])
    assert "lighting: 2 ratings that no row takes" in ran.err and "lighting stranger: not in " in ran.err
    assert record["ratings_left_over"] == 2


def test_a_twin_without_a_score_is_listed_and_the_other_scored(make_data_root, run_main):
    root = make_data_root(["lighting"])
    put(root, ["a", "a", "b"], [("a", "nothing"), ("a", "good"), ("b", "fair")])
    ran, predictions, record = scored(root, run_main)
    assert (ran.code, predictions) == (3, ["", repr(SCORE["good"]), repr(SCORE["fair"])])
    assert "lighting a: no log-probability" in ran.err and record["n"] == 2


def test_without_twins_there_is_nothing_to_say(make_data_root, run_main):
    root = make_data_root(["lighting"])
    put(root, ["a", "b", "{c}"], [("a", "good"), ("b", "bad"), ("{c}", "poor")])
    ran, _, record = scored(root, run_main)
    assert ran.code == 0 and ran.err.count("\n") == 1, ran.err
    assert {record[name] for name in record if name.startswith(("twin", "rows", "ratings_"))} == {0}


def test_limit_takes_the_rows_that_come_before_it(make_data_root, run_main):
    root = make_data_root(["lighting"])
    put(root, ["a", "a", "b", "b", "c"], [])
    write_jsonl(root.jsonl("lighting"), [record("lighting", i) for i in ("a", "b", "b", "a", "c")])
    output = folders.limited(root.ratings("lighting"), 3)
    write_jsonl(output, [rating("lighting", i, SURE["good"]) for i in ("a", "b", "b")])
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--mode", "score", "--limit", "3")
    assert ran.code == 0, ran.err
    assert [row["id"] for row in read_csv(folders.limited(root.scores("lighting"), 3))] == ["a", "b", "b"]


# ---- infer -----------------------------------------------------------------------------------------------------------


def with_twins(root) -> list[str]:
    """Repeat two images in the questions and the table; the ids in the order of the questions."""
    doubled = ["007", "abc", "007", "1e5", "0010", "nan", "abc"]
    mos = dict(zip(IDS, MOS, strict=True))
    write_jsonl(root.jsonl("lighting"), [record("lighting", i) for i in doubled])
    write_csv(root.csv("lighting"), [{"id": i, "lighting_score_mos": mos[i]} for i in doubled])
    return doubled


def images(path) -> list[str]:
    return [folders.image_id(line["images"][0]) for line in read_jsonl(path)]


@pytest.mark.parametrize("batch", ["1", "2", "64"])
def test_an_image_that_comes_twice_has_a_line_each(make_data_root, run_main, batch):
    root = make_data_root(["lighting"])
    doubled = with_twins(root)
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--max_batch_size", batch)
    assert ran.code == 0, ran.err
    assert f"{root.jsonl('lighting')}: 007, abc come more than once; every line of them is rated" in ran.err
    assert images(root.ratings("lighting")) == doubled
    lines = {}
    for line in read_jsonl(root.ratings("lighting")):
        assert lines.setdefault(line["images"][0], line)["logits"] == pytest.approx(line["logits"], abs=1e-4)
    assert [row["id"] for row in read_csv(root.scores("lighting")) if row["score_pred"]] == doubled
    assert "n 7, dropped 0" in ran.err


@pytest.mark.parametrize("kept", [1, 2, 4, 6])
def test_resume_goes_on_with_twins(make_data_root, run_main, kept):
    root = make_data_root(["lighting"])
    doubled = with_twins(root)
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer", "--max_batch_size", "2"]
    assert run_main("infer.py", *flags).code == 0
    result = root.ratings("lighting")
    whole, made = read_jsonl(result), json.loads(folders.run_record_path(result).read_text())
    result.unlink()
    write_jsonl(folders.partial_path(result), [{"identity": made["identity"], "engine": made["engine"]}, *whole[:kept]])
    ran = run_main("infer.py", *flags, "--resume")
    assert ran.code == 0, ran.err
    assert images(result) == doubled
    for line, before in zip(read_jsonl(result), whole, strict=True):
        assert line["logits"] == pytest.approx(before["logits"], abs=1e-4)
    assert json.loads(folders.run_record_path(result).read_text())["n"] == 7


@pytest.mark.slow
def test_workers_rate_twins_too(make_data_root, run_main, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root = make_data_root(["lighting"])
    doubled = with_twins(root)
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer", "--max_batch_size", "2"]
    assert run_main("infer.py", *flags).code == 0
    alone = root.ratings("lighting").read_bytes()
    ran = run_main("infer.py", *flags, "--workers", "2")
    assert ran.code == 0, ran.err
    assert images(root.ratings("lighting")) == doubled and root.ratings("lighting").read_bytes() == alone


def test_twins_whose_image_is_not_there_are_counted_each(make_data_root, run_main):
    root = make_data_root(["lighting"])
    with_twins(root)
    root.image("lighting", "007").unlink()
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer"]
    assert "missing: 2" in run_main("infer.py", *flags, "--dry_run").out
    ran = run_main("infer.py", *flags, "--json")
    assert (ran.code, ran.json["dimensions"]["lighting"]["n"]) == (3, 5)
    assert json.loads(folders.run_record_path(root.ratings("lighting")).read_text())["n"] == 5
    for image_id in IDS[1:]:
        root.image("lighting", image_id).unlink()
    ran = run_main("infer.py", *flags)
    assert (ran.code, "none of the 7 images" in ran.err) == (2, True)


def test_twins_that_cannot_be_read_leave_nothing_to_score(make_data_root, run_main):
    root = make_data_root(["lighting"])
    doubled = with_twins(root)
    for image_id in set(doubled):
        root.image("lighting", image_id).write_bytes(b"no image")
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting")
    assert (ran.code, "no image could be rated" in ran.err) == (3, True)


def test_sentences_are_read_from_annotations_with_twins(make_data_root, run_main, tmp_path):
    root = make_data_root(["lighting"])
    with_twins(root)
    flags = ["--prompts_from", root.jsonl("lighting").parent, "--output_jsonl", tmp_path / "out.jsonl"]
    ran = run_main("convert_csv_to_jsonl.py", "--input_csv", root.csv("lighting"), *flags)
    assert ran.code == 0 and len(read_jsonl(tmp_path / "out.jsonl")) == 7, ran.err


# ---- tables with twins -----------------------------------------------------------------------------------------------

ROWS = 24


def write_tables(folder, name, shift=0.0) -> None:
    """Scored tables of all dimensions, in which every id occurs twice, with different MOS and scores."""
    for dimension in facts.DIMENSIONS:
        rows = [
            {"id": f"{i // 2:03}", f"{dimension}_score_mos": 1 + i / 8, "score_pred": (4 + i / 8 + shift * (-1) ** i) / 2}
            for i in range(ROWS)
        ]
        write_csv(folder / facts.result_name(dimension, 4, name, ".csv"), rows)


def test_tables_with_twins_are_pooled_and_compared_row_by_row(run_main, tmp_path):
    write_tables(tmp_path, "a", shift=0.1)
    write_tables(tmp_path, "b", shift=0.9)
    ran = run_main("evaluate_correlation.py", "--results_dir", tmp_path, "--model_name", "a", "--full", "--json")
    assert (ran.code, ran.json["n"]) == (0, 4 * ROWS), ran.err
    merged = tmp_path / "all_prompt4_a.csv"
    for names in (["a", "b"], [merged, "b"]):
        ran = run_main("evaluate_correlation.py", "--results_dir", tmp_path, "--compare", *names, "--json")
        assert ran.code == 0, ran.err
        assert (ran.json["only_in_a"], ran.json["only_in_b"]) == (0, 0)
        assert [entry["n"] for entry in ran.json["comparison"]] == [ROWS] * 4 + [4 * ROWS]
        assert ran.json["comparison"][-1]["plcc"]["difference"] > 0


def test_a_report_shows_each_twin_its_own_image(make_data_root, run_main, tmp_path):
    root = make_data_root(["lighting"])
    for folder, colour in (("one", "red"), ("two", "blue")):
        (root.path / folder).mkdir()
        Image.new("RGB", (40, 40), colour).save(root.path / folder / "a.png")
    put(root, ["a", "a", "007", "abc"], [("a", "good"), ("a", "bad"), ("007", "poor"), ("abc", "fair")])
    lines = read_jsonl(root.ratings("lighting"))
    lines[0]["images"], lines[1]["images"] = ["SA-BENCH/one/a.png"], ["SA-BENCH/two/a.png"]
    write_jsonl(root.ratings("lighting"), lines)
    scored(root, run_main)
    (root.path / "one" / "a.png").unlink()
    report = tmp_path / "report.html"
    flags = [*root.flags, "--dimension", "lighting", "--mode", "eval", "--report", report]
    assert run_main("infer.py", *flags).code == 0
    text = report.read_text()
    assert text.count("one/a.png is not there") == 1 and text.count("data:image/jpeg") == 3


def test_ids_are_numbered_and_named():
    assert list(ids.numbered("abaa")) == [("a", 0), ("b", 0), ("a", 1), ("a", 2)]
    assert ids.twins(["x", "07", "7", "x", "07"]) == ["x", "07"]
    assert ids.few(iter("abcdefgh"), 8) == "a, b, c, d, e and 3 more"
    assert ids.few("ab", 2) == "a, b"


# ---- ids that are the same number ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("people", "model", "met"),
    [
        (["12", "abc"], ["0012", "abc"], {"12": "0012"}),
        (["0012", "0"], ["12", "000"], {"0012": "12", "0": "000"}),
        (["007", "12"], ["007", "12"], {}),
        (["007", "7"], ["007"], {}),  # 007 is there, and 7 might be another image
        (["7"], ["007", "07"], {}),
        (["7", "07"], ["007"], {}),
        (["7", "07"], ["007", "07"], {}),
        (["12"], ["12.0"], {}),
        (["12"], ["\u0661\u0662", "+12", " 12", "1_2", "12a"], {}),
        (["1" * 5000], ["0" + "1" * 5000], {"1" * 5000: "0" + "1" * 5000}),
        ([], ["1"], {}),
    ],
)
def test_ids_meet_as_numbers_where_no_text_does_and_nothing_else_can_be_meant(people, model, met):
    assert ids.same_number(people, model) == met


def test_numbers_written_in_two_ways_are_scored_counted_and_said(make_data_root, run_main, tmp_path):
    root = make_data_root(["lighting"], ids=["0012", "007", "13"], mos=["1", "3", "5"])
    put(root, ["12", "007", "0013"], [("0012", "good"), ("007", "bad"), ("13", "fair"), ("0012", "poor")])
    ran, predictions, record = scored(root, run_main)
    assert (ran.code, predictions) == (0, [repr(SCORE[word]) for word in ("good", "bad", "fair")]), ran.err
    assert f"lighting: 2 ids of {root.csv('lighting')} that are in {root.ratings('lighting')} as the same number" in ran.err
    assert "12 and 0012" in ran.err and (record["ids_met_as_numbers"], record["ratings_left_over"]) == (2, 1)
    report = tmp_path / "report.html"
    assert run_main("infer.py", *root.flags, "--dimension", "lighting", "--mode", "eval", "--report", report).code == 0
    assert report.read_text().count("data:image/jpeg") == 3


def test_numbers_that_could_be_two_images_do_not_meet(make_data_root, run_main):
    root = make_data_root(["lighting"])
    put(root, ["7", "007", "abc"], [("007", "good"), ("abc", "bad")])
    ran, predictions, record = scored(root, run_main)
    assert (ran.code, predictions) == (3, ["", repr(SCORE["good"]), repr(SCORE["bad"])])
    assert "lighting 7: no rating in" in ran.err and record["ids_met_as_numbers"] == 0


def test_a_table_of_which_every_id_is_written_otherwise_goes_through_all_stages(make_data_root, run_main):
    root = make_data_root(["lighting"], ids=["001", "002", "003", "004"], mos=["1", "2", "3", "4"])
    write_csv(root.csv("lighting"), [{"id": str(i), "lighting_score_mos": str(i)} for i in (1, 2, 3, 4)])
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting")
    assert ran.code == 0 and "4 ids of" in ran.err, ran.err
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--limit", "3")
    assert ran.code == 0, ran.err
    assert [row["id"] for row in read_csv(folders.limited(root.scores("lighting"), 3))] == ["1", "2", "3"]
