"""Shared by the tests of rewards: five pictures, their scores, and a service that returns them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from serving import served_here


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Five pictures [5, 48, 64, 3] uint8."""
    generator = np.random.default_rng(5)
    small = generator.integers(0, 256, (5, 3, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((64, 48))) for image in small])


@pytest.fixture(scope="module")
def expected(scorer, pixels) -> list:
    return scorer.score(list(pixels))


@pytest.fixture(scope="module")
def service(scorer, expected):  # expected first: the scorer is the service's from then on
    with served_here(scorer, images=2, megapixels=1) as url:
        yield url
