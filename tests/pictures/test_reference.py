"""Percentiles of a score in a reference set, in table, files and page."""

from __future__ import annotations

import csv
import json

import pytest
from scipy import stats

from helpers import run_command
from saiqa import facts
from saiqa.files import folders
from saiqa.pictures import reference

FLAGS = ("score_images.py", "--demo", "--dtype", "float32", "--device", "cpu")


def test_a_percentile_is_what_scipy_counts():
    scores = sorted([1.0, 2.5, 2.5, 2.5, 4.0, 4.75, 5.0])
    of = reference.Reference("set.csv", {"layout": scores}, True)
    for score in (1.0, 1.5, 2.5, 4.0, 4.9, 5.0):
        assert of.percentile("layout", score) == pytest.approx(stats.percentileofscore(scores, score, "mean"))


def test_the_demo_s_rooms_among_its_test_split(tmp_path):
    table, page = tmp_path / "rooms.csv", tmp_path / "page.html"
    flags = (*FLAGS, "--reference", "demo", "--report", page)
    ran = run_command(*flags, "--output_csv", table, "--output_jsonl", tmp_path / "rooms.jsonl")
    assert ran.code == 0, ran.err
    rows = list(csv.DictReader(table.open()))
    known = [float(row["layout"]) for row in csv.DictReader((folders.demo_folder() / facts.REFERENCE_NAME).open())]
    assert len(known) == 480
    for row in rows:
        expected = stats.percentileofscore(known, float(row["layout"]), "mean")
        assert float(row["layout_percentile"]) == pytest.approx(expected, abs=0.5)  # the set's scores have four digits
        assert 0 <= float(row["overall_percentile"]) <= 100
    first = json.loads((tmp_path / "rooms.jsonl").read_text().splitlines()[0])
    assert set(first["percentiles"]) == {*facts.DIMENSIONS, "overall"}
    assert first["verdict"] == rows[0]["verdict"] == "distortion is what pulls it down"
    assert "distortion is what pulls it down" in ran.out and "(2%)" in ran.out and "distortion: higher is less" in ran.err
    assert "of the demo&#39;s test rooms score lower" in page.read_text()


@pytest.mark.slow
def test_a_table_of_one_s_own_is_a_reference_and_a_run_with_one_goes_on(tmp_path):
    own, output = tmp_path / "own.csv", tmp_path / "out.csv"
    assert run_command(*FLAGS, "--output_csv", own).code == 0
    ran = run_command(*FLAGS, "--reference", own, "--output_csv", output)
    assert ran.code == 0 and "own.csv has 12 pictures: percentiles are rough" in ran.err
    places = sorted(float(row["lighting_percentile"]) for row in csv.DictReader(output.open()))
    assert places == pytest.approx([100 * (n + 0.5) / 12 for n in range(12)], abs=0.01)
    before = output.read_bytes()
    again = run_command(*FLAGS, "--reference", own, "--output_csv", output, "--resume")
    assert again.code == 0 and "12 of 12 images are scored already" in again.err and output.read_bytes() == before


def test_what_is_no_reference_is_refused(tmp_path):
    own = tmp_path / "own.csv"
    assert run_command(*FLAGS, "--output_csv", own, "--dimension", "layout").code == 0
    ran = run_command(*FLAGS, "--reference", own)
    assert ran.code == 2 and "has no column distortion" in ran.err
    record = tmp_path / "own.run.json"
    said = json.loads(record.read_text())
    said["identity"]["model"] = "0" * 64
    record.write_text(json.dumps(said))
    ran = run_command(*FLAGS, "--reference", own, "--dimension", "layout")
    assert ran.code == 2 and "another checkpoint" in ran.err
    record.unlink()
    own.write_text("image,layout\na.jpg,9\n")
    ran = run_command(*FLAGS, "--reference", own, "--dimension", "layout")
    assert ran.code == 2 and "'9' is not a score" in ran.err
