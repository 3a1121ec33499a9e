"""The service's page in a browser, for tests: uploading, waiting, and reading its contents."""

from __future__ import annotations

from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from helpers import SMALL_BUNDLE
from saiqa import facts

PATIENCE_SECONDS = 120
TITLES = [name.capitalize() for name in facts.DIMENSIONS]
LABELS = [f"{title} (higher is less)" if title == "Distortion" else title for title in TITLES]


def wait(browser, condition) -> None:
    WebDriverWait(browser, PATIENCE_SECONDS, poll_frequency=0.1).until(lambda _: condition())


def upload(browser, *paths: Path) -> None:
    """Choose files as a user does, and wait for the answers."""
    browser.find_element(By.ID, "files").send_keys("\n".join(map(str, paths)))
    wait(browser, lambda: is_done(browser, len(paths)))


def is_met(browser) -> bool:
    """Whether the page has reached its service and shown its stored results."""
    return SMALL_BUNDLE.name in browser.find_element(By.ID, "model").text and bool(
        browser.find_elements(By.CSS_SELECTOR, "#history-head th")
    )


def is_done(browser, count: int) -> bool:
    """Whether the page says that ``count`` pictures are answered."""
    said = browser.find_element(By.ID, "status").text
    return said == f"{count} picture{'s' if count > 1 else ''} scored." or (
        f"of {count} scored, " in said and "failed." in said
    )


def texts(parent, selector: str) -> list[str]:
    return [found.text for found in parent.find_elements(By.CSS_SELECTOR, selector)]


def rows(browser) -> list[list[str]]:
    """The history, cell by cell."""
    return [texts(row, "th, td.value, td.error") for row in browser.find_elements(By.CSS_SELECTOR, "#history tr")]


def downloaded(browser, folder: Path) -> str:
    """The text that the download button saves."""
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    browser.find_element(By.ID, "download").click()
    wait(browser, lambda: list(folder.glob("*.csv")))
    return next(folder.glob("*.csv")).read_bytes().decode()
