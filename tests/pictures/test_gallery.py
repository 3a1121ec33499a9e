"""The page of scored pictures: written by the command, and used in a real browser."""

from __future__ import annotations

import json
import shutil

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from chromium import AXE_NEEDED, NEEDED, show, started, violations_of
from helpers import REPOSITORY, run_command
from saiqa import Scorer, facts
from saiqa.files import folders
from saiqa.image_map import standing
from saiqa.image_score import verdict
from saiqa.model import thumbnails
from saiqa.pictures import gallery, overlay

ROOMS = sorted((REPOSITORY / "demo" / "series" / "layout").glob("00_*.jpg"))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Five rooms of one series, two generators, and one file that is not a picture."""
    folder = tmp_path_factory.mktemp("gallery")
    lines = []
    for number, room in enumerate(ROOMS):
        shutil.copy(room, folder / f"<b>{number}.jpg")
        lines.append({"image": str(folder / f"<b>{number}.jpg"), "model": "AB"[number % 2]})
    (folder / "broken.jpg").write_text("no picture")
    lines.append({"image": str(folder / "broken.jpg"), "model": "B"})
    (folder / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = folder / "gallery.html"
    ran = run_command("score_images.py", "--demo", folder / "list.jsonl", "--report", output, "--json")
    assert ran.code == 3 and "page: " in ran.err, ran.err
    return output, ran.json["images"]


def test_the_file_stands_alone(page):
    output, _ = page
    text = output.read_text()
    assert "://" not in text and str(output.parent) not in text
    assert "<b>0" not in text and "&lt;b&gt;0." in text and "\\u003cb\\u003e0.jpg" in text
    assert text.count("data:image/jpeg") >= len(ROOMS) and "no judge of real ones" in text
    assert "higher is less distorted" in text


@NEEDED
def test_sorting_and_filtering(page, tmp_path):
    output, images = page
    scored = {image["image"].rpartition("/")[2]: image for image in images if "error" not in image}
    browser = started(tmp_path)
    try:
        browser.get(output.as_uri())

        def shown() -> list[str]:
            cards = browser.find_elements(By.CSS_SELECTOR, "#cards .card")
            return [card.find_element(By.CLASS_NAME, "name").text for card in cards if card.is_displayed()]

        assert shown() == list(scored)
        Select(browser.find_element(By.ID, "sort")).select_by_value("layout")
        ascending = sorted(scored, key=lambda name: scored[name]["scores"]["layout"])
        assert shown() == ascending
        Select(browser.find_element(By.ID, "direction")).select_by_value("-1")
        assert shown() == ascending[::-1]
        Select(browser.find_element(By.ID, "group")).select_by_visible_text("B")
        assert set(shown()) == {"<b>1.jpg", "<b>3.jpg"}
        assert browser.find_element(By.ID, "count").text == "2 shown"
        Select(browser.find_element(By.ID, "group")).select_by_value("")
        Select(browser.find_element(By.ID, "field")).select_by_visible_text("layout")
        middle = scored[ascending[2]]["scores"]["layout"]
        least = browser.find_element(By.ID, "least")
        browser.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", least, middle
        )
        assert set(shown()) == set(ascending[2:])
        assert "broken.jpg" in browser.find_element(By.CSS_SELECTOR, "[aria-label='Pictures without a score']").text
        for width in (390, 1280):
            show(browser, width)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.quit()


@NEEDED
@AXE_NEEDED
def test_it_is_accessible(page, tmp_path):
    assert violations_of(page[0], tmp_path) == []


def test_maps_lie_over_the_worst(tmp_path):
    output = tmp_path / "page.html"
    flags = ("--demo", *ROOMS, "--dtype", "float32", "--dimension", "layout,lighting")
    ran = run_command("score_images.py", *flags, "--report", output, "--maps", "--json")
    assert ran.code == 0, ran.err
    text = output.read_text()
    for name in ("layout", "lighting"):
        assert f"{standing(name, True)[1:]}." in text.replace("&#39;", "'")
    worst = min(ran.json["images"], key=lambda image: image["scores"]["layout"])["image"]
    scorer = Scorer(demo=True, dtype="float32", device="cpu")
    drawn = overlay.thumbnail(worst, True, scorer.explain(worst, "layout"), 200)
    assert text.count(thumbnails.address(drawn)) == 1
    assert text.count("Red is what lowers the score") == 2


def test_maps_without_a_page_or_an_engine_that_has_some_are_refused(tmp_path):
    for flags in (("--maps",), ("--maps", "--report", tmp_path / "a.html", "--views", "2")):
        ran = run_command("score_images.py", "--demo", *flags)
        assert ran.code == 2 and ("--report" in ran.err or "a single view" in ran.err)


def test_many_thumbnails_lie_beside_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "EMBEDDED", 3)
    lines = [{"image": str(room), "scores": {"layout": 2.0 + n / 4}, "overall": 2.0 + n / 4} for n, room in enumerate(ROOMS)]
    gallery.write(tmp_path / "page.html", lines, ["layout"], {"checkpoint": "x"}, None)
    pictures = sorted((tmp_path / "page_thumbnails").glob("*.jpg"))
    assert len(pictures) == len(ROOMS) and all(file.stat().st_size < 20_000 for file in pictures)
    text = (tmp_path / "page.html").read_text()
    assert "page_thumbnails/000000.jpg" in text and "data:image" not in text

    for path in pictures[3:]:
        path.unlink()
    gallery.write(tmp_path / "page.html", lines[:2], ["layout"], {}, None)  # few again: the folder is removed
    assert not (tmp_path / "page_thumbnails").exists() and "data:image" in (tmp_path / "page.html").read_text()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "page_thumbnails").mkdir()
    (tmp_path / "page_thumbnails" / "000000.jpg").write_text("mine")
    ran = run_command("score_images.py", "--demo", "--report", tmp_path / "page.html")
    assert ran.code == 2 and "is not a thumbnail folder" in ran.err and ran.err.count("\n") == 1
    assert (tmp_path / "page_thumbnails" / "000000.jpg").read_text() == "mine"


def test_pictures_of_one_name_are_told_apart(tmp_path):
    lines = [
        {"image": f"/secret/{name}", "scores": {"layout": 2.0}, "overall": 2.0} for name in ("a/1.jpg", "b/1.jpg", "2.jpg")
    ]
    lines.append({"image": "/secret/c/\udcff.jpg", "scores": {}, "overall": None, "error": "/secret/c/other.jpg is torn"})
    gallery.write(tmp_path / "page.html", lines, ["layout"], {}, None)
    text = (tmp_path / "page.html").read_text()
    assert (
        '"a/1.jpg"' in text
        and '"b/1.jpg"' in text
        and '"2.jpg"' in text
        and "secret" not in text
        and "other.jpg is torn" in text
    )


@NEEDED
def test_many_pictures_are_shown_piece_by_piece(tmp_path):
    """Keyboard focus continues at the first new picture."""
    lines = [{"image": f"{n}.jpg", "scores": {"layout": 1 + n / 100}, "overall": 1 + n / 100} for n in range(300)]
    gallery.write(tmp_path / "page.html", lines, ["layout"], {}, None)
    browser = started(tmp_path / "profile")
    try:
        browser.get((tmp_path / "page.html").as_uri())
        cards = "return document.querySelectorAll('#cards .card').length"
        assert browser.execute_script(cards) == 120
        assert browser.find_element(By.ID, "count").text == "300 pictures, the first 120 shown"
        browser.find_element(By.ID, "more").send_keys(Keys.ENTER)
        assert browser.execute_script(cards) == 240
        assert browser.switch_to.active_element.find_element(By.CLASS_NAME, "name").text == "120.jpg"
        assert [entry for entry in browser.get_log("browser") if "not found" not in entry["message"].lower()] == []
    finally:
        browser.quit()


def test_words_and_counts():
    good, bad = {"distortion": 4.5, "harmony": 4.2}, {"layout": 2.0, "lighting": 2.2}
    assert verdict({**good, "layout": 2.0}) == "layout is what pulls it down"
    assert verdict({**good, **bad}) == "layout and lighting are what pull it down"
    assert (verdict(good), verdict(bad), verdict({"layout": 1.0})) == ("good throughout", "weak throughout", "")
    assert verdict({"distortion": 3.5, "layout": 3.0}) == "no dimension stands out"
    assert gallery.histogram([1.0, 5.0, 2.99, None]) == [1, *[0] * 6, 1, *[0] * 7, 1]
    assert set(facts.MEANINGS) == set(facts.DIMENSIONS) and folders.demo_rooms()


@pytest.mark.parametrize("name", ["page.pdf", "page"])
def test_a_page_is_html(tmp_path, name):
    ran = run_command("score_images.py", "--demo", "--report", tmp_path / name)
    assert ran.code == 2 and ".html" in ran.err and not (tmp_path / name).exists()
