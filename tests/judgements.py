"""Simulated scores and preferences, as arrays and as files."""

from __future__ import annotations

import numpy

from helpers import write_csv
from saiqa import facts
from saiqa.preferences import bradley_terry

DIMENSIONS = tuple(facts.DIMENSIONS)


def simulate(strengths, images=200, pairs=4000, tie=0.0, seed=0):
    """Scores [images, 4], and judgements of random pairs drawn from the model with these strengths: (a, b, outcome)."""
    draw = numpy.random.default_rng(seed)
    scores = draw.uniform(1, 5, (images, 4)).round(4)
    first = draw.integers(images, size=pairs)
    second = (first + draw.integers(1, images, size=pairs)) % images
    u = (scores[first] - scores[second]) @ numpy.asarray(strengths) / 2
    likelihood = numpy.stack([numpy.exp(u), numpy.full(pairs, tie), numpy.exp(-u)])
    cumulative = (likelihood / likelihood.sum(axis=0)).cumsum(axis=0)
    chosen = (draw.uniform(size=pairs) > cumulative[:2]).sum(axis=0)
    outcomes = numpy.array([bradley_terry.A, bradley_terry.TIE, bradley_terry.B])[chosen]
    return scores, list(zip(first, second, outcomes, strict=True))


def name(i):
    return f"renders/{i:03d}.png"


def write(folder, scores, judged, says=("a", "tie", "b")):
    """A scored CSV as score_images.py writes it, and a CSV of preferences."""
    rows = [dict(zip(("image", *DIMENSIONS), (name(i), *row), strict=True)) for i, row in enumerate(scores)]
    write_csv(folder / "scored.csv", [{**row, "error": ""} for row in rows])
    winner = {bradley_terry.A: says[0], bradley_terry.TIE: says[1], bradley_terry.B: says[2]}
    pairs = [{"image_a": name(a), "image_b": name(b), "winner": winner[o], "judge": "j"} for a, b, o in judged]
    write_csv(folder / "pairs.csv", pairs)
    return folder / "scored.csv", folder / "pairs.csv"
