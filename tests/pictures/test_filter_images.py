"""filter_images.py: floors, reasons, and the two files, in the form of the first."""

from __future__ import annotations

import pytest

from helpers import read_csv, read_jsonl, write_csv, write_jsonl
from saiqa.pictures.floors import judge

ROWS = [
    {"image": "a.png", "prompt": "p,1", "layout": "3.5", "lighting": "4", "overall": "3.75", "error": ""},
    {"image": "b.png", "prompt": "p2", "layout": "2.1", "lighting": "1.25", "overall": "1.7", "error": ""},
    {"image": "c.png", "prompt": "p2", "layout": "", "lighting": "", "overall": "", "error": "torn"},
    {"image": "d.png", "prompt": "", "layout": "2.9999", "lighting": "5", "overall": "4", "error": ""},
]


@pytest.fixture
def run(run_main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "s.csv", ROWS)
    return lambda *args: run_main("filter_images.py", *args)


def test_kept_and_rejected_with_the_reason(run, tmp_path):
    ran = run("s.csv", "--floor", "layout=3", "--floor", "lighting=2.5")
    assert ran.code == 3 and "c.png: no layout, no lighting (torn)" in ran.err
    assert read_csv(tmp_path / "s_kept.csv") == ROWS[:1]
    rejected = read_csv(tmp_path / "s_rejected.csv")
    assert [{**row, "reason": ""} for row in rejected] == [{**row, "reason": ""} for row in ROWS[1:]]
    assert [row["reason"] for row in rejected] == [
        "layout 2.1 < 3; lighting 1.25 < 2.5",
        "no layout, no lighting (torn)",
        "layout 2.9999 < 3",
    ]
    assert [line.split() for line in ran.out.splitlines()] == [
        ["images", "4"],
        ["kept", "1"],
        ["rejected", "3"],
        ["layout", "<", "3", "2"],
        ["lighting", "<", "2.5", "1"],
        ["no", "score", "1"],
    ]


def test_jsonl_json_and_names(run, tmp_path):
    lines = [{"images": ["a.png"], "seed": 7, "scores": {"layout": x}, "overall": x} for x in (2.0, 4.0)]
    write_jsonl(tmp_path / "s.jsonl", lines)
    ran = run("s.jsonl", "--floor", "layout=3", "--output_kept", "new/k.jsonl", "--output_rejected", "r.jsonl", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["n"], ran.json["kept"], ran.json["rejected"], ran.json["below"]) == (2, 1, 1, {"layout": 1})
    assert read_jsonl(tmp_path / "new" / "k.jsonl") == lines[1:]
    assert read_jsonl(tmp_path / "r.jsonl") == [{**lines[0], "reason": "layout 2 < 3"}]


def test_parquet(run, tmp_path):
    import pandas

    run("s.csv", "--floor", "overall=1", "--output_kept", "k.parquet")
    assert run("k.parquet", "--floor", "layout=3").code == 0
    assert list(pandas.read_parquet(tmp_path / "k_rejected.parquet")["reason"]) == ["layout 2.1 < 3", "layout 2.9999 < 3"]
    assert list(pandas.read_parquet(tmp_path / "k_kept.parquet")["layout"]) == [3.5]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["s.csv"], "--floor"),
        (["s.csv", "--floor", "beauty=3"], "has no column beauty"),
        (["s.csv", "--floor", "layout"], "'layout' is not of the form layout=3"),
        (["s.csv", "--floor", "layout=3", "--output_kept", "s.csv"], "another file of this command"),
        (["s.csv", "--floor", "layout=3", "--output_kept", "x.csv", "--output_rejected", "x.csv"], "another file"),
        (["s.csv", "--floor", "layout=3", "--output_kept", "x.jsonl"], "does not end in .csv or .parquet"),
        (["r.csv", "--floor", "layout=3"], "has a column reason"),
        (["none.csv", "--floor", "layout=3"], "is not there"),
    ],
)
def test_mistakes(run, tmp_path, flags, says):
    write_csv(tmp_path / "r.csv", [{**ROWS[0], "reason": "mine"}])
    before = sorted(path.name for path in tmp_path.iterdir())
    ran = run(*flags)
    assert (ran.code, ran.out) == (2, "") and says in ran.err and ran.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_floor_that_is_just_reached():
    assert judge({"layout": "3.0"}, [("layout", 3.0)]).kept
