"""compare_images.py: the demo's graded series with the demo's checkpoint, tables of them, and the page."""

from __future__ import annotations

import re

import pytest

from helpers import REPOSITORY, read_csv, write_csv
from saiqa import facts
from saiqa.pictures.better import better

LAYOUT = REPOSITORY / "demo" / "series" / "layout"
SERIES = sorted({path.name.split("_")[0] for path in LAYOUT.glob("*.jpg")})[:3]


def pictures(severity: str) -> list:
    return [next(LAYOUT.glob(f"{number}_*_{severity}.jpg")) for number in SERIES]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three rooms without faults in a/, the same rooms at full severity in b/, under the same names; one more in b/."""
    root = tmp_path_factory.mktemp("sides")
    for side, severity in (("a", "0.00"), ("b", "1.00")):
        (root / side).mkdir()
        for number, path in enumerate(pictures(severity)):
            (root / side / f"room{number}.jpg").write_bytes(path.read_bytes())
    (root / "b" / "more.jpg").write_bytes(pictures("0.50")[0].read_bytes())
    return root


@pytest.fixture
def compare(run_main):
    return lambda *args: run_main("compare_images.py", *args, "--demo", "--device", "cpu")


def test_two_pictures_in_either_order(compare):
    one, other = pictures("0.00")[0], pictures("1.00")[0]
    there, back = compare(one, other, "--json").json, compare(other, one, "--json").json
    assert there["n"] == 1 and there["pairs"][0]["image_a"] == str(one)
    for dimension in facts.DIMENSIONS:
        p, q = (found["pairs"][0]["a_is_better"][dimension] for found in (there, back))
        assert p + q == pytest.approx(1, abs=1e-12)
    assert there["pairs"][0]["a_is_better"]["layout"] > 0.5
    ran = compare(one, one)
    assert ran.code == 0 and ran.out.splitlines()[1].split()[1:] == ["0.500"] * 4


def test_folders_tables_and_the_page(compare, run_main, folders, tmp_path):
    ran = compare(folders / "a", folders / "b", "--json", "--report", tmp_path / "pairs.html")
    assert ran.code == 0, ran.err
    found = ran.json
    assert (found["n"], found["only_in_a"], found["only_in_b"]) == (3, 0, 1)
    assert found["dimensions"]["layout"]["mean"] > 0.5
    page = (tmp_path / "pairs.html").read_text()
    assert page.count("<img ") == 6 and "room2.jpg" in page and not re.search(r"(src|href)=\"(?!data:)", page)
    for side in "ab":
        flags = ["--output_csv", tmp_path / f"{side}.csv", "--demo", "--device", "cpu", "--probabilities"]
        assert run_main("score_images.py", folders / side, *flags).code == 0
    ran = run_main("compare_images.py", tmp_path / "a.csv", tmp_path / "b.csv", "--json")
    assert ran.code == 0, ran.err
    for one, other in zip(ran.json["pairs"], found["pairs"], strict=True):
        assert one["a_is_better"] == pytest.approx(other["a_is_better"], abs=1e-5)
    rows = [read_csv(tmp_path / f"{side}.csv") for side in "ab"]
    [a, b] = [next(row for row in part if "room1" in row["image"]) for part in rows]
    words = [{w: float(row[f"layout_{w}"]) for w in facts.WORDS} for row in (a, b)]
    assert ran.json["pairs"][1]["a_is_better"]["layout"] == pytest.approx(better(*words))
    text = run_main("compare_images.py", tmp_path / "a.csv", tmp_path / "b.csv", "--temperature", "0.1").out
    assert text.splitlines()[0].split() == ["A", "is", "better", *facts.DIMENSIONS]
    assert "1 only B" in text and re.search(r"^dimension +pairs", text, re.M)
    broken = [{**row, "error": "torn", **{n: "" for n in row if n not in ("image", "error")}} for row in rows[0]]
    write_csv(tmp_path / "broken.csv", [broken[0], *rows[0][1:]])
    ran = run_main("compare_images.py", tmp_path / "broken.csv", tmp_path / "b.csv", "--json")
    assert ran.code == 3 and f"{rows[0][0]['image']}: torn" in ran.err
    assert ran.json["dimensions"]["layout"]["n"] == 2


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        ("none.csv", "s.csv", "none.csv is not there"),
        ("s.csv", "s.csv", "has no probabilities of the five words"),
        ("w.csv", "x.csv", "have no file name in common"),
        ("t.csv", "w.csv", "file name a.png comes more than once"),
        ("bad.csv", "w.csv", "a.png: the probabilities sum to 1.800"),
        ("text.csv", "w.csv", "not a row of probabilities"),
        ("-", "w.csv", "is not a picture"),
        ("none.png", "w.csv", "none.png is not there"),
    ],
)
def test_mistakes(run_main, tmp_path, monkeypatch, a, b, says):
    monkeypatch.chdir(tmp_path)
    row = {"image": "x/a.png", **{f"layout_{word}": "0.2" for word in facts.WORDS}}
    two = {**row, "image": "x/b.png"}
    write_csv(tmp_path / "s.csv", [{"image": "a.png", "layout": "3"}])
    write_csv(tmp_path / "w.csv", [row, two])
    write_csv(tmp_path / "x.csv", [{**row, "image": "c.png"}, {**row, "image": "d.png"}])
    write_csv(tmp_path / "t.csv", [row, {**row, "image": "y/a.png"}])
    write_csv(tmp_path / "bad.csv", [{**row, "layout_good": "1"}, two])
    write_csv(tmp_path / "text.csv", [{**row, "layout_good": "yes"}, two])
    ran = run_main("compare_images.py", a, b)
    assert (ran.code, ran.out) == (2, "") and says in ran.err and ran.err.count("\n") == 1


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "warm"])
def test_a_temperature_is_above_0(run_main, text):
    ran = run_main("compare_images.py", "a", "b", f"--temperature={text}")
    assert ran.code == 2 and "is not a number above 0" in ran.err
