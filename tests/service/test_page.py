"""The page in a real browser: headless Chromium uploads pictures to a running service."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from chromium import AXE, AXE_NEEDED, NEEDED, show, started, violations
from helpers import SMALL_BUNDLE
from saiqa import Scorer, facts
from saiqa.image_map import standing
from saiqa.image_score import verdict
from saiqa.pictures.results import Layout
from saiqa.scorer import DEMO_CAVEAT
from saiqa.service.site import examples
from serving import PICTURES, served_here, write_calibration

PATIENCE_SECONDS = 120
TITLES = [name.capitalize() for name in facts.DIMENSIONS]
LABELS = [f"{title} (higher is less)" if title == "Distortion" else title for title in TITLES]

pytestmark = NEEDED


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(SMALL_BUNDLE, device="cpu")


@pytest.fixture(scope="module")
def expected(scorer) -> list:
    return scorer.score(PICTURES[:3])


@pytest.fixture(scope="module")
def url(scorer, expected):  # expected first: the scorer is the service's from then on
    with served_here(scorer, images=2, megapixels=1) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = started(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, url):
    """The page, fresh and without a history."""
    browser.get(url)
    wait(browser, lambda: is_met(browser))  # from then on it keeps nothing by itself
    browser.execute_script("sessionStorage.clear()")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.refresh()
    wait(browser, lambda: is_met(browser))
    return browser


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Three pictures, whose names a CSV must quote."""
    paths = [tmp_path / name for name in ("first.png", 'a "second", one.png', "third.png")]
    for path, data in zip(paths, PICTURES, strict=False):
        path.write_bytes(data)
    return paths


def wait(browser, condition) -> None:
    WebDriverWait(browser, PATIENCE_SECONDS, poll_frequency=0.1).until(lambda _: condition())


def upload(browser, *paths: Path) -> None:
    """Choose files as a user does, and wait until they are answered."""
    browser.find_element(By.ID, "files").send_keys("\n".join(map(str, paths)))
    wait(browser, lambda: is_done(browser, len(paths)))


def is_met(browser) -> bool:
    """Whether the page knows its service, and has shown what it kept."""
    return SMALL_BUNDLE.name in browser.find_element(By.ID, "model").text and bool(
        browser.find_elements(By.CSS_SELECTOR, "#history-head th")
    )


def is_done(browser, count: int) -> bool:
    """Whether the page says that so many pictures are answered, and how."""
    said = browser.find_element(By.ID, "status").text
    return said == f"{count} picture{'s' if count > 1 else ''} scored." or (
        f"of {count} scored, " in said and "failed." in said
    )


def texts(parent, selector: str) -> list[str]:
    return [found.text for found in parent.find_elements(By.CSS_SELECTOR, selector)]


def rows(browser) -> list[list[str]]:
    """The history, cell by cell."""
    return [texts(row, "th, td.value, td.error") for row in browser.find_elements(By.CSS_SELECTOR, "#history tr")]


def attributes(browser, node: dict) -> dict[str, str]:
    """The attributes of the element that a node of the accessibility tree stands for."""
    found = browser.execute_cdp_cmd("DOM.describeNode", {"backendNodeId": node["backendDOMNodeId"]})["node"]["attributes"]
    return dict(zip(found[::2], found[1::2], strict=True))


def downloaded(browser, folder: Path) -> str:
    """What the download button saves."""
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    browser.find_element(By.ID, "download").click()
    wait(browser, lambda: list(folder.glob("*.csv")))
    return next(folder.glob("*.csv")).read_bytes().decode()


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


def test_pictures_without_a_score_say_why_and_keep_nobody_else_from_theirs(page, files, tmp_path):
    broken, huge = tmp_path / "broken.png", tmp_path / "huge.png"
    broken.write_text("no picture")
    Image.new("L", (1001, 1000)).save(huge)
    upload(page, broken, huge, files[0])
    states = texts(page, "#results .state")
    assert facts.IMAGE_FORMATS_TEXT in states[0] and "1 megapixels" in states[1] and states[2] == ""
    assert page.find_element(By.ID, "status").text == "1 of 3 scored, 2 failed."
    assert texts(page, ".overall .number")[2] and len(rows(page)) == 3
    assert "no JPEG" in downloaded(page, tmp_path / "out")


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


def test_dropped_pictures_are_scored(page):
    """A drop as the browser delivers it, with a real file made in the page."""
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


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_nothing_sticks_out_at_any_width(page, files, width):
    upload(page, files[0], files[2])
    mobile = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", mobile)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    sticking_out = """
        return [...document.querySelectorAll("main *:not(.unseen)")].filter((element) =>
          element.getBoundingClientRect().right > innerWidth + 1 && !element.closest(".sideways")).map((e) => e.outerHTML)
    """
    assert page.execute_script(sticking_out) == []
    heights = page.execute_script("return [...document.querySelectorAll('#history tr')].map(e => e.offsetHeight)")
    assert max(heights) < 130  # no name is squeezed into a column of single letters


def test_the_keyboard_reaches_everything_in_order(page, files):
    upload(page, files[0])
    page.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.execute_script("document.body.tabIndex = -1; document.body.focus()")
    reached = []
    while reached[-1:] != ["clear"] and len(reached) < 30:
        ActionChains(page).send_keys(Keys.TAB).perform()
        focused = page.switch_to.active_element
        label = focused.get_attribute("aria-label") or focused.text.strip()
        reached.append(focused.get_attribute("id") or label)
        outline = "return getComputedStyle(document.activeElement.id === 'files' ? files.labels[0] : document.activeElement)"
        assert page.execute_script(f"{outline}.outlineStyle") == "solid"
    heads = ["Picture", "Overall", *LABELS]
    row = ["Compare first.png", "Remove first.png from the table"]
    start = [
        "files",
        "Rooms to try, and what the scores mean",
        *(f"Where the {name} of first.png is lowered" for name in facts.DIMENSIONS),
        "Remove first.png",
        *("field", "least", "name", "Scores of all pictures"),
    ]
    assert reached == [*start, *heads, *row, "download", "clear"]
    ActionChains(page).send_keys(Keys.ENTER).perform()
    assert page.switch_to.active_element.get_attribute("id") == "files"  # focus goes where work goes on
    assert rows(page) == []


def test_a_screen_reader_hears_names_and_values(page, files, expected):
    upload(page, files[0])
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]

    def nodes(role: str) -> list[dict]:
        return [node for node in tree if not node["ignored"] and node["role"]["value"] == role]

    def named(role: str) -> list[str]:
        return [node.get("name", {}).get("value", "") for node in nodes(role)]

    assert named("meter") == TITLES
    for node, name in zip(nodes("meter"), facts.DIMENSIONS, strict=True):
        score = f"{expected[0].scores[name]:.2f}"
        said = {item["name"]: item["value"].get("value") for item in node["properties"]}
        assert (said["valuemin"], said["valuemax"]) == (1, 5)
        assert node["value"]["value"] == pytest.approx(float(score), abs=1e-6)
        assert attributes(page, node)["aria-valuetext"] == f"{score} of 5"
        # Chromium 156 leaves the text out of this protocol's answer, for every role and however it was set.
        assert said.get("valuetext") in (f"{score} of 5", "", None)
    assert named("columnheader") == ["Compare", "Picture", "Overall", *LABELS, "Remove"]
    assert named("rowheader") == ["first.png"]
    assert {"Download as CSV", "Clear"} <= set(named("button"))
    assert all(named("button")) and all(named("heading")) and all(named("list"))
    assert page.find_element(By.ID, "status").get_attribute("role") == "status"
    assert page.execute_script("return document.documentElement.lang") == "en"


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


def press(browser, selector: str) -> None:
    """Press a button with the keyboard."""
    browser.find_element(By.CSS_SELECTOR, selector).send_keys(Keys.ENTER)


def names(browser) -> list[str]:
    return [row[0] for row in rows(browser)]


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


def luminance(colour: list[int]) -> float:
    """Of WCAG, 0 to 1."""
    linear = [value / 255 / 12.92 if value / 255 <= 0.04045 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_low_and_high_scores_have_colours_apart(page):
    """By brightness, which the colour-blind see as everybody does; and every number can be read on its colour."""
    scores = [1, 1.2, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 4.7, 5]
    script = """
        const [scores, done] = arguments;
        import("./parts.js").then(({ make, paint }) => done(scores.map((score) => paint(make("p"), score).style).map((style) =>
          [style.getPropertyValue("--paint").match(/\\d+/g).map(Number), style.getPropertyValue("--ink") === "#000"])));
    """
    painted = page.execute_async_script(script, scores)
    bright = [luminance(colour) for colour, _ in painted]
    assert bright == sorted(bright) and (bright[-2] + 0.05) / (bright[1] + 0.05) > 7
    for light, (_, black) in zip(bright, painted, strict=True):
        assert ((light + 0.05) / 0.05 if black else 1.05 / (light + 0.05)) >= 4.5


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


def interval_of(score: float, half: float) -> str:
    return f"{max(1, score - half):.2f} to {min(5, score + half):.2f}"


def test_intervals_caveat_and_verdict_stand_beside_the_score(browser, tmp_path, expected):
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
    """By how much a place of the card's picture, in shares of its sides, is redder than green."""
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


@AXE_NEEDED
def test_it_is_accessible(page, files):
    for width, scheme in ((1280, "light"), (390, "dark")):
        show(page, width, scheme)
        assert violations(page) == []
    upload(page, *files[:2])
    for box in page.find_elements(By.CSS_SELECTOR, "#history input"):
        box.send_keys(Keys.SPACE)
    for width, scheme in ((390, "dark"), (1280, "light")):
        show(page, width, scheme)
        assert violations(page) == []


def test_the_browser_is_told_to_keep_everything_else_out(url):
    import httpx

    for path in ("/", "/page.js", "/table.js", "/page.css", "/icon.svg", f"/examples/{next(iter(examples()))}"):
        answer = httpx.get(url + path, trust_env=False)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    page = httpx.get(url, trust_env=False).text
    assert "http://" not in page and "https://" not in page
