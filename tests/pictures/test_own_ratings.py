"""Scores against ratings in the user's own table: the matching, and every metric."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from helpers import run_command

COUNT = 24
RNG = np.random.default_rng(0)
SCORES = np.clip(RNG.normal(3, 0.8, (COUNT, 2)), 1, 5)
MOS = np.clip(SCORES + RNG.normal(0, 0.5, (COUNT, 2)), 1, 5)


@pytest.fixture
def scores(tmp_path):
    """Scored pictures in a folder, with layout, lighting and overall; the last lacks a score."""
    (tmp_path / "photos").mkdir()
    rows = []
    for number, (layout, lighting) in enumerate(SCORES.tolist()):
        Image.new("RGB", (40, 30), "grey").save(tmp_path / "photos" / f"flat {number:02d}.png")
        overall = (layout + lighting) / 2
        rows.append([f"photos/flat {number:02d}.png", repr(layout), repr(lighting), repr(overall), ""])
    rows[-1][1:] = ["", "", "", "cannot read the image"]
    return table(tmp_path / "scores.csv", ["image", "layout", "lighting", "overall", "error"], rows)


def table(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rated(path, names, **columns):
    """A table of ratings: the pictures' names, and columns of numbers."""
    cells = [[name, *(f"{values[number]:.4f}" for values in columns.values())] for number, name in enumerate(names)]
    return table(path, ["listing", *columns], cells)


@pytest.mark.parametrize("form", ["photos/flat {:02d}.png", "elsewhere/flat {:02d}.png", "flat {:02d}"])
def test_pictures_are_matched_by_what_the_table_calls_them(scores, tmp_path, form):
    names = [form.format(number) for number in range(COUNT - 1)]
    ratings = rated(tmp_path / "ratings.csv", [*names, "another"], lighting=[*MOS[:-1, 1], 3], layout=[*MOS[:-1, 0], 3])
    ran = run_command("evaluate_correlation.py", scores, ratings, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["matched"], ran.json["not_rated"], ran.json["not_scored"]) == (COUNT - 1, 1, 1)
    found = {one["dimension"]: one for one in ran.json["evaluation"]}
    assert list(found) == ["layout", "lighting", "all"]
    for column, dimension in enumerate(("layout", "lighting")):
        expected = stats.pearsonr(SCORES[:-1, column], np.round(MOS[:-1, column], 4))[0]
        assert found[dimension]["plcc"] == pytest.approx(expected, abs=1e-9)
        low, high = found[dimension]["intervals"]["plcc"]
        assert low < expected < high
    assert found["all"]["n"] == 2 * (COUNT - 1)


def test_one_column_of_ratings_is_of_the_overall_score_and_a_named_one_of_its_dimension(scores, tmp_path):
    names = [f"flat {number:02d}.png" for number in range(COUNT - 1)]
    ratings = rated(tmp_path / "ratings.csv", names, mos=MOS[:-1].mean(1), agents=MOS[:-1, 0])
    ran = run_command("evaluate_correlation.py", scores, ratings)
    assert ran.code == 0 and "overall with mos" in ran.err and ran.out.splitlines()[2].startswith("overall")
    page, merged = tmp_path / "page.html", tmp_path / "merged.csv"
    flags = ("--mos_column", "layout=agents", "--report", page, "--output_csv", merged)
    ran = run_command("evaluate_correlation.py", scores, ratings, *flags)
    assert ran.code == 0, ran.err
    assert "layout with agents" in ran.err and "overall" not in ran.out
    assert page.read_text().count("data:image/jpeg") == 10  # largest disagreements, with images found next to the table
    assert merged.read_text().splitlines()[1].startswith("layout,photos/flat 00.png,")


def test_a_rated_picture_without_a_score_is_listed(scores, tmp_path):
    ratings = rated(tmp_path / "ratings.csv", [f"flat {number:02d}" for number in range(COUNT)], layout=MOS[:, 0])
    ran = run_command("evaluate_correlation.py", scores, ratings)
    assert ran.code == 3 and "flat 23.png: cannot read the image" in ran.err


def test_a_few_pictures_say_little(scores, tmp_path):
    ratings = rated(tmp_path / "ratings.csv", [f"flat {number:02d}" for number in range(6)], layout=MOS[:6, 0])
    ran = run_command("evaluate_correlation.py", scores, ratings)
    assert ran.code == 0 and "layout: a correlation of fewer than 10 images says little" in ran.out


def test_what_jsonl_and_parquet_hold_is_the_same(scores, tmp_path):
    pandas = pytest.importorskip("pandas")
    names = [f"flat {number:02d}" for number in range(COUNT - 1)]
    ratings = rated(tmp_path / "ratings.csv", names, layout=MOS[:-1, 0])
    pandas.read_csv(ratings).to_parquet(tmp_path / "ratings.parquet")
    lines = [
        json.dumps({"images": [f"photos/flat {n:02d}.png"], "scores": {"layout": score}, "overall": score})
        for n, (score, _) in enumerate(SCORES[:-1].tolist())
    ]
    (tmp_path / "scores.jsonl").write_text("\n".join(lines) + "\n")
    one = run_command("evaluate_correlation.py", scores, ratings, "--json")
    other = run_command("evaluate_correlation.py", tmp_path / "scores.jsonl", tmp_path / "ratings.parquet", "--json")
    assert one.json["evaluation"] == other.json["evaluation"]


@pytest.mark.parametrize(
    ("names", "flags", "says"),
    [
        (["sofa"], (), "no picture of"),
        (["flat 00", "flat 00"], (), "picture flat 00 comes more than once"),
        (["flat 00"], ("--id_column", "photo"), "has no column photo"),
        (["flat 00"], ("--mos_column", "harmony=layout"), "has no scores of harmony"),
        (["flat 00"], ("--mos_column", "layout"), "is not of the form layout=COLUMN"),
        (["flat 00"], ("--compare", "a", "b"), "--compare"),
    ],
)
def test_what_cannot_be_matched_is_refused(scores, tmp_path, names, flags, says):
    ratings = rated(tmp_path / "ratings.csv", names, layout=MOS[:, 0])
    ran = run_command("evaluate_correlation.py", scores, ratings, *flags)
    assert ran.code == 2 and says in ran.err and "Traceback" not in ran.err


def test_ratings_under_no_known_name_are_asked_for(scores, tmp_path):
    ratings = rated(tmp_path / "ratings.csv", ["flat 00"], agents=MOS[:, 0])
    ran = run_command("evaluate_correlation.py", scores, ratings)
    assert ran.code == 2 and "which columns have ratings" in ran.err and "agents" in ran.err
    ran = run_command("evaluate_correlation.py", scores)
    assert ran.code == 2 and "SCORES and RATINGS" in ran.err
