"""Actual against nominal coverage of the intervals of ``calibrate.py``, on rooms not used for training.

    python tools/infer.py --demo --split val && python tools/infer.py --demo
    python benchmarks/interval_study.py [--splits 200]

Pools the demo's validation and test ratings, repeatedly calibrates on a random half and evaluates on the other: coverage and
mean width of 90% intervals by dimension, compared with plain conformal intervals of one width; coverage by tenth of the score;
and whether dropping the widest lowers the error (area under the risk-coverage curve, compared with a random order, the order of
the entropy, and that of the errors themselves).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tools"))

import numpy as np

from saiqa import facts
from saiqa.calibration import CONFIDENCE, Fit
from saiqa.cli import calibrate, jobs
from saiqa.evaluate import conformal, tables
from saiqa.files import folders


def rated(dimension: str) -> list[calibrate.Rated]:
    """The rooms of both splits."""
    roots = folders.roots(demo=True)
    name = facts.result_name(dimension, facts.RECOMMENDED, facts.tuned_model(), ".jsonl")
    results = [jobs.default_results(roots, split) / name for split in ("val", "test")]
    return [one for path in results for one in calibrate.read(path, dimension)]


def constant_width(known: Sequence[calibrate.Rated], fitted: Fit) -> float:
    """Half the width of plain split-conformal intervals."""
    errors = sorted(abs(one.mos - fitted.intercept - fitted.slope * one.score) for one in known)
    return errors[min(len(errors), math.ceil((len(errors) + 1) * CONFIDENCE)) - 1]


def study(dimension: str, splits: int) -> dict[str, float]:
    """The columns of the table for one dimension, over random halves."""
    rooms = rated(dimension)
    held, widths, plain_held, plain_widths, places, errors, entropies = ([] for _ in range(7))
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(rooms))
        known, asked = ([rooms[place] for place in part] for part in np.array_split(order, 2))
        fitted = conformal.fit([r.score for r in known], [r.distribution for r in known], [r.mos for r in known], "", seed)
        half = constant_width(known, fitted)
        for room in asked:
            low, high = fitted.interval(room.score, room.distribution)
            middle = fitted.intercept + fitted.slope * room.score
            held.append(low <= room.mos <= high)
            widths.append(high - low)
            plain_held.append(abs(room.mos - middle) <= half)
            plain_widths.append(min(5.0, middle + half) - max(1.0, middle - half))
            places.append(room.score)
            errors.append(abs(room.mos - fitted.mean(room.score)))
            entropies.append(-sum(p * math.log(p) for p in room.distribution.values() if p > 0))
    tenths = np.array_split(np.argsort(places), 10)
    inside, plain_inside, off = map(np.array, (held, plain_held, errors))
    return {
        "coverage": inside.mean(),
        "width": float(np.mean(widths)),
        "plain coverage": plain_inside.mean(),
        "plain width": float(np.mean(plain_widths)),
        "worst tenth": min(inside[tenth].mean() for tenth in tenths),
        "plain worst tenth": min(plain_inside[tenth].mean() for tenth in tenths),
        "risk by width": risk(off, widths),
        "by entropy": risk(off, entropies),
        "at random": off.mean(),
        "by the errors": risk(off, errors),
    }


def risk(errors: np.ndarray, unsure: Sequence[float]) -> float:
    """Area under the risk-coverage curve: the mean error of the kept images, over all shares kept."""
    ordered = errors[np.argsort(unsure, kind="stable")]
    return float((np.cumsum(ordered) / np.arange(1, len(ordered) + 1)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--splits", type=int, default=200)
    arguments = parser.parse_args()
    found = {dimension: study(dimension, arguments.splits) for dimension in facts.DIMENSIONS}
    header = ["", *next(iter(found.values()))]
    rows = [[dimension, *(f"{value:.3f}" for value in figures.values())] for dimension, figures in found.items()]
    print("\n".join(tables.lines(tables.MARKDOWN, header, rows, [], labels=1)))


if __name__ == "__main__":
    main()
