"""Simulated raters: from the severity of a fault to integer ratings, their mean, and the correlation that the noise allows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

RATERS = 5
BIAS = 0.3  # standard deviation between raters, in points of the 1..5 scale
SPREAD = 0.5  # standard deviation of one rater from picture to picture, in points


def true_quality(severity: ArrayLike) -> np.ndarray:
    """Severity 0..1 -> quality 5..1."""
    return 5.0 - 4.0 * np.asarray(severity, float)


def ratings(severities: ArrayLike, rng: np.random.Generator) -> np.ndarray:
    """Integer ratings 1..5, [pictures, RATERS], of pictures with faults of these severities [pictures]."""
    quality = true_quality(severities)[:, None]
    noise = rng.normal(0, BIAS, (1, RATERS)) + rng.normal(0, SPREAD, (len(quality), RATERS))
    return np.clip(np.floor(quality + noise + 0.5), 1, 5).astype(int)


def ceiling(severities: ArrayLike, mos: ArrayLike) -> float:
    """Pearson correlation of the noisy MOS with the true quality: what a perfect scorer would reach."""
    return float(np.corrcoef(true_quality(severities), np.asarray(mos, float))[0, 1])
