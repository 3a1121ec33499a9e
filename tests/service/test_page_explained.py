"""The page's explanations of a score: interval, caveat and verdict, its places in the picture, and uncertainty."""

from __future__ import annotations

import csv
import io

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from chromium import AXE, NEEDED, violations
from helpers import SMALL_BUNDLE
from saiqa import Scorer, facts
from saiqa.image_map import standing
from saiqa.image_score import verdict
from saiqa.pictures.results import Layout
from saiqa.scorer import DEMO_CAVEAT
from saiqa.service.site import examples
from service_page import downloaded, texts, upload, wait
from serving import served_here, write_calibration

pytestmark = NEEDED


def interval_of(score: float, half: float) -> str:
    return f"{max(1, score - half):.2f} to {min(5, score + half):.2f}"


def test_intervals_caveat_and_verdict_stand_beside_the_score(browser, tmp_path):
    plain = Scorer(demo=True, device="cpu", dtype="float32")
    room = next(iter(examples().values()))
    wanted = plain.score(room)
    calibration = write_calibration(plain, tmp_path / "calibration.json")
    with served_here(Scorer(demo=True, device="cpu", dtype="float32", calibration=calibration)) as address:
        browser.get(address)
        wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".example"))
        caveat = f"{DEMO_CAVEAT[0].upper()}{DEMO_CAVEAT[1:]}."
        assert browser.find_element(By.ID, "caveat").text == caveat and "90 %" in browser.find_element(By.ID, "meanings").text
        upload(browser, room)
        assert texts(browser, "article .caveat") == [caveat]
        assert texts(browser, "article .verdict")[0].lower() == f"{verdict(wanted.scores)}."
        halves = {name: 0.25 if name == "layout" else 1.0 for name in facts.DIMENSIONS}
        between = [interval_of(wanted.scores[name], halves[name]) for name in facts.DIMENSIONS]
        assert texts(browser, ".dimension .interval") == [f"People: {ends}, in 90 % of cases" for ends in between]
        assert texts(browser, "#history .interval") == between
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.getBoundingClientRect().width)"
        bracket, bar = (browser.execute_script(script, f"[data-dimension=layout] {one}")[0] for one in (".bracket div", ".bar"))
        assert not AXE or violations(browser) == []
        assert bracket / bar == pytest.approx(
            (min(5, wanted.scores["layout"] + 0.25) - wanted.scores["layout"] + 0.25) / 4, abs=0.01
        )


def test_where_a_score_comes_from(browser):
    room = next(iter(examples().values()))
    with served_here(Scorer(demo=True, device="cpu", dtype="float32")) as address:
        browser.get(address)
        wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".example"))
        upload(browser, room)
        image, press, said = (
            browser.find_element(By.CSS_SELECTOR, f"article {one}")
            for one in ("img", "[data-dimension=harmony] button", "[data-dimension=harmony] .standing")
        )
        before = image.get_attribute("src")
        press.send_keys(Keys.ENTER)
        wait(browser, lambda: image.get_attribute("src") != before)
        assert said.text.endswith(f"{standing('harmony', True)[1:]}.") and press.get_attribute("aria-expanded") == "true"
        found = Scorer(demo=True, device="cpu", dtype="float32").explain(room, "harmony")
        row, column = found.worst
        assert f"by {found.map[row][column]:.2f} points" in said.text
        assert red_at(browser, (column + 0.5) / len(found.map[0]), (row + 0.5) / len(found.map)) > 20
        press.send_keys(Keys.ENTER)
        assert image.get_attribute("src") == before and not said.is_displayed()
        assert not AXE or violations(browser) == []


def red_at(browser, x: float, y: float) -> float:
    """Red minus green at a place of the card's picture, given as shares of its sides."""
    script = """
        const [x, y, done] = arguments;
        const image = document.querySelector("article img");
        image.decode().then(() => {
          const canvas = Object.assign(document.createElement("canvas"),
            {width: image.naturalWidth, height: image.naturalHeight});
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0);
          done([...context.getImageData(canvas.width * x, canvas.height * y, 1, 1).data]);
        });
    """
    red, green, *_ = browser.execute_async_script(script, x, y)
    return red - green


def test_a_score_that_is_not_sure_enough_is_not_shown(browser, tmp_path, files):
    calibration = write_calibration(Scorer(SMALL_BUNDLE, device="cpu"), tmp_path / "calibration.json")
    scorer = Scorer(SMALL_BUNDLE, device="cpu", calibration=calibration)
    with served_here(scorer, max_width=0.9) as address:
        browser.get(address)
        wait(browser, lambda: browser.find_element(By.ID, "model").text)
        upload(browser, *files[:2])
        shown = texts(browser, "article:first-child .score .number")
        assert [text == "not sure" for text in shown] == [name != "layout" for name in facts.DIMENSIONS]
        assert len(browser.find_elements(By.CSS_SELECTOR, "article:first-child .bar:not([hidden])")) == 1
        assert texts(browser, "article .verdict") == ["Not sure of distortion, harmony, lighting."] * 2
        assert [texts(row, ".value span")[0] for row in browser.find_elements(By.CSS_SELECTOR, "#history tr")] == [
            "not sure"
        ] * 2
        for box in browser.find_elements(By.CSS_SELECTOR, "#history input"):
            box.send_keys(Keys.SPACE)
        assert texts(browser, "#pair-rows td:last-child").count("cannot be said") == 4
        table = csv.DictReader(io.StringIO(downloaded(browser, tmp_path / "saved"), newline=""))
        layout = Layout(tuple(facts.DIMENSIONS), True, None, calibration=scorer.calibration, max_width=0.9)
        assert table.fieldnames == layout.columns
        row = next(table)
        assert (row["unsure"], row["harmony"], row["overall"]) == ("distortion harmony lighting", "", "")
        assert float(row["layout_low"]) < float(row["layout"]) < float(row["layout_high"])
