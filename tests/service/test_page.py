"""The page in a real browser: headless Chromium uploads pictures to a running service."""

from __future__ import annotations

import base64
import csv
import io
import json
from urllib.parse import urlsplit

import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from chromium import NEEDED
from helpers import SMALL_BUNDLE
from saiqa import Scorer, facts
from saiqa.pictures.results import Layout
from saiqa.service.site import examples
from service_page import LABELS, downloaded, is_done, rows, texts, upload, wait
from serving import PICTURES, served_here

pytestmark = NEEDED


def press(browser, selector: str) -> None:
    """Press a button with the keyboard."""
    browser.find_element(By.CSS_SELECTOR, selector).send_keys(Keys.ENTER)


def names(browser) -> list[str]:
    return [row[0] for row in rows(browser)]


# ---- scores ----------------------------------------------------------------------------------------------------------


def test_uploaded_pictures_show_their_scores(page, files, expected):
    upload(page, *files)
    cards = page.find_elements(By.CSS_SELECTOR, "#results article")
    assert [card.find_element(By.TAG_NAME, "h3").text for card in cards] == [path.name for path in files]
    for card, result in zip(cards, expected, strict=True):
        assert texts(card, ".overall .number") == [f"{result.overall:.2f}"]
        assert texts(card, ".dimension h4") == LABELS
        assert texts(card, ".score .number") == [f"{result.scores[name]:.2f}" for name in facts.DIMENSIONS]
        for block, name in zip(card.find_elements(By.CLASS_NAME, "dimension"), facts.DIMENSIONS, strict=True):
            words = [f"{round(result.probabilities[name][word] * 100)} %\n{word}" for word in reversed(facts.WORDS)]
            assert texts(block, ".words li") == words
    assert len(rows(page)) == 3 and rows(page)[0][0] == "first.png"


def test_the_bars_are_as_long_as_the_scores_are_high(page, files, expected):
    upload(page, files[0])
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.getBoundingClientRect()[arguments[1]])"
    widths, full = (page.execute_script(script, selector, "width") for selector in (".bar div", ".bar"))
    for name, width, whole in zip(facts.DIMENSIONS, widths, full, strict=True):
        assert width / whole == pytest.approx((expected[0].scores[name] - 1) / 4, abs=0.01)
    heights = page.execute_script(script, '[data-dimension="layout"] .column div', "height")
    shares = [expected[0].probabilities["layout"][word] for word in reversed(facts.WORDS)]
    assert [height / sum(heights) for height in heights] == pytest.approx(shares, abs=0.03)


def test_dropped_pictures_are_scored(page):
    """A drop as the browser delivers it, with a real file created in the page."""
    page.execute_script(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
        document.getElementById("drop").dispatchEvent(
          new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        """,
        base64.b64encode(PICTURES[0]).decode(),
    )
    wait(page, lambda: page.find_element(By.ID, "status").text == "1 picture scored.")
    assert texts(page, "#results h3") == ["dropped.png"]


def test_pictures_without_a_score_say_why_and_keep_nobody_else_from_theirs(page, files, tmp_path):
    broken, huge = tmp_path / "broken.png", tmp_path / "huge.png"
    broken.write_text("no picture")
    Image.new("L", (1001, 1000)).save(huge)
    upload(page, broken, huge, files[0])
    states = texts(page, "#results .state")
    assert facts.IMAGE_FORMATS_TEXT in states[0] and "1 megapixels" in states[1] and states[2] == ""
    assert page.find_element(By.ID, "status").text == "1 of 3 scored, 2 failed."
    assert texts(page, ".overall .number")[2] and len(rows(page)) == 3
    assert "not a JPEG" in downloaded(page, tmp_path / "out")


def test_examples_and_meanings_until_there_are_pictures(page):
    pressed = page.find_elements(By.CSS_SELECTOR, ".example")
    assert len(pressed) == 8 and "higher is less distorted" in page.find_element(By.ID, "meanings").text
    pressed[0].send_keys(Keys.ENTER)
    wait(page, lambda: is_done(page, 1))
    assert texts(page, "#results h3")[0].endswith(".jpg") and not pressed[1].is_displayed()
    press(page, "summary")
    assert "how well the pieces are placed" in page.find_element(By.ID, "meanings").text.lower()
    pressed[1].send_keys(Keys.ENTER)
    wait(page, lambda: len(rows(page)) == 2)
    assert pressed[1].is_displayed()  # the user has opened it, and it stays open
    press(page, "#clear")
    assert pressed[0].is_displayed()


# ---- the table -------------------------------------------------------------------------------------------------------


def test_the_download_is_the_csv_of_score_images(page, files, expected, tmp_path):
    upload(page, *files)
    table = list(csv.DictReader(io.StringIO(downloaded(page, tmp_path), newline="")))
    assert list(table[0]) == Layout(tuple(facts.DIMENSIONS), True, None).columns
    assert [row["image"] for row in table] == [path.name for path in files]
    for row, result in zip(table, expected, strict=True):
        assert float(row["overall"]) == pytest.approx(result.overall, abs=1e-5)
        for name in facts.DIMENSIONS:
            assert float(row[name]) == pytest.approx(result.scores[name], abs=1e-5)
            for word in facts.WORDS:
                assert float(row[f"{name}_{word}"]) == pytest.approx(result.probabilities[name][word], abs=1e-5)
        assert row["error"] == ""


def test_the_history_outlives_a_reload_and_can_be_cleared(page, files):
    upload(page, *files[:2])
    before = rows(page)
    page.refresh()
    wait(page, lambda: rows(page))
    assert rows(page) == before
    page.find_element(By.ID, "clear").click()
    assert not page.find_element(By.ID, "history-section").is_displayed()
    page.refresh()
    wait(page, lambda: page.find_element(By.ID, "model").text)
    assert rows(page) == []


def test_sorting_filtering_removing_and_undoing(page, files, expected):
    upload(page, *files)
    by_layout = [path.name for _, path in sorted(zip([-one.scores["layout"] for one in expected], files, strict=True))]
    press(page, "[data-column=layout] button")
    assert names(page) == by_layout == texts(page, "#results h3")
    assert page.find_element(By.CSS_SELECTOR, "[data-column=layout]").get_attribute("aria-sort") == "descending"
    press(page, "[data-column=layout] button")
    assert names(page) == by_layout[::-1]
    page.find_element(By.ID, "name").send_keys("third")
    assert names(page) == ["third.png"] and page.find_element(By.ID, "matching").text == "1 of 3 shown"
    page.find_element(By.ID, "name").send_keys(Keys.BACKSPACE * 5)
    press(page, "#history tr:first-child .plain")
    assert names(page) == texts(page, "#results h3") == by_layout[::-1][1:]
    assert page.find_element(By.ID, "status").text == f"{by_layout[-1]} is removed."
    press(page, "#undo")
    assert names(page) == texts(page, "#results h3") == by_layout[::-1]
    press(page, "#results article:first-child > .plain")
    assert names(page) == by_layout[::-1][1:]
    press(page, "#clear")
    assert rows(page) == []
    press(page, "#undo")
    press(page, "#undo")
    assert names(page) == by_layout[::-1] and not page.find_element(By.ID, "undo").is_displayed()


def test_two_pictures_side_by_side(page, files, expected):
    upload(page, *files[:2])
    assert len(page.find_elements(By.CSS_SELECTOR, "#history th img")) == 2
    for box in page.find_elements(By.CSS_SELECTOR, "#history input"):
        box.send_keys(Keys.SPACE)
    first, second = expected[0].scores["layout"], expected[1].scores["layout"]
    row = next(
        texts(row, "th, td") for row in page.find_elements(By.CSS_SELECTOR, "#pair-rows tr") if row.text.startswith("Layout")
    )
    ahead = f"{'A' if first > second else 'B'} by {abs(first - second):.2f}"
    assert row[1:] == [f"{first:.2f}", f"{second:.2f}", ahead if ahead[-4:] != "0.00" else "the same"]
    assert texts(page, "#pair-pictures figcaption") == [f"A {files[0].name}", f"B {files[1].name}"]
    assert page.execute_script("return document.querySelector('#pair-section').getBoundingClientRect().top") >= 0
    press(page, "#pair-end")
    assert not page.find_element(By.ID, "pair-section").is_displayed()


# ---- the page and its service ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pictures_chosen_before_the_service_has_answered_are_scored_beside_the_history(page, files):
    upload(page, files[0])
    slow = {"offline": False, "latency": 4000, "downloadThroughput": -1, "uploadThroughput": -1}
    page.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    page.refresh()
    page.find_element(By.ID, "files").send_keys(str(files[2]))
    assert page.find_element(By.ID, "model").text == "" and texts(page, "#results h3") == [files[2].name]
    page.execute_cdp_cmd("Network.emulateNetworkConditions", slow | {"latency": 0})
    wait(page, lambda: is_done(page, 1))
    assert names(page) == [files[2].name, files[0].name]
    page.refresh()
    wait(page, lambda: names(page) == [files[2].name, files[0].name])


def test_the_page_asks_nobody_but_the_service(page, url, files):
    for log in ("performance", "browser"):
        page.get_log(log)  # reading empties it
    page.refresh()
    upload(page, files[0])
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    outside = [address for address in asked if not address.startswith((url, "blob:", "data:"))]
    assert asked and outside == []
    assert [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_token_is_asked_for_and_used(browser, scorer, files, expected):
    with served_here(scorer, token="secret") as address:
        browser.get(address)
        wait(browser, lambda: browser.find_element(By.ID, "token").is_displayed())
        browser.find_element(By.ID, "files").send_keys(str(files[0]))
        wait(browser, lambda: "refuses the token" in browser.find_element(By.ID, "status").text)
        browser.find_element(By.ID, "token").send_keys("secret", Keys.ENTER)
        wait(browser, lambda: browser.find_element(By.ID, "status").text == "1 picture scored.")
        assert texts(browser, ".overall .number") == [f"{expected[0].overall:.2f}"]


def test_a_service_that_is_gone_is_not_done_until_it_is_back(browser, files, expected):
    with served_here(Scorer(SMALL_BUNDLE, device="cpu")) as address:
        browser.get(address)
        wait(browser, lambda: browser.find_element(By.ID, "model").text)
    browser.find_element(By.ID, "files").send_keys("\n".join(map(str, files)))
    wait(browser, lambda: browser.find_element(By.ID, "again").is_displayed())
    assert browser.find_element(By.ID, "status").text == "The service could not be reached: 0 of 3 scored, 3 wait."
    assert texts(browser, "#results .state") == ["Waiting"] * 3 and rows(browser) == []
    press(browser, "#again")
    wait(browser, lambda: browser.find_element(By.ID, "again").is_displayed())
    press(browser, "#results article:nth-child(2) > .plain")
    assert texts(browser, "#results h3") == [files[0].name, files[2].name]
    press(browser, "#undo")
    wait(browser, lambda: browser.find_element(By.ID, "status").text.endswith("0 of 3 scored, 3 wait."))
    with served_here(Scorer(SMALL_BUNDLE, device="cpu"), port=urlsplit(address).port):
        press(browser, "#again")
        wait(browser, lambda: is_done(browser, 3))
        numbers = dict(zip(texts(browser, "#results h3"), texts(browser, ".overall .number"), strict=True))
        assert numbers == {path.name: f"{result.overall:.2f}" for path, result in zip(files, expected, strict=True)}
        assert not browser.find_element(By.ID, "again").is_displayed()


def test_the_browser_is_told_to_keep_everything_else_out(url):
    import httpx

    for path in ("/", "/page.js", "/table.js", "/page.css", "/icon.svg", f"/examples/{next(iter(examples()))}"):
        answer = httpx.get(url + path, trust_env=False)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    page = httpx.get(url, trust_env=False).text
    assert "http://" not in page and "https://" not in page
