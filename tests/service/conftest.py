"""Shared by the tests of the service: a running service, the scores of its scorer, and its page in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving import PICTURES, TOLERANCE, served_here

LIMITS = {"images": 4, "max_queue": 8, "request_mb": 1, "megapixels": 1}


@pytest.fixture(scope="module")
def expected_scores(scorer) -> list[dict[str, float]]:
    """The scorer's scores of ``PICTURES``, dimension -> score."""
    scores = [result.scores for result in scorer.score(PICTURES)]
    apart = min(max(abs(a[name] - b[name]) for name in a) for i, a in enumerate(scores) for b in scores[:i])
    assert apart > 10 * TOLERANCE, "the pictures must be told apart by their scores"
    return scores


@pytest.fixture(scope="module")
def service(scorer, expected_scores):  # expected_scores first: the scorer is the service's from then on
    with served_here(scorer, **LIMITS) as url:
        yield url


# ---- the page in a browser: selenium is imported only if needed ------------------------------------------------------


@pytest.fixture(scope="module")
def expected(scorer) -> list:
    """The scorer's results for the pictures of ``files``."""
    return scorer.score(PICTURES[:3])


@pytest.fixture(scope="module")
def url(scorer, expected):  # expected first: the scorer is the service's from then on
    with served_here(scorer, images=2, megapixels=1) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from chromium import started

    driver = started(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, url):
    """The page, reloaded and without a history."""
    from service_page import is_met, wait

    browser.get(url)
    wait(browser, lambda: is_met(browser))  # afterwards it stores nothing by itself
    browser.execute_script("sessionStorage.clear()")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.refresh()
    wait(browser, lambda: is_met(browser))
    return browser


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Three pictures, with names that need quoting in a CSV."""
    paths = [tmp_path / name for name in ("first.png", 'a "second", one.png', "third.png")]
    for path, data in zip(paths, PICTURES, strict=False):
        path.write_bytes(data)
    return paths
