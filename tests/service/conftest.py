"""What the tests of the service share: a running one, and what its scorer says."""

from __future__ import annotations

import pytest

from serving import PICTURES, TOLERANCE, served_here

LIMITS = {"images": 4, "max_queue": 8, "request_mb": 1, "megapixels": 1}


@pytest.fixture(scope="module")
def expected_scores(scorer) -> list[dict[str, float]]:
    """What the scorer says of ``PICTURES``, dimension -> score."""
    scores = [result.scores for result in scorer.score(PICTURES)]
    apart = min(max(abs(a[name] - b[name]) for name in a) for i, a in enumerate(scores) for b in scores[:i])
    assert apart > 10 * TOLERANCE, "the pictures must be told apart by their scores"
    return scores


@pytest.fixture(scope="module")
def service(scorer, expected_scores):  # expected_scores first: the scorer is the service's from then on
    with served_here(scorer, **LIMITS) as url:
        yield url
