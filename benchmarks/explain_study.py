"""Do the maps of what lowers a score find faults at known places, and what does a map cost?

    python benchmarks/explain_study.py [--rooms DIR | --splits val test] [--limit N]

Uses the demo's rooms in which every fault has a place (``demo/places.npz``, computed from the rooms' geometry by
``make/render/places.py``), with a severity of ``LEAST_SEVERE`` or more; or the rooms that ``make/render/placed_rooms.py`` has
rendered into a folder. A region is a hit if the fault covers at least half as much of it as of the region that it covers most.
Three tables, with bootstrap intervals over rooms: pointing (the share of rooms in which the map is highest at a hit), the area
under the ROC curve (hits against the other regions), and deletion (the average increase of the score in points while the
highest-ranked regions are replaced by the picture's mean embedding, one seventh of them at a time). Baselines: chance, the
middle of the picture, and the map of another room of the same dimension. Last, seconds of a score and of a map, alternating.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tools"))

import numpy as np
import torch

from measuring import native
from reporting import machine, print_table
from saiqa import Scorer, facts
from saiqa.engines import Failure, Request
from saiqa.engines.region_maps import MOST, rated, region_map
from saiqa.files import folders
from saiqa.image_map import DEFAULTS
from saiqa.model import maps
from saiqa.progress import Progress

PLACES = REPOSITORY / "demo" / "places.npz"
LEAST_SEVERE = 0.25
HIT = 0.5
STEPS = 7
DRAWS = 2000
FEWEST = 8  # rooms needed for an interval of a difference
# Faults that have a place: a dimension's row has the rooms with only these. Jumbled and mixed furniture has separate rows.
PLACED = {"floating", "sunken", "wrong_scale", "bent_furniture", "wrong_material", "clashing_furniture", "stray_light"}
CHANCE, MIDDLE, OTHER, DEFAULT = "chance", "middle", "other room", "default"


@dataclass
class Room:
    """A room: which regions its faults cover, and its maps by method."""

    name: str
    dimension: str
    kinds: tuple[str, ...]
    hits: np.ndarray
    question: maps.Asked
    regions: torch.Tensor
    maps: dict[str, np.ndarray]


def rooms(scorer: Scorer, folder: Path | None, splits: Sequence[str], limit: int | None) -> list[Room]:
    """All rooms of a folder, or of these splits of the demo, with their maps."""
    stored = np.load(folder / "places.npz" if folder else PLACES)
    severity = {} if folder else {row["id"]: float(row["severity"]) for row in scenes()}
    chosen = [i for i, name in enumerate(stored["ids"]) if folder or is_of(name, splits, severity)]
    chosen = chosen[:: max(1, len(chosen) // limit)] if limit else chosen
    size = stored["places"].shape[2] * 8
    found = []
    with Progress(len(chosen), "maps", unit="rooms") as progress:
        for i in chosen:
            name, kinds = str(stored["ids"][i]), tuple(str(stored["kinds"][i]).split("+"))
            picture = folder / "images" / f"{name}.jpg" if folder else demo_picture(name)
            place = np.unpackbits(stored["places"][i], axis=-1)[:, :size].astype(float)
            found.append(room(scorer, picture, kinds, place))
            progress.advance()
    return found


def is_of(name: str, splits: Sequence[str], severity: Mapping[str, float]) -> bool:
    """Whether a room of the demo is in these splits and has a clear fault."""
    return name.split("_")[2] in splits and severity[name] >= LEAST_SEVERE


def scenes() -> list[dict]:
    """Where every picture of the demo comes from."""
    folder = folders.roots(demo=True).data / facts.ANNOTATIONS_FOLDER
    with open(folder / "scenes.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def demo_picture(name: str) -> Path:
    """The picture of a room of the demo."""
    return folders.roots(demo=True).data / facts.IMAGES_FOLDER.format(dimension=name.split("_")[1]) / f"{name}.jpg"


def request(scorer: Scorer, picture: Path) -> Request:
    """The question about a room, in the dimension given by its name."""
    sentences = scorer.sentences[picture.stem.split("_")[1]]
    return Request(picture, sentences.query, sentences.before)


def room(scorer: Scorer, picture: Path, kinds: tuple[str, ...], place: np.ndarray) -> Room:
    """A room with its maps, given the places of its faults [rows, columns]."""
    dimension = picture.stem.split("_")[1]
    answer = rated(scorer.engine, request(scorer, picture))
    if isinstance(answer, Failure):
        raise RuntimeError(f"{picture}: {answer.reason}")
    _, question, (rows, columns) = answer
    regions, (down, across) = maps.regions(rows, columns, MOST)
    share = shrunk(place, down, across)
    made = {method: ask(question, regions).float().numpy() for method, ask in maps.METHODS.items()}
    made |= {MIDDLE: middle(down, across), DEFAULT: made[DEFAULTS[dimension]]}
    return Room(picture.stem, dimension, kinds, share >= HIT * share.max(), question, regions, made)


def shrunk(place: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Means over rows x columns regions of equal size, flattened."""
    fine = place.repeat(rows, 0).repeat(columns, 1)
    return fine.reshape(rows, place.shape[0], columns, place.shape[1]).mean((1, 3)).ravel()


def middle(rows: int, columns: int) -> np.ndarray:
    """The prior that faults are in the middle of the picture."""
    row, column = np.mgrid[0:rows, 0:columns]
    return -(((row + 0.5) / rows - 0.5) ** 2 + ((column + 0.5) / columns - 0.5) ** 2).ravel()


# ---- figures ---------------------------------------------------------------------------------------------------------


def pointing(found: np.ndarray, hits: np.ndarray) -> float:
    """Whether the map is highest at a hit."""
    return float(hits[found.argmax()])


def area(found: np.ndarray, hits: np.ndarray) -> float:
    """Area under the ROC curve; NaN if all regions are hits."""
    inside, outside = found[hits][:, None], found[~hits]
    return float(((inside > outside) + (inside == outside) / 2).mean()) if outside.size else float("nan")


@torch.no_grad()
def deletion(orders: Sequence[np.ndarray], one: Room) -> list[float]:
    """For each order of the regions, the mean increase of the score while they are replaced by the mean embedding in turn."""
    asked, visual = one.question, [one.question.visual]
    for order in orders:
        for step in range(1, STEPS):
            gone = one.regions[torch.from_numpy(order[: len(order) * step // STEPS].copy())].any(0)
            visual.append(torch.where(gone[:, None], asked.visual.mean(0), asked.visual))
    scores = asked.scores(torch.stack(visual))
    return (scores[1:] - scores[0]).view(len(orders), -1).mean(1).tolist()


def figures(one: Room, all_rooms: Sequence[Room], rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Figure -> method -> its value for one room."""
    others = [other.maps[DEFAULT] for other in all_rooms if other.dimension == one.dimension and other is not one]
    others = others or [one.maps[MIDDLE]]
    found = {"pointing": {CHANCE: float(one.hits.mean())}, "ROC area": {CHANCE: 0.5 if not one.hits.all() else float("nan")}}
    for name, figure in (("pointing", pointing), ("ROC area", area)):
        found[name] |= {OTHER: float(np.mean([figure(other, one.hits) for other in others]))}
        found[name] |= {method: figure(values, one.hits) for method, values in one.maps.items()}
    orders = {CHANCE: rng.permutation(len(one.hits)), OTHER: np.argsort(-others[rng.integers(len(others))], kind="stable")}
    orders |= {method: np.argsort(-values, kind="stable") for method, values in one.maps.items()}
    found["deletion"] = dict(zip(orders, deletion(list(orders.values()), one), strict=True))
    return found


def interval(values: Sequence[float]) -> str:
    """The mean with its 95% bootstrap interval."""
    low, high = bounds(np.asarray(values))
    return f"{np.nanmean(values):.2f} [{low:.2f}, {high:.2f}]"


def bounds(values: np.ndarray) -> np.ndarray:
    """The 95% bootstrap interval of a mean."""
    rng = np.random.default_rng(0)
    means = np.nanmean(values[rng.integers(len(values), size=(DRAWS, len(values)))], axis=1)
    return np.nanquantile(means, (0.025, 0.975))


# ---- tables ----------------------------------------------------------------------------------------------------------


def groups(found: Sequence[Room]) -> dict[str, list[int]]:
    """The indices of the rooms of each dimension and of each kind of fault."""
    named: dict[str, list[int]] = {}
    for dimension in facts.DIMENSIONS:
        mine = [i for i, one in enumerate(found) if one.dimension == dimension]
        kinds = sorted({kind for i in mine for kind in found[i].kinds})
        named[f"**{dimension}**"] = [i for i in mine if PLACED.issuperset(found[i].kinds)]
        named |= {kind.replace("_", " "): [i for i in mine if kind in found[i].kinds] for kind in kinds}
    return {name: numbers for name, numbers in named.items() if numbers}


def print_figures(found: Sequence[Room], values: Sequence[Mapping[str, Mapping[str, float]]]) -> None:
    """A table for each metric: one row per dimension and kind, one column per method."""
    methods = (CHANCE, MIDDLE, OTHER, DEFAULT, *maps.METHODS)
    for figure in ("pointing", "ROC area", "deletion"):
        print(f"\n{figure}:\n")
        rows = [
            [name, len(mine), *(interval([values[i][figure][method] for i in mine]) for method in methods)]
            for name, mine in groups(found).items()
        ]
        print_table(["", "n", *methods], rows)
    print("\nbetter than the middle, paired by room (interval of the difference above 0; p: pointing, a: ROC area):\n")
    for name, mine in groups(found).items():
        if len(mine) < FEWEST:
            continue
        print(f"- {name}: {', '.join(ahead(values, mine)) or 'none'}")


def ahead(values: Sequence[Mapping[str, Mapping[str, float]]], mine: Sequence[int]) -> list[str]:
    """The methods that are better than the middle in these rooms."""
    found = []
    for method in (DEFAULT, *maps.METHODS):
        signs = ""
        for sign, figure in (("p", "pointing"), ("a", "ROC area")):
            gained = np.array([values[i][figure][method] - values[i][figure][MIDDLE] for i in mine])
            signs += sign if bounds(gained)[0] > 0 else ""
        found += [f"{method} ({signs})"] if signs else []
    return found


def print_cost(scorer: Scorer, repeats: int) -> None:
    """Seconds of a score and of each map of the same pictures, alternating; the best of each counts."""
    engine = native(scorer.engine)
    asked = [request(scorer, demo_picture(f"room_layout_val_{index:04d}")) for index in range(4)]
    work: dict[str, Callable[[Request], object]] = {"score": lambda one: engine.rate([one])}
    for method in maps.METHODS:
        work[method] = partial(region_map, engine, method=method)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, call in work.items():
            started = time.perf_counter()
            for one in asked:
                call(one)
            seconds[name].append((time.perf_counter() - started) / len(asked))
    best = {name: min(taken) for name, taken in seconds.items()}
    print(f"\nincluding the score, on {machine(engine.device)}:\n")
    print_table(["", "seconds", "relative cost"], [[n, f"{s:.3f}", f"{s / best['score']:.1f}"] for n, s in best.items()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rooms", type=Path, metavar="DIR", help="rooms of make.render.placed_rooms; default: the demo's")
    parser.add_argument("--splits", nargs="+", choices=("val", "test"), default=["val", "test"])
    parser.add_argument("--limit", type=int, metavar="N", help="use about N of the rooms")
    parser.add_argument("--repeats", type=int, default=10, help="timed runs (default: 10)")
    arguments = parser.parse_args()
    scorer = Scorer(demo=True, device="cpu", dtype="float32")
    found = rooms(scorer, arguments.rooms, arguments.splits, arguments.limit)
    rng = np.random.default_rng(0)
    print_figures(found, [figures(one, found, rng) for one in found])
    print_cost(scorer, arguments.repeats)


if __name__ == "__main__":
    main()
