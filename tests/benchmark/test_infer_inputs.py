"""What infer.py checks before it loads a model, and where it looks for models and results."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from helpers import IDS, REPOSITORY, SMALL_BUNDLE, TOOLS, record, write_csv, write_jsonl

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
    assert "using the newest checkpoint of the training run in it, v1-20250102-000000/checkpoint-9" in ran.err
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
    assert (ran.code, "lacks 1 of its 2 weight files" in ran.err) == (2, True)
