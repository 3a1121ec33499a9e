"""Synthetic tables of scored images, for tests of the evaluating commands."""

from __future__ import annotations

import numpy

from helpers import write_csv
from saiqa import facts

COMMAND = "evaluate_correlation.py"
ROWS = 40  # in a table


def scored_rows(dimension: str, seed: int, noise: float = 0.5) -> list[dict]:
    """Rows of two generators: MOS, the same for every seed, and scores with normal ``noise`` added to them."""
    number = list(facts.DIMENSIONS).index(dimension)
    draw = numpy.random.default_rng([seed, number])
    mos = numpy.random.default_rng(number).uniform(1, 5, ROWS).round(2)
    scores = (mos + draw.normal(0, noise, ROWS)).clip(1, 5).round(4)
    rows = zip(mos, scores, strict=True)
    generators = ("flux|1", "sd_3 & co")
    return [
        {"id": f"{i:03d}", f"{dimension}_score_mos": m, "model": generators[i % 2], "score_pred": s}
        for i, (m, s) in enumerate(rows)
    ]


def write_tables(
    folder, name="sa-iqa-prompt4", seed=0, noise=0.5, dimensions=tuple(facts.DIMENSIONS), change=lambda rows: rows
):
    """Write a model's tables of some dimensions into a folder of results; ``change`` gets the rows of each."""
    for dimension in dimensions:
        write_csv(folder / facts.result_name(dimension, 4, name, ".csv"), change(scored_rows(dimension, seed, noise)))
    return folder
