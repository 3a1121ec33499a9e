"""--report of the two evaluating commands: one HTML file, and how a browser shows it."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy
import pytest
from PIL import Image

from chromium import AXE_NEEDED, NEEDED, started, violations_of
from helpers import SMALL_BUNDLE, run_command, write_jsonl
from saiqa import facts
from scored_tables import COMMAND, ROWS, scored_rows, write_tables


class Page(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report on images of which one is missing and one is broken."""
    folder = tmp_path_factory.mktemp("report")
    results, root = write_tables(folder / "results"), folder / "bench"
    draw = numpy.random.default_rng(0)
    for dimension in facts.DIMENSIONS:
        images = root / facts.IMAGES_FOLDER.format(dimension=dimension)
        images.mkdir(parents=True)
        for i in range(ROWS):
            Image.fromarray(draw.integers(0, 255, (60, 80, 3), dtype="uint8")).save(images / f"{i:03d}.png")
    record = {"model_path": "/models/<mine>", "engine": {"engine": "prefill"}, "n": ROWS, "command": "infer.py --x"}
    (results / "harmony_prompt4_sa-iqa-prompt4.run.json").write_text(json.dumps(record))
    worst = sorted(
        ((abs(r["score_pred"] - r[f"{d}_score_mos"]), d, r["id"]) for d in facts.DIMENSIONS for r in scored_rows(d, 0)),
        reverse=True,
    )[:10]
    paths = [root / facts.IMAGES_FOLDER.format(dimension=d) / f"{i}.png" for _, d, i in worst]
    paths[0].unlink()
    paths[1].write_bytes(b"no image")
    ran = run_command(COMMAND, "--results_dir", results, "--data_root", root, "--report", folder / "report.html")
    assert ran.code == 0, ran.err
    return folder / "report.html", worst


def test_the_report_is_one_file_with_words_for_every_picture(report):
    path, worst = report
    text = path.read_text()
    page = Page(text)
    images = page.all("img")
    assert len(images) == 10 + 8  # scatter and histogram of four dimensions and the pool; existing thumbnails
    assert all(image["src"].startswith("data:") and len(image["alt"]) > 20 for image in images)
    assert not page.all("script") and not page.all("link") and not re.search(r"https?://", text)
    for size, dimension, image_id in worst[2:]:
        assert any(f"Image {image_id}, {dimension}" in image["alt"] for image in images), (size, dimension, image_id)
    assert "is not there" in text and "cannot read" in text
    thumbnail = next(image["src"] for image in images if "jpeg" in image["src"])
    assert Image.open(io.BytesIO(base64.b64decode(thumbnail.partition(",")[2]))).size == (80, 60)


def test_the_report_tells_how_the_scores_were_made(report):
    text = report[0].read_text()
    assert "/models/&lt;mine&gt;" in text and "engine prefill" in text and "infer.py --x" in text
    assert text.count("There is no record of how they were made") == 3
    assert text.count("infer.py --x") == 2  # stated once, and in its record
    assert "flux|1" in text and "sd_3 &amp; co" in text and "seed 0" in text


def test_images_are_found_by_the_paths_in_the_ratings(write_results, run_main, tmp_path):
    results = write_results(dimensions=["lighting"], name=SMALL_BUNDLE.name)
    (tmp_path / "bench" / "elsewhere").mkdir(parents=True)
    for i in range(ROWS):
        Image.new("RGB", (30, 20), "red").save(tmp_path / "bench" / "elsewhere" / f"{i:03d}.jpg")
    ratings = results / facts.result_name("lighting", 4, SMALL_BUNDLE.name, ".jsonl")
    write_jsonl(ratings, [{"images": [f"SA-BENCH/elsewhere/{i:03d}.jpg"]} for i in range(ROWS)])
    flags = ["--mode", "eval", "--dimension", "lighting", "--results_dir", results, "--model_path", SMALL_BUNDLE]
    report = tmp_path / "r.html"
    ran = run_main("infer.py", *flags, "--data_root", tmp_path / "bench", "--report", report)
    assert ran.code == 0, ran.err
    assert len([i for i in Page(report.read_text()).all("img") if "jpeg" in i["src"]]) == 10


@NEEDED
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_in_a_browser(report, tmp_path, width):
    browser = started(tmp_path / "profile")
    try:
        phone = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        browser.get(report[0].as_uri())
        assert browser.execute_script("return innerWidth") == width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        drawn = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth > 0)")
        assert len(drawn) == 18 and all(drawn)
        assert browser.execute_script("return performance.getEntriesByType('resource').map(r => r.name)"
                                      ".filter(n => !n.startsWith('data:'))") == []  # fmt: skip
        assert browser.get_log("browser") == []
        table = browser.find_element("css selector", "table.lines")
        assert browser.execute_script("return arguments[0].scrollWidth <= arguments[0].parentElement.clientWidth", table)
    finally:
        browser.quit()


@NEEDED
@AXE_NEEDED
def test_the_report_is_accessible(report, tmp_path):
    assert violations_of(report[0], tmp_path / "profile") == []


def test_a_report_that_cannot_be_written_is_refused_first(write_results, run_main, tmp_path):
    (tmp_path / "folder.html").mkdir()
    ran = run_main(COMMAND, "--results_dir", write_results(), "--report", tmp_path / "folder.html")
    assert (ran.code, ran.out) == (1, "") and "it is a folder" in ran.err
    ran = run_main(COMMAND, "--results_dir", write_results(), "--report", tmp_path / "x.pdf")
    assert (ran.code, ran.out) == (2, "") and ran.err.count("\n") == 1 and "does not end in .html" in ran.err
