"""CSV, JSONL and partial files, read and written."""

from __future__ import annotations

import json
import math

import pytest

from helpers import record, write_jsonl
from saiqa import facts
from saiqa.errors import Failed, InputError
from saiqa.files import csv_files, jsonl, question_files, text_files
from saiqa.run import log


@pytest.fixture
def table(tmp_path):
    def write(text: str):
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode())
        return path

    return write


def test_cells_are_text_and_come_out_as_they_went_in(table, tmp_path):
    text = 'id,note,x\n007,"a, b",1.0\nabc,"two\nlines",NA\n1e5,"say ""hi""",\n'
    read = csv_files.read_csv(table(text))
    assert read.column("id") == ["007", "abc", "1e5"]
    assert read.column("x") == ["1.0", "NA", ""]
    out = tmp_path / "out.csv"
    csv_files.write_csv(out, read.columns, read.rows)
    assert out.read_text() == text


def test_a_byte_order_mark_and_windows_lines_are_fine(table):
    read = csv_files.read_csv(table("\ufeffid,x\r\n1,2\r\n\r\n"), required=["id"])
    assert read.rows == [{"id": "1", "x": "2"}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        ("id,x\n", "has a header and no rows"),
        ("name,x\n1,2\n", "no column id. Its columns are name, x"),
        ("id,x,x\n1,2,3\n", "column name x comes more than once"),
        ("id,x\n1,2\n3\n", "line 3: 1 cells under 2 columns"),
        ("id,x\n1,2,3\n", "line 2: 3 cells under 2 columns"),
    ],
)
def test_broken_tables_are_refused(table, text, says):
    with pytest.raises(InputError, match=says):
        csv_files.read_csv(table(text), required=["id"])


def test_missing_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="not there"):
        csv_files.read_csv(tmp_path / "none.csv")
    with pytest.raises(InputError, match="cannot read"):
        csv_files.read_csv(tmp_path)
    (tmp_path / "latin.csv").write_bytes(b"id\n\xe9\n")
    with pytest.raises(InputError, match="UTF-8"):
        csv_files.read_csv(tmp_path / "latin.csv")


def test_json_lines_know_their_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "x\u2028y"}\n\n{"b": 2}\n', encoding="utf-8")
    assert jsonl.read_jsonl(path) == [(1, {"a": "x\u2028y"}), (3, {"b": 2})]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: not JSON"),
        ("{} {}", "line 2: not JSON"),
        ("{}\u00a0", "line 2: not JSON"),
        ("[1]", "line 2: not a JSON object"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, says):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n')
    with pytest.raises(InputError, match=f"a.jsonl, {says}"):
        jsonl.read_jsonl(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.jsonl"
    jsonl.write_jsonl(path, [{"a": 1}])
    with pytest.raises(ValueError, match="not JSON compliant"):
        jsonl.write_jsonl(path, [{"a": 2}, {"a": math.nan}])
    assert path.read_text() == '{"a": 1}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Failed, match="cannot write"):
        text_files.write_text(tmp_path / "file" / "out.csv", "x")


def test_records_of_a_benchmark_file(tmp_path):
    path = tmp_path / "q.jsonl"
    write_jsonl(path, [record("layout", "007"), {k: v for k, v in record("layout", "b.c").items() if k != "response"}])
    first, second = question_files.read_records(path)
    assert first.response == facts.response("layout", "good")
    assert (second.image, second.response) == ("SA-BENCH/images/layout/images/b.c.png", "")


def test_sentences_of_an_annotation_folder(tmp_path):
    name = facts.annotation_jsonl("layout", "train", 2)
    line = record("layout", "a", query="<image>How is it?", response="Good rooms are rare, this is Poor!")
    write_jsonl(tmp_path / facts.ANNOTATIONS_FOLDER / name, [record("layout", "b", response="no idea"), line])
    found = question_files.sentences(tmp_path, "layout", 2)
    assert (found.query, found.before) == ("<image>How is it?", "Good rooms are rare, this is")
    assert found.response("bad") == "Good rooms are rare, this is bad!"
    assert found.source.endswith(name)


def test_without_annotations_the_sentences_are_our_own(tmp_path):
    found = question_files.sentences(tmp_path, "layout", 3)
    assert found.query == facts.query("layout", 3)
    assert found.before == facts.answer_prefix("layout")
    assert all(found.response(word) == facts.response("layout", word) for word in facts.WORDS)
    assert found.source == "tools/prompt_configs.py"


def line(image: str) -> dict:
    return {"images": [image], "logits": {}}


def test_a_partial_file_survives_a_torn_line(tmp_path):
    path = tmp_path / "r.jsonl.partial"
    partial = log.Partial(path, {"identity": {"model": "m"}})
    partial.start()
    partial.append([line("a"), line("b")])
    with path.open("ab") as file:
        file.write(json.dumps(line("c")).encode()[:-1])
    again = log.Partial.read(path)
    assert again.header == {"identity": {"model": "m"}}
    assert (again.count, [image in again.rated for image in "abc"]) == (2, [True, True, False])
    resumed = log.Partial(path, again.header)
    resumed.start(again, lambda: "cba")
    resumed.append([line("c")])
    assert log.Partial.read(path).count == resumed.count == 3
    assert resumed.finish(tmp_path / "r.jsonl", lambda: "abcd") == 3
    assert [number["images"] for _, number in jsonl.read_jsonl(tmp_path / "r.jsonl")] == [["a"], ["b"], ["c"]]
    resumed.remove()
    assert log.Partial.read(path) is None


def test_a_failure_is_kept_apart_from_the_ratings(tmp_path):
    path = tmp_path / "r.jsonl.partial"
    partial = log.Partial(path, {})
    partial.start()
    partial.append([line("a"), log.failure_line("b", "torn"), line("c")])
    assert partial.finish(tmp_path / "r.jsonl", lambda: "abc") == 2
    assert (tmp_path / "r.jsonl").read_text() == jsonl.json_line(line("a")) + jsonl.json_line(line("c"))
    again = log.Partial.read(path)
    assert ("b" in again.failed, "b" in again.rated, again.count) == (True, False, 2)


def test_a_partial_file_with_a_torn_header_is_nothing(tmp_path):
    path = tmp_path / "r.jsonl.partial"
    path.write_text('{"identity": {"mo')
    assert log.Partial.read(path) is None


def test_a_partial_file_broken_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "r.jsonl.partial"
    path.write_text('{"identity": {}}\n{"images": ["a"\n{"images": ["b"]}\n')
    with pytest.raises(InputError, match="line 2"):
        log.Partial.read(path)


@pytest.mark.parametrize("version", facts.PROMPT_VERSIONS)
@pytest.mark.parametrize("dimension", facts.DIMENSIONS)
def test_prompts_grow_with_their_version(dimension, version):
    asked = facts.query(dimension, version)
    question = facts.QUESTION.format(dimension=dimension)
    assert asked.startswith("<image>")
    assert question in asked
    assert (f"<image><{dimension}>" in asked) == (version >= 2)
    assert (facts.GENERAL_DEFINITIONS[dimension] in asked) == (version == 3)
    assert (facts.INTERIOR_DEFINITIONS[dimension] in asked) == (version == 4)


def test_lines_of_all_images_ratings_before_failures(tmp_path):
    path = tmp_path / "log"
    first = log.Partial(path, {})
    first.start()
    first.append([{"images": ["ä"], "failed": "no file"}, {"images": ["b"], "x": 2}])
    assert [json.loads(line)["images"] for line in first.lines(lambda: ["ä", "b"])] == [["ä"], ["b"]]
    second = log.Partial(path, {})
    second.start(log.Partial.read(path), lambda: ["ä", "b"])
    second = log.Partial.read(path)
    second.append([{"images": ["c"], "failed": "cut off"}, {"images": ["ä"], "x": 1}])
    assert [json.loads(line) for line in second.lines(lambda: ["ä", "b", "c"])] == [
        {"images": ["ä"], "x": 1},
        {"images": ["b"], "x": 2},
        {"images": ["c"], "failed": "cut off"},
    ]
