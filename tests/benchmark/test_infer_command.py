"""infer.py end to end, with the real engine on a small real bundle: the path of an image, prompts, images that fail."""

from __future__ import annotations

import json
import shutil

import pytest

from helpers import IDS, SMALL_BUNDLE, read_csv, read_jsonl, record, write_csv, write_jsonl
from saiqa import engines, facts
from saiqa.files import checkpoint_folders, folders
from saiqa.scoring import score_of

# ---- the path of one image -------------------------------------------------------------------------------------------


def test_all_rates_scores_and_evaluates(make_data_root, run_main):
    root = make_data_root(["lighting"])
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting")
    assert ran.code == 0, ran.err

    ratings = read_jsonl(root.ratings("lighting"))
    assert [line["images"] for line in ratings] == [record("lighting", i)["images"] for i in IDS]
    assert all(list(line["logits"]) == list(facts.WORDS) for line in ratings)
    rows = read_csv(root.scores("lighting"))
    assert list(rows[0]) == ["id", "model", "lighting_score_a", "lighting_score_mos", "score_pred"]
    assert [row["id"] for row in rows] == IDS
    assert [float(row["score_pred"]) for row in rows] == [score_of(line["logits"]) for line in ratings]
    lines = ran.out.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["PLCC", "SRCC"]
    assert all(len(line.split(".")[1]) == 3 for line in lines)
    assert "n 5, dropped 0" in ran.err


def test_all_dimensions_share_one_model_load(make_data_root, run_main, monkeypatch):
    root = make_data_root()
    loads = []
    monkeypatch.setattr(engines, "importlib", _counting(engines.importlib, loads))
    ran = run_main("infer.py", *root.flags)
    assert ran.code == 0, ran.err
    assert loads == ["saiqa.engines.prefill_engine"]
    assert [line for line in ran.out.splitlines() if "LCC" not in line and "SRCC" not in line] == [
        f"{dimension} (n 5)" for dimension in facts.DIMENSIONS
    ]
    assert all(root.scores(dimension).is_file() for dimension in facts.DIMENSIONS)


class _counting:
    """importlib that records imports."""

    def __init__(self, real, imported):
        self.real, self.imported = real, imported

    def import_module(self, name):
        self.imported.append(name)
        return self.real.import_module(name)


def test_the_stages_one_by_one_give_what_all_gives(make_data_root, run_main):
    root = make_data_root(["layout"])
    flags = [*root.flags, "--dimension", "layout"]
    at_once = run_main("infer.py", *flags)
    table = root.scores("layout").read_bytes()
    shutil.rmtree(root.results)
    for mode in ("infer", "score"):
        ran = run_main("infer.py", *flags, "--mode", mode)
        assert (ran.code, ran.out) == (0, "")
    assert root.scores("layout").read_bytes() == table
    assert run_main("infer.py", *flags, "--mode", "eval").out == at_once.out


def test_the_dimension_is_taken_from_the_file_name(make_data_root, run_main):
    root = make_data_root(["harmony"])
    ran = run_main("infer.py", *root.flags, "--test_jsonl", root.jsonl("harmony"), "--mode", "infer")
    assert ran.code == 0, ran.err
    assert root.ratings("harmony").is_file()


def test_files_of_one_dimension_do_not_go_with_all(make_data_root, run_main):
    root = make_data_root(["harmony"])
    ran = run_main("infer.py", *root.flags, "--dimension", "all", "--test_jsonl", root.jsonl("harmony"))
    assert ran.code == 2
    assert "--test_jsonl" in ran.err
    renamed = root.path / "questions.jsonl"
    shutil.copy(root.jsonl("harmony"), renamed)
    ran = run_main("infer.py", *root.flags, "--test_jsonl", renamed)
    assert ran.code == 2
    assert "Add --dimension" in ran.err


def test_an_output_never_overwrites_an_input(make_data_root, run_main):
    root = make_data_root(["harmony"])
    ran = run_main("infer.py", *root.flags, "--dimension", "harmony", "--output_csv", root.csv("harmony"))
    assert ran.code == 2
    assert len(read_csv(root.csv("harmony"))) == len(IDS)


def test_gt_column_may_name_the_dimension(make_data_root, run_main):
    root = make_data_root(["lighting"])
    write_csv(root.csv("lighting"), [{"id": i, "mos_lighting": m} for i, m in zip(IDS, "12345", strict=True)])
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--gt_column", "mos_{dimension}")
    assert ran.code == 0, ran.err


def test_limit_scores_the_first_and_says_so_in_the_name(make_data_root, run_main):
    root = make_data_root(["lighting"])
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--limit", "3")
    assert ran.code == 0, ran.err
    name = SMALL_BUNDLE.name + "_limit3"
    assert len(read_jsonl(root.ratings("lighting", name))) == 3
    assert [row["id"] for row in read_csv(root.scores("lighting", name))] == IDS[:3]
    assert not root.scores("lighting").exists()


def test_a_name_that_is_given_stays_as_it_is_with_a_limit_too(make_data_root, run_main, tmp_path):
    root = make_data_root(["lighting"])
    given = ("--output_jsonl", str(tmp_path / "some.jsonl"), "--output_csv", str(tmp_path / "some.csv"))
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--limit", "3", *given)
    assert ran.code == 0, ran.err
    assert len(read_jsonl(tmp_path / "some.jsonl")) == len(read_csv(tmp_path / "some.csv")) == 3


@pytest.mark.parametrize("flags", [["lighting,layout"], ["lighting", "--dimension", "layout"]])
def test_several_dimensions_are_named_with_commas_or_one_by_one(make_data_root, run_main, flags):
    root = make_data_root()
    ran = run_main("infer.py", *root.flags, "--dimension", *flags, "--json")
    assert ran.code == 0 and list(ran.json["dimensions"]) == ["layout", "lighting"], ran.err


def test_all_missing_dimensions_are_named_at_once(make_data_root, run_main):
    root = make_data_root(["lighting"])
    ran = run_main("infer.py", *root.flags)
    assert ran.code == 2
    missing = [name for name in facts.DIMENSIONS if name != "lighting"]
    assert all(root.jsonl(name).name in ran.err for name in missing) and root.jsonl("lighting").name not in ran.err
    ran = run_main("evaluate_correlation.py", "--results_dir", str(root.results))
    assert ran.code == 2 and "--dimension distortion,harmony,layout,lighting" in ran.err


def test_json_is_one_object_on_stdout(make_data_root, run_main):
    root = make_data_root(["lighting"])
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--json")
    lighting = ran.json["dimensions"]["lighting"]
    assert (ran.code, lighting["n"], lighting["dropped"], lighting["failed"]) == (0, 5, 0, [])
    assert -1 <= lighting["plcc"] <= 1
    assert lighting["output_csv"] == str(root.scores("lighting"))


def test_the_run_record_tells_how_a_result_was_made(make_data_root, run_main):
    root = make_data_root(["lighting"])
    run_main("infer.py", *root.flags, "--dimension", "lighting", "--system", "Be brief.")
    found = json.loads(folders.run_record_path(root.scores("lighting")).read_text())
    assert found["model_path"] == str(SMALL_BUNDLE)
    assert found["model_fingerprint"] == checkpoint_folders.fingerprint(SMALL_BUNDLE)
    assert found["prompts"] == [{"query": facts.query("lighting", 4), "answer_prefix": facts.answer_prefix("lighting")}]
    assert found["system"] == "Be brief."
    assert (found["engine"]["engine"], found["engine"]["dtype"]) == ("prefill", "float32")
    assert {"python", "torch", "transformers"} <= found["packages"].keys()
    assert (found["n"], found["failed"], found["limit"]) == (5, [], None)
    assert found["score"]["n"] == 5
    assert "infer.py" in found["command"]
    assert found["seconds"] >= 0


# ---- prompts ---------------------------------------------------------------------------------------------------------


def test_records_without_an_answer_take_that_of_another(make_data_root, run_main):
    root = make_data_root(["lighting"])
    whole = run_main("infer.py", *root.flags, "--dimension", "lighting", "--mode", "infer")
    ratings = root.ratings("lighting").read_bytes()
    lines = [record("lighting", i, **({} if i == "abc" else {"response": ""})) for i in IDS]
    write_jsonl(root.jsonl("lighting"), lines)
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--mode", "infer")
    assert (whole.code, ran.code) == (0, 0)
    assert root.ratings("lighting").read_bytes() == ratings
    assert "4 of 5 records" in ran.err
    assert "another record of the file" in ran.err


@pytest.mark.parametrize("annotated", [True, False])
def test_a_file_without_answers_takes_those_of_the_annotations_else_our_own(make_data_root, run_main, annotated):
    root = make_data_root(["lighting"])
    questions = root.path / "lighting_mine.jsonl"
    write_jsonl(questions, [{k: v for k, v in record("lighting", i).items() if k != "response"} for i in IDS])
    if not annotated:
        root.jsonl("lighting").unlink()
    ran = run_main("infer.py", *root.flags, "--test_jsonl", questions, "--mode", "infer")
    assert ran.code == 0, ran.err
    assert ("lighting_3k_test_prompt4.jsonl" if annotated else "tools/prompt_configs.py") in ran.err


# ---- images ----------------------------------------------------------------------------------------------------------


def test_missing_and_corrupt_images_fail_alone(make_data_root, run_main):
    root = make_data_root(["lighting", "layout"])
    root.image("lighting", "abc").write_bytes(b"no image")
    root.image("lighting", "0010").unlink()
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting")
    assert ran.code == 3
    assert "lighting abc: cannot read the image" in ran.err
    assert "lighting 0010: " in ran.err
    assert "2 images have no score" in ran.err
    assert "n 3, dropped 2" in ran.err
    assert ran.out.startswith("PLCC: ")
    scores = {row["id"]: row["score_pred"] for row in read_csv(root.scores("lighting"))}
    assert [i for i, score in scores.items() if not score] == ["abc", "0010"]
    found = json.loads(folders.run_record_path(root.ratings("lighting")).read_text())
    assert [failed["id"] for failed in found["failed"]] == ["0010", "abc"]


def test_without_a_single_image_nothing_is_loaded(make_data_root, run_main):
    root = make_data_root(["lighting"])
    shutil.rmtree(root.path / "images")
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting")
    assert ran.code == 2
    assert "none of the 5 images" in ran.err
    assert "python tools/download.py data" in ran.err
