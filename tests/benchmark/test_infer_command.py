"""infer.py from end to end, with the real engine on a small real bundle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from helpers import (
    IDS,
    REPOSITORY,
    SMALL_BUNDLE,
    TOOLS,
    interruptible,
    rating,
    read_csv,
    read_jsonl,
    record,
    write_csv,
    write_jsonl,
)
from saiqa import engines, facts
from saiqa.files import checkpoint_folders, folders
from saiqa.scoring import score_of, score_of_known

GOOD = {"excellent": -2.0, "good": -0.3, "fair": -3.0, "poor": -5.0, "bad": -7.0}


# ---- the way of one image --------------------------------------------------------------------------------------------


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
    """importlib that notes what is imported."""

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


def test_failures_are_retried_by_resume_and_nothing_else_is(make_data_root, run_main):
    root = make_data_root(["lighting"])
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer"]
    good = root.image("lighting", "abc").read_bytes()
    run_main("infer.py", *flags)
    whole = read_jsonl(root.ratings("lighting"))
    root.image("lighting", "abc").write_bytes(b"no image")
    assert run_main("infer.py", *flags).code == 3
    assert len(read_jsonl(root.ratings("lighting"))) == 4
    root.image("lighting", "abc").write_bytes(good)
    ran = run_main("infer.py", *flags, "--resume")
    assert (ran.code, "4 of 5 images are rated already" in ran.err) == (0, True)
    again = read_jsonl(root.ratings("lighting"))
    assert [line["images"] for line in again] == [line["images"] for line in whole]
    for line, before in zip(again, whole, strict=True):  # sums are rounded differently in another batch
        assert line["logits"] == pytest.approx(before["logits"], abs=1e-4)


def test_without_a_single_image_nothing_is_loaded(make_data_root, run_main):
    root = make_data_root(["lighting"])
    shutil.rmtree(root.path / "images")
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting")
    assert ran.code == 2
    assert "none of the 5 images" in ran.err
    assert "python tools/download.py data" in ran.err


# ---- interruption ----------------------------------------------------------------------------------------------------


def test_ctrl_c_keeps_what_is_rated_and_resume_goes_on(make_data_root, run_main, stop_after, monkeypatch):
    root = make_data_root(["lighting"])
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer", "--max_batch_size", "1"]
    run_main("infer.py", *flags)
    whole = root.ratings("lighting").read_bytes()
    stop_after(2, KeyboardInterrupt)
    ran = run_main("infer.py", *flags)
    assert ran.code == 130
    assert "2 rated images are kept" in ran.err
    assert "--resume" in ran.err
    assert root.ratings("lighting").read_bytes() == whole  # the old result stays

    partial = folders.partial_path(root.ratings("lighting"))
    with partial.open("ab") as file:
        file.write(b'{"images": ["SA-BENCH/images/li')  # torn by a crash
    stop_after(3, KeyboardInterrupt)  # enough for what is left, not for everything
    ran = run_main("infer.py", *flags, "--resume")
    assert ran.code == 0, ran.err
    assert "2 of 5 images are rated already" in ran.err
    assert root.ratings("lighting").read_bytes() == whole
    assert not partial.exists()


def test_a_partial_result_is_set_aside_once_the_model_has_loaded_and_never_removed(make_data_root, run_main, stop_after):
    root = make_data_root(["lighting"])
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer", "--max_batch_size", "1"]
    stop_after(2, KeyboardInterrupt)
    run_main("infer.py", *flags)
    partial = folders.partial_path(root.ratings("lighting"))
    before = partial.read_bytes()
    assert run_main("infer.py", *flags, "--device", "cuda:99").code == 2  # the model does not load
    assert partial.read_bytes() == before
    stop_after(99, KeyboardInterrupt)
    ran = run_main("infer.py", *flags)
    assert ran.code == 0
    assert not partial.exists()
    kept = partial.with_name(f"{partial.name}.1")
    assert f"{kept.name} keeps 2 lines of an interrupted run" in ran.err
    assert kept.read_bytes() == before
    os.replace(kept, partial)
    assert "2 of 5 images are rated already" in run_main("infer.py", *flags, "--resume").err


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (["--system", "Be brief."], "system was You are a helpful assistant., is Be brief."),
        (["--dtype", "bfloat16"], "dtype was float32, is bfloat16"),
        (["--engine", "swift"], "engine was prefill, is swift"),
    ],
)
def test_resume_refuses_another_run(make_data_root, run_main, changed, what):
    root = make_data_root(["lighting"])
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer"]
    assert run_main("infer.py", *flags).code == 0
    ran = run_main("infer.py", *flags, "--resume", *changed)
    assert ran.code == 2
    assert what in ran.err


def test_resume_refuses_another_model_and_another_prompt(make_data_root, run_main, tmp_path):
    root = make_data_root(["lighting"])
    model = tmp_path / "model" / SMALL_BUNDLE.name
    shutil.copytree(SMALL_BUNDLE, model)
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer", "--model_path", str(model)]
    assert run_main("infer.py", *flags).code == 0

    write_jsonl(root.jsonl("lighting"), [record("lighting", i, query=facts.query("lighting", 1)) for i in IDS])
    ran = run_main("infer.py", *flags, "--resume")
    assert (ran.code, "prompt was" in ran.err) == (2, True)

    write_jsonl(root.jsonl("lighting"), [record("lighting", i) for i in IDS])
    weights = model / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1000:] = bytes(1000)  # trained on: same shapes, other values
    weights.write_bytes(changed)
    ran = run_main("infer.py", *flags, "--resume")
    assert (ran.code, "model was" in ran.err) == (2, True)


def test_resume_of_a_finished_run_loads_no_model(make_data_root, run_main, stop_after):
    root = make_data_root(["lighting"])
    flags = [*root.flags, "--dimension", "lighting"]
    first = run_main("infer.py", *flags)
    stop_after(0, AssertionError)
    ran = run_main("infer.py", *flags, "--resume")
    assert (ran.code, ran.out) == (0, first.out)
    assert "nothing to infer" in ran.err


def test_resume_refuses_a_result_that_nothing_tells_about(make_data_root, run_main):
    root = make_data_root(["lighting"])
    write_jsonl(root.ratings("lighting"), [rating("lighting", i, GOOD) for i in IDS])
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--resume")
    assert ran.code == 2
    assert ".run.json" in ran.err


def test_an_unknown_error_keeps_the_ratings_and_its_traceback(make_data_root, run_main, stop_after):
    root = make_data_root(["lighting"])
    stop_after(1, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        run_main("infer.py", *root.flags, "--dimension", "lighting", "--max_batch_size", "2")
    assert len(read_jsonl(folders.partial_path(root.ratings("lighting")))) == 1 + 2


def test_a_real_interrupt_leaves_130_and_a_partial_file(make_data_root):
    ids = [f"i{n:03}" for n in range(150)]
    root = make_data_root(["lighting"], ids=ids, mos=["3"] * len(ids))
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer", "--max_batch_size", "1"]
    command = [sys.executable, TOOLS / "infer.py", *flags]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible)
    partial = folders.partial_path(root.ratings("lighting"))
    deadline = time.monotonic() + 120
    while not (partial.exists() and partial.read_bytes().count(b"\n") > 2) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "continue with --resume" in err
    assert "Traceback" not in err
    assert partial.exists()


# ---- checks before the model loads -----------------------------------------------------------------------------------


def drop_csv(root):
    root.csv("layout").unlink()


def drop_column(root):
    write_csv(root.csv("layout"), [{"id": i, "other": "3"} for i in IDS])


def break_line(root):
    with root.jsonl("layout").open("a") as file:
        file.write('{"query": "<image>", \n')


def empty_jsonl(root):
    root.jsonl("layout").write_text("")


def empty_csv(root):
    root.csv("layout").write_text("id,layout_score_mos\n")


def no_query(root):
    write_jsonl(root.jsonl("layout"), [record("layout", "abc", query="")])


def two_images(root):
    write_jsonl(root.jsonl("layout"), [record("layout", "abc", images=["a.png", "b.png"])])


def other_ids(root):
    write_csv(root.csv("layout"), [{"id": f"x{i}", "layout_score_mos": "3"} for i in IDS])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (drop_csv, "layout_6k_test.csv is not there"),
        (drop_column, "no column layout_score_mos"),
        (break_line, "layout_6k_test_prompt4.jsonl, line 6: not JSON"),
        (empty_jsonl, "is empty"),
        (empty_csv, "no rows"),
        (no_query, 'line 1: no "query"'),
        (two_images, "not a list of one path"),
        (other_ids, "none of the ids"),
    ],
)
def test_bad_input_of_any_dimension_is_found_before_the_model_loads(make_data_root, run_main, stop_after, damage, says):
    root = make_data_root(["distortion", "harmony", "layout", "lighting"])
    damage(root)
    stop_after(0, AssertionError)
    ran = run_main("infer.py", *root.flags)
    assert ran.code == 2
    assert says in ran.err
    assert ran.err.count("error:") == 1
    assert not root.results.exists()


def test_a_missing_bundle_names_the_downloads_and_the_demo(make_data_root, run_main, tmp_path):
    root = make_data_root(["lighting"])
    ran = run_main("infer.py", *root.flags, "--model_path", tmp_path / "nowhere")
    assert ran.code == 2
    assert "python tools/download.py model annotations" in ran.err
    assert "--demo" in ran.err


def test_dry_run_says_the_plan_and_loads_nothing(make_data_root, stop_after, run_main):
    root = make_data_root(["lighting"])
    root.image("lighting", "abc").unlink()
    stop_after(0, AssertionError)
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--dry_run")
    assert ran.code == 3
    assert "missing: 1" in ran.out
    assert "lighting abc" in ran.err
    assert not root.results.exists()


def test_an_output_that_cannot_be_written_is_found_before_the_model_loads(make_data_root, run_main, stop_after):
    root = make_data_root(["lighting"])
    root.results.write_text("a file where the folder should be")
    stop_after(0, AssertionError)
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting")
    assert (ran.code, "cannot write" in ran.err) == (1, True)


def test_dry_run_imports_no_torch(make_data_root):
    root = make_data_root(["lighting"])
    code = "import sys, infer; infer.main(sys.argv[1:]); assert not {'torch', 'transformers'} & sys.modules.keys()"
    flags = [*root.flags, "--dimension", "lighting", "--dry_run"]
    environment = {**os.environ, "PYTHONPATH": str(TOOLS)}
    subprocess.run([sys.executable, "-c", code, *flags], env=environment, check=True, capture_output=True)


def test_remote_code_belongs_to_the_swift_engine(make_data_root, run_main):
    ran = run_main("infer.py", *make_data_root(["lighting"]).flags, "--trust_remote_code")
    assert (ran.code, "--engine swift" in ran.err) == (2, True)


# ---- score and eval on their own -------------------------------------------------------------------------------------


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


# ---- places ----------------------------------------------------------------------------------------------------------


def test_defaults_are_relative_to_the_repository(run_main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = run_main("infer.py", "--mode", "eval", "--dimension", "lighting", "--model_path", "no-such-model")
    assert str(REPOSITORY / "results" / "lighting_prompt4_no-such-model.csv") in ran.err


def test_the_demo_has_its_own_results(run_main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = run_main("infer.py", "--mode", "eval", "--dimension", "lighting", "--demo", "--model_path", "no-such-model")
    assert str(REPOSITORY.joinpath("results", "demo", "lighting_prompt4_no-such-model.csv")) in ran.err


def test_a_training_run_folder_gives_its_newest_checkpoint(make_data_root, run_main, tmp_path):
    root = make_data_root(["lighting"])
    trained = tmp_path / "sa-iqa-prompt4"
    for checkpoint in ("v0-20250101-000000/checkpoint-90", "v1-20250102-000000/checkpoint-9"):
        shutil.copytree(SMALL_BUNDLE, trained / checkpoint)
    (trained / "v1-20250102-000000/checkpoint-10").mkdir()  # stopped while saving
    flags = ["--dimension", "lighting", "--mode", "infer", "--model_path", trained, "--dry_run"]
    ran = run_main("infer.py", *root.flags, *flags)
    assert ran.code == 0, ran.err
    assert "taking the newest checkpoint of the training run in it, v1-20250102-000000/checkpoint-9" in ran.err
    assert "lighting_prompt4_sa-iqa-prompt4.jsonl" in ran.out


def test_only_safetensors_are_loaded(make_data_root, run_main, tmp_path):
    model = tmp_path / "pickled"
    model.mkdir()
    shutil.copy(SMALL_BUNDLE / "config.json", model)
    (model / "pytorch_model.bin").write_bytes(b"x")
    ran = run_main("infer.py", *make_data_root(["lighting"]).flags, "--model_path", model)
    assert (ran.code, "safetensors only" in ran.err) == (2, True)


def test_a_half_finished_download_is_refused(make_data_root, run_main, tmp_path):
    model = tmp_path / "half"
    model.mkdir()
    shutil.copy(SMALL_BUNDLE / "config.json", model)
    (model / "model-00001-of-00002.safetensors").write_bytes(b"x")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    ran = run_main("infer.py", *make_data_root(["lighting"]).flags, "--model_path", model)
    assert (ran.code, "lacks 1 of its 2 files of weights" in ran.err) == (2, True)
