"""convert_csv_to_jsonl.py."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image

from helpers import IDS, MOS, TOOLS, read_jsonl, record, write_csv, write_jsonl
from saiqa import facts
from saiqa.files import folders
from saiqa.scoring import word_of_mos

COMMAND = "convert_csv_to_jsonl.py"


@pytest.mark.parametrize("dimension", facts.DIMENSIONS)
@pytest.mark.parametrize("version", facts.PROMPT_VERSIONS)
def test_everything_follows_from_the_name_of_the_table(make_data_root, run_main, dimension, version):
    root = make_data_root([dimension])
    root.jsonl(dimension).unlink()
    ran = run_main(COMMAND, "--input_csv", root.csv(dimension), "--prompt_version", version)
    assert ran.code == 0, ran.err
    lines = read_jsonl(root.jsonl(dimension, version=version))
    assert [line["images"] for line in lines] == [record(dimension, i)["images"] for i in IDS]
    assert {line["query"] for line in lines} == {facts.query(dimension, version)}
    assert [line["response"] for line in lines] == [facts.response(dimension, word_of_mos(mos)) for mos in MOS]


def test_its_output_is_what_infer_reads(make_data_root, run_main):
    root = make_data_root(["layout"])
    root.jsonl("layout").unlink()
    run_main(COMMAND, "--input_csv", root.csv("layout"))
    ran = run_main("infer.py", *root.flags, "--dimension", "layout")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg", ".png", ".webp", ".WebP"])
def test_the_image_suffix_is_the_one_on_disk(make_data_root, run_main, suffix):
    root = make_data_root(["layout"])
    old = root.image("layout", "abc")
    Image.open(old).save(root.image("layout", "abc", suffix))
    if old != root.image("layout", "abc", suffix):
        old.unlink()
    assert run_main(COMMAND, "--input_csv", root.csv("layout")).code == 0
    lines = read_jsonl(root.jsonl("layout"))
    assert lines[1]["images"] == [f"SA-BENCH/images/layout/images/abc{suffix}"]
    assert folders.resolve_image(lines[1]["images"][0], root.path).is_file()


def test_annotations_are_converted_without_images(make_data_root, run_main):
    root = make_data_root(["layout"], ids=["007", "abc", "x"], mos=["3.5", "1", "5"])
    root.image("layout", "007").unlink()
    ran = run_main(COMMAND, "--input_csv", root.csv("layout"))
    assert ran.code == 0 and "1 images are not in" in ran.err
    names = [line["images"][0].rpartition("/")[2] for line in read_jsonl(root.jsonl("layout"))]
    assert names == ["007.jpg", "abc.png", "x.png"]
    shutil.rmtree(root.path / "images")
    ran = run_main(COMMAND, "--input_csv", root.csv("layout"))
    assert ran.code == 0 and "3 images are not in" in ran.err
    images = [f"SA-BENCH/images/layout/images/{i}.jpg" for i in root.ids]
    assert [line["images"] for line in read_jsonl(root.jsonl("layout"))] == [[image] for image in images]


def test_raters_cells_may_be_empty(make_data_root, run_main):
    root = make_data_root(["distortion"], ids=["a", "b"], mos=["3.5", "1"])
    rows = [("a", "3", "4", "3.5"), ("b", "1", "", "1")]
    columns = ("id", "distortion_score_a", "distortion_score_b", "distortion_score_mos")
    write_csv(root.csv("distortion"), [dict(zip(columns, row, strict=True)) for row in rows])
    assert run_main(COMMAND, "--input_csv", root.csv("distortion")).code == 0
    assert [line["response"] for line in read_jsonl(root.jsonl("distortion"))] == [
        facts.response("distortion", word) for word in ("good", "bad")
    ]


def test_rows_that_cannot_be_converted_are_listed_and_left_out(make_data_root, run_main):
    root = make_data_root(["layout"], mos=["3.5", "", "6.0", "nan", "2.0"])
    root.image("layout", "007").unlink()
    ran = run_main(COMMAND, "--input_csv", root.csv("layout"), "--check_images")
    assert ran.code == 3
    assert len(read_jsonl(root.jsonl("layout"))) == 1
    for says in ("007: no image", "abc: MOS ''", "1e5: MOS '6.0'", "0010: MOS 'nan'", "4 rows were left out"):
        assert says in ran.err


def test_nothing_is_written_where_no_row_can_be_converted(make_data_root, run_main):
    root = make_data_root(["layout"], mos=["9"] * 5)
    before = root.jsonl("layout").read_bytes()
    ran = run_main(COMMAND, "--input_csv", root.csv("layout"))
    assert ran.code == 2
    assert root.jsonl("layout").read_bytes() == before


def test_images_outside_a_data_root_are_written_as_given(tmp_path, run_main, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "photos" / "007.webp")
    write_csv(tmp_path / "mine.csv", [{"id": "007", "mos": "4.4"}])
    flags = ["--input_csv", "mine.csv", "--dimension", "layout", "--score_column", "mos"]
    ran = run_main(COMMAND, *flags, "--image_dir", "photos", "--output_jsonl", "out/questions.jsonl")
    assert ran.code == 0, ran.err
    line = read_jsonl(tmp_path / "out" / "questions.jsonl")[0]
    assert line == {
        "query": facts.query("layout", 4),
        "response": facts.response("layout", "good"),
        "images": ["photos/007.webp"],
    }
    assert folders.resolve_image(line["images"][0], tmp_path / "no-root").is_file()


def test_sentences_may_come_from_an_annotation_folder(make_data_root, run_main, tmp_path):
    root = make_data_root(["layout"])
    theirs = record("layout", "x", query="<image>Say how it is laid out.", response="It is laid out fair indeed.")
    write_jsonl(tmp_path / "theirs" / facts.annotation_jsonl("layout", "train", 4), [theirs])
    ran = run_main(COMMAND, "--input_csv", root.csv("layout"), "--prompts_from", tmp_path / "theirs")
    assert ran.code == 0, ran.err
    line = read_jsonl(root.jsonl("layout"))[0]
    assert (line["query"], line["response"]) == (theirs["query"], "It is laid out good indeed.")
    ran = run_main(COMMAND, "--input_csv", root.csv("layout"), "--prompts_from", TOOLS)
    assert (ran.code, "no sentences for layout" in ran.err) == (2, True)


def test_dry_run_writes_nothing_and_json_is_one_object(make_data_root, run_main):
    root = make_data_root(["layout"])
    root.jsonl("layout").unlink()
    ran = run_main(COMMAND, "--input_csv", root.csv("layout"), "--dry_run", "--json")
    assert ran.code == 0
    assert ran.json == {"output_jsonl": str(root.jsonl("layout")), "dry_run": True, "n": 5, "failed": []}
    assert not root.jsonl("layout").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "required: --input_csv"),
        (["--input_csv", "layout_none.csv"], "layout_none.csv is not there"),
        (["--input_csv", "mine.csv"], "Add --dimension"),
        (["--input_csv", "{csv}", "--score_column", "x"], "no column x"),
        (["--input_csv", "{csv}", "--image_dir", "nowhere", "--check_images"], "image folder nowhere is not there"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(make_data_root, run_main, flags, says):
    root = make_data_root(["layout"])
    ran = run_main(COMMAND, *(flag.format(csv=root.csv("layout")) for flag in flags))
    assert ran.code == 2
    assert says in ran.err
    assert ran.err.count("\n") == 1


def test_rows_of_an_id_that_comes_twice_are_all_converted(make_data_root, run_main):
    root = make_data_root(["layout"])
    write_csv(root.csv("layout"), [{"id": i, "layout_score_mos": m} for i, m in (("abc", "3"), ("007", "5"), ("abc", "1"))])
    ran = run_main(COMMAND, "--input_csv", root.csv("layout"))
    assert (ran.code, f"{root.csv('layout')}: abc occur more than once; each row becomes a line" in ran.err) == (0, True)
    lines = read_jsonl(root.jsonl("layout"))
    assert [line["images"] for line in lines] == [record("layout", i)["images"] for i in ("abc", "007", "abc")]
    assert [line["response"] for line in lines] == [facts.response("layout", word) for word in ("fair", "excellent", "bad")]
