"""A headless Chromium for tests of pages."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
NEEDED = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="pages are tested in Debian's chromium and chromium-driver, which are not installed"
)
AXE = os.environ.get("SAIQA_AXE", "")  # the file axe.min.js of npm's axe-core
AXE_NEEDED = pytest.mark.skipif(not AXE, reason="SAIQA_AXE names no axe.min.js (npm install axe-core)")


def started(profile: Path) -> webdriver.Chrome:
    """A browser with a separate profile; the test is skipped if it does not start."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    try:
        return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    except WebDriverException as error:
        pytest.skip(f"chromium does not start here: {error.msg}")


def show(browser: webdriver.Chrome, width: int, scheme: str = "light") -> None:
    """Set the size of the window, and light or dark mode."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def violations(browser: webdriver.Chrome) -> list[str]:
    """The violations that axe-core finds in the open page."""
    browser.execute_script(Path(AXE).read_text(encoding="utf-8"))
    run = "const done = arguments[0]; axe.run().then(r => done(r.violations), e => done([{id: String(e)}]))"
    found = browser.execute_async_script(run)
    return [f"{one['id']}: {[node['html'][:100] for node in one.get('nodes', [])][:3]}" for one in found]


def violations_of(page: Path, profile: Path) -> list[str]:
    """What axe-core finds in a file, wide and light, then narrow and dark, in a browser with a profile of its own."""
    browser, found = started(profile), []
    try:
        for width, scheme in ((1280, "light"), (390, "dark")):
            show(browser, width, scheme)
            browser.get(page.as_uri())
            found += violations(browser)
    finally:
        browser.quit()
    return found
