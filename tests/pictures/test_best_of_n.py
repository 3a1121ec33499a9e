"""best_of_n.py: groups, ranks, floors, and copied or linked files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers import read_csv, write_csv, write_jsonl
from saiqa.pictures import ranking
from saiqa.pictures.ranking import Candidate, NoCandidate

SCORES = {  # path -> (layout, lighting)
    "p1/a.png": (3.0, 4.0),
    "p1/b.png": (5.0, 1.0),
    "p2/a.png": (2.0, 2.0),
    "p2/c.png": (4.0, 4.5),
    "p2/d.png": (4.0, 4.5),
}
PATTERN = ["--group_pattern", r"(p\d)/"]


@pytest.fixture
def scored(tmp_path, monkeypatch) -> Path:
    """A scored CSV with its images, in the working directory."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for name, (layout, lighting) in SCORES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
        overall = repr((layout + lighting) / 2)
        rows.append({"image": name, "layout": repr(layout), "lighting": repr(lighting), "overall": overall, "error": ""})
    write_csv(tmp_path / "s.csv", rows)
    return tmp_path / "s.csv"


def kept(path: Path) -> list[str]:
    return [row["image"] for row in read_csv(path) if row["kept"] == "1"]


def test_the_best_of_each_group(scored, run_main, tmp_path):
    ran = run_main("best_of_n.py", scored, *PATTERN)
    assert ran.code == 0, ran.err
    rows = read_csv(tmp_path / "s_ranking.csv")
    assert list(rows[0]) == ["group", "rank", "kept", "image", "layout", "lighting", "overall", "error"]
    assert [(row["group"], row["rank"], row["kept"], row["image"]) for row in rows] == [
        ("p1", "1", "1", "p1/a.png"),
        ("p1", "2", "0", "p1/b.png"),
        ("p2", "1", "1", "p2/c.png"),
        ("p2", "2", "0", "p2/d.png"),
        ("p2", "3", "0", "p2/a.png"),
    ]
    assert [line.split() for line in ran.out.splitlines()] == [
        ["group", "rank", "overall", "image"],
        ["p1", "1", "3.500", "p1/a.png"],
        ["p2", "1", "4.250", "p2/c.png"],
    ]


def test_k_by_and_json(scored, run_main):
    ran = run_main("best_of_n.py", scored, *PATTERN, "--k", "2", "--by", "layout", "--json")
    assert [(one["group"], one["rank"], one["layout"]) for one in ran.json["kept"]] == [
        ("p1", 1, 5.0),
        ("p1", 2, 3.0),
        ("p2", 1, 4.0),
        ("p2", 2, 4.0),
    ]


def test_floors_keep_all_that_pass(scored, run_main, tmp_path):
    output = tmp_path / "r.csv"
    ran = run_main("best_of_n.py", scored, *PATTERN, "--floor", "layout=4", "--floor", "lighting=2", "--output_csv", output)
    assert ran.code == 0
    assert kept(output) == ["p2/c.png", "p2/d.png"]
    assert "1 of 2 groups have no image that reaches every --floor: p1" in ran.err
    run_main("best_of_n.py", scored, *PATTERN, "--floor", "layout=4", "--k", "1", "--output_csv", output)
    assert kept(output) == ["p1/b.png", "p2/c.png"]
    assert [row["image"] for row in read_csv(output)][:2] == ["p1/b.png", "p1/a.png"]  # images that pass rank first


def test_without_groups_all_compete(scored, run_main, tmp_path):
    assert run_main("best_of_n.py", scored, "--k", "2", "--copy_to", "best").code == 0
    assert kept(tmp_path / "s_ranking.csv") == ["p2/c.png", "p2/d.png"]
    assert {row["group"] for row in read_csv(tmp_path / "s_ranking.csv")} == {"all"}
    assert sorted(path.name for path in Path("best/all").iterdir()) == ["1_c.png", "2_d.png"]
    assert run_main("best_of_n.py", scored, "--floor", "layout=3").code == 0
    assert kept(tmp_path / "s_ranking.csv") == ["p2/c.png", "p2/d.png", "p1/a.png", "p1/b.png"]


def test_a_column_groups_too(scored, run_main, tmp_path):
    rows = read_csv(scored)
    write_csv(scored, [{**row, "group": "007" if row["layout"] == "4.0" else "7"} for row in rows])
    assert run_main("best_of_n.py", scored, "--group_by", "group").code == 0
    assert kept(tmp_path / "s_ranking.csv") == ["p1/a.png", "p2/c.png"]


def test_jsonl_of_score_images(scored, run_main, tmp_path):
    lines = [{"images": [row["image"]], "scores": {"layout": float(row["layout"])}, "overall": 1.5} for row in read_csv(scored)]
    write_jsonl(tmp_path / "s.jsonl", [*lines, {"images": ["p1/x.png"], "scores": {}, "overall": None, "error": "torn"}])
    ran = run_main("best_of_n.py", tmp_path / "s.jsonl", *PATTERN, "--by", "layout")
    assert ran.code == 3
    assert kept(tmp_path / "s_ranking.csv") == ["p1/b.png", "p2/c.png"]
    assert "p1/x.png: no layout (torn)" in ran.err


def test_what_cannot_be_ranked_is_listed(scored, run_main, tmp_path):
    rows = read_csv(scored)
    rows[0]["overall"], rows[1]["overall"] = "", "nan"
    write_csv(scored, [*rows, {**rows[2], "image": "elsewhere.png"}])
    ran = run_main("best_of_n.py", scored, *PATTERN, "--json")
    assert ran.code == 3
    assert [failure["image"] for failure in ran.json["failed"]] == ["p1/a.png", "p1/b.png", "elsewhere.png"]
    assert "'(p\\\\d)/' does not match it" in ran.err
    assert kept(tmp_path / "s_ranking.csv") == ["p2/c.png"]


# ---- copies and links ------------------------------------------------------------------------------------------------


def test_copies(scored, run_main, tmp_path):
    ran = run_main("best_of_n.py", scored, *PATTERN, "--k", "2", "--copy_to", "best")
    assert ran.code == 0, ran.err
    copies = {str(path.relative_to("best")): path.read_text() for path in Path("best").rglob("*.png")}
    assert copies == {
        "p1/1_a.png": "p1/a.png",
        "p1/2_b.png": "p1/b.png",
        "p2/1_c.png": "p2/c.png",
        "p2/2_d.png": "p2/d.png",
    }


def test_links(scored, run_main, tmp_path):
    assert run_main("best_of_n.py", scored, *PATTERN, "--link_to", "best").code == 0
    link = tmp_path / "best" / "p1" / "1_a.png"
    assert link.is_symlink() and link.read_text() == "p1/a.png"


def test_nothing_is_overwritten_silently(scored, run_main, tmp_path):
    target = tmp_path / "best" / "p2" / "1_c.png"
    target.parent.mkdir(parents=True)
    target.write_text("mine")
    ran = run_main("best_of_n.py", scored, *PATTERN, "--copy_to", "best")
    assert ran.code == 2 and "best/p2/1_c.png and 0 more already exist" in ran.err
    assert target.read_text() == "mine" and not (tmp_path / "best" / "p1").exists()
    assert run_main("best_of_n.py", scored, *PATTERN, "--copy_to", "best", "--overwrite").code == 0
    assert target.read_text() == "p2/c.png"


def test_a_link_is_replaced_and_never_written_through(scored, run_main, tmp_path):
    assert run_main("best_of_n.py", scored, *PATTERN, "--link_to", "best").code == 0
    rows = read_csv(scored)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_text("another a")
    write_csv(scored, [{**rows[0], "image": "other/a.png", "p": "p1"}])
    assert run_main("best_of_n.py", scored, "--group_by", "p", "--copy_to", "best", "--overwrite").code == 0
    assert (tmp_path / "best" / "p1" / "1_a.png").read_text() == "another a"
    assert (tmp_path / "p1" / "a.png").read_text() == "p1/a.png"


def test_an_image_that_is_gone_is_listed(scored, run_main, tmp_path):
    (tmp_path / "p1" / "a.png").unlink()
    ran = run_main("best_of_n.py", scored, *PATTERN, "--copy_to", "best")
    assert ran.code == 3 and "p1/a.png is not there" in ran.err
    assert (tmp_path / "best" / "p2" / "1_c.png").is_file()


def test_a_group_cannot_lead_out_of_the_folder(scored, run_main, tmp_path):
    rows = read_csv(scored)
    write_csv(scored, [{**rows[0], "prompt": "../../up"}, {**rows[1], "prompt": ".."}, {**rows[2], "prompt": "a/b"}])
    assert run_main("best_of_n.py", scored, "--group_by", "prompt", "--copy_to", "best/here").code == 0
    found = sorted(str(path.relative_to("best")) for path in Path("best").rglob("*.png"))
    assert found == ["here/%2E.%2F..%2Fup/1_a.png", "here/%2E./1_b.png", "here/a%2Fb/1_a.png"]


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--group_by", "image", "--group_pattern", "x"], "not allowed with"),
        (["--group_by", "prompt"], "has no column prompt"),
        (["--group_pattern", "("], "missing )"),
        (["--group_pattern", "nowhere"], "no image in s.csv can be ranked"),
        ([*PATTERN, "--by", "beauty"], "has no column beauty"),
        ([*PATTERN, "--floor", "layout"], "'layout' is not of the form layout=3"),
        ([*PATTERN, "--floor", "layout=nan"], "'layout=nan' is not of the form layout=3"),
        ([*PATTERN, "--k", "0"], "not a whole number of at least 1"),
        ([*PATTERN, "--output_csv", "s.csv"], "the scored file itself"),
        ([*PATTERN, "--copy_to", "a", "--link_to", "b"], "not allowed with"),
    ],
)
def test_mistakes(scored, run_main, tmp_path, flags, says):
    before = scored.read_bytes()
    ran = run_main("best_of_n.py", "s.csv", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err and "Traceback" not in ran.err
    assert scored.read_bytes() == before and not (tmp_path / "s_ranking.csv").exists()


def test_columns_of_the_ranking_are_not_overwritten(scored, run_main):
    write_csv(scored, [{**row, "rank": "9"} for row in read_csv(scored)])
    ran = run_main("best_of_n.py", scored, *PATTERN)
    assert ran.code == 2 and "has a column rank, which the ranking adds" in ran.err


# ---- the pure part ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "group"),
    [(r"prompt(\d+)", "12"), (r"prompt\d+", "prompt12"), (r"prompt(\d+)_seed(\d)", "12 3"), (r"(x)?seed", None)],
)
def test_group_of(pattern, group):
    if group is None:
        with pytest.raises(NoCandidate, match="matches nothing"):
            ranking.group_of("renders/prompt12_seed3.png", re.compile(pattern))
    else:
        assert ranking.group_of("renders/prompt12_seed3.png", re.compile(pattern)) == group


def test_of_equal_scores_the_first_is_better():
    candidates = [Candidate(name, "g", {}, 3.0, True) for name in "abc"]
    assert [(one.candidate.image, one.kept) for one in ranking.rank(candidates, 2)] == [("a", True), ("b", True), ("c", False)]


def test_images_behind_urls_are_fetched_and_never_linked(tmp_path, run_main, served):
    (tmp_path / "a.png").write_bytes(b"pixels")
    rows = [{"image": f"{served}/{name}.png", "overall": value, "error": ""} for name, value in (("a", "4.0"), ("gone", "3.0"))]
    write_csv(tmp_path / "s.csv", rows)
    flags = [tmp_path / "s.csv", "--group_pattern", "(http)", "--k", "2"]
    ran = run_main("best_of_n.py", *flags, "--link_to", tmp_path / "links")
    assert ran.code == 2 and "is a URL and cannot be linked" in ran.err and not (tmp_path / "links").exists()
    ran = run_main("best_of_n.py", *flags, "--copy_to", tmp_path / "best")
    assert ran.code == 3 and f"{served}/gone.png: cannot be downloaded" in ran.err and "Traceback" not in ran.err
    assert {path.name: path.read_bytes() for path in (tmp_path / "best").rglob("*.png")} == {"1_a.png": b"pixels"}
    unreachable = [{"image": "http://127.0.0.1:9/b.png", "overall": "3.0", "error": ""}]
    write_csv(tmp_path / "u.csv", unreachable)
    ran = run_main("best_of_n.py", tmp_path / "u.csv", "--group_pattern", "(http)", "--copy_to", tmp_path / "none")
    assert ran.code == 3 and "Traceback" not in ran.err
