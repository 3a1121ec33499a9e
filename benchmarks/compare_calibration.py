"""Whether "A is better with probability p" holds: the demo's graded series, in which a lower severity is better.

    python benchmarks/compare_calibration.py
    python benchmarks/compare_calibration.py --scored series.csv      # from score_images.py --probabilities, on demo/series

Pairs are pictures of one series with different severities, in the dimension of the series. Series are split into two halves
within each dimension; the temperature is fitted on one half (least negative log-likelihood), the reliability table and the
expected calibration error are those of the other. Which picture of a pair is A is drawn with a fixed seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path.insert(0, str(REPOSITORY / "tools"))

from saiqa import facts
from saiqa.files import csv_files
from saiqa.pictures.better import better, calibration_error, reliability
from saiqa.pictures.results import word_column
from saiqa.pictures.scored_files import read_table

SERIES = REPOSITORY / "demo" / "series"
SEED = 0
BINS = 10


def main() -> int:
    """Print the table; with ``--json`` one object."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--scored", metavar="FILE", help="scores of demo/series with --probabilities; default: computed here")
    flags.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = flags.parse_args()
    fitted, tested = halves(read_series(), distributions(Path(args.scored)) if args.scored else scored_now())
    temperature = fit(fitted)
    found: dict = {"n_fit": len(fitted), "temperature": temperature}
    for name, t in (("temperature 1", 1.0), ("fitted", temperature)):
        said = [better(a, b, t) for a, b, _ in tested]
        table = reliability(said, [truth for *_, truth in tested], BINS)
        found[name] = {"n": len(tested), "ece": calibration_error(table), "log_loss": log_loss(tested, t), "table": table}
    print(json.dumps(found, indent=2) if args.json else text(found))
    return 0


def read_series() -> list[dict[str, str]]:
    """The rows of series.csv."""
    return csv_files.read_csv(SERIES / "series.csv").rows


def distributions(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """(image as in series.csv, dimension) -> word -> probability, from a scored table."""
    found = {}
    for row in read_table(path).rows:
        image = "/".join(Path(row["image"]).parts[-2:])
        for dimension in facts.DIMENSIONS:
            found[image, dimension] = {word: float(row[word_column(dimension, word)]) for word in facts.WORDS}
    return found


def scored_now() -> dict[tuple[str, str], dict[str, float]]:
    """As ``distributions``, scored here with the demo's checkpoint."""
    from saiqa import Scorer

    scorer = Scorer(demo=True)
    found = {}
    for dimension in facts.DIMENSIONS:
        images = [row["image"] for row in read_series() if row["dimension"] == dimension]
        for image, result in zip(images, scorer.stream([SERIES / image for image in images], [dimension]), strict=True):
            found[image, dimension] = result.probabilities[dimension]
    return found


def halves(rows: list[dict[str, str]], words: dict) -> tuple[list[tuple], list[tuple]]:
    """(A's distribution, B's, whether A is better) for the pairs of each half of the series."""
    series: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        series.setdefault((row["dimension"], row["series"]), []).append(row)
    parts: tuple[list[tuple], list[tuple]] = ([], [])
    draw = random.Random(SEED)
    for number, ((dimension, _), members) in enumerate(sorted(series.items())):
        for one, other in itertools.combinations(members, 2):
            a, b = (one, other) if draw.random() < 0.5 else (other, one)
            if float(a["severity"]) != float(b["severity"]):
                truth = float(a["severity"]) < float(b["severity"])
                parts[number % 2].append((words[a["image"], dimension], words[b["image"], dimension], truth))
    return parts


def log_loss(pairs: list[tuple], temperature: float) -> float:
    """The mean negative log-likelihood of which picture is better, in nats."""
    said = [better(a, b, temperature) if truth else better(b, a, temperature) for a, b, truth in pairs]
    return -math.fsum(math.log(max(p, 1e-12)) for p in said) / len(said)


def fit(pairs: list[tuple]) -> float:
    """The temperature with the least log loss, searched on a log scale."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda t: log_loss(pairs, math.exp(t)), bounds=(math.log(0.05), math.log(20)), method="bounded")
    return math.exp(found.x)


def text(found: dict) -> str:
    """The figures as lines."""
    lines = [f"temperature {found['temperature']:.3f}, fitted on {found['n_fit']} pairs of one half of the series"]
    for name in ("temperature 1", "fitted"):
        part = found[name]
        lines += ["", f"{name}: ECE {part['ece']:.4f}, log loss {part['log_loss']:.4f}, n {part['n']} pairs of the other half"]
        lines += [f"{'said':>8}{'held':>8}{'n':>6}"]
        lines += [f"{said:>8.3f}{held:>8.3f}{n:>6}" for said, held, n in part["table"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
