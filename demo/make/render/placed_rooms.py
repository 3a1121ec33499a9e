"""Renders additional rooms in which every fault has a place: for maps of what lowers a score.

    python -m make.render.placed_rooms --output DIR [--dimensions NAME ...] [--each N] [--seed S]
        [--workers N]

Rooms and faults are drawn as for the test split, from another seed; the first ``--each`` rooms of each dimension are kept whose
faults all have a place and a severity of ``LEAST_SEVERE`` or more. DIR gets images/ID.jpg and, last, places.npz as
``places.py`` writes it. Existing pictures are kept, so an interrupted run continues.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from make.render import places, render_rooms
from saiqa import facts
from saiqa.progress import Progress

SEED = render_rooms.SEED + 1
LEAST_SEVERE = 0.25
DRAWN = 4000  # rooms per dimension, over which the severities are spread
SPREAD_OUT = {"jumbled", "mixed_styles"}  # a fault of all pieces together


def rooms(seed: int, dimension: str) -> Iterator[places.Placed]:
    """Rooms of a dimension all of whose faults have a place."""
    return places.placed(seed, dimension, "test", DRAWN, places.CHANNELS.keys() - SPREAD_OUT, LEAST_SEVERE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--dimensions", nargs="+", choices=facts.DIMENSIONS, default=list(facts.DIMENSIONS), metavar="NAME")
    parser.add_argument("--each", type=int, default=250, metavar="N", help="rooms per dimension (default: 250)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    images = arguments.output / "images"
    images.mkdir(parents=True, exist_ok=True)
    chosen = (itertools.islice(rooms(arguments.seed, name), arguments.each) for name in arguments.dimensions)
    found = list(itertools.chain.from_iterable(chosen))
    left = render_rooms.unfinished([(images / f"{one.id}.jpg", one.room)] for one in found)
    with ProcessPoolExecutor(arguments.workers) as pool, Progress(len(left), "rendering", unit="pictures") as progress:
        for count in pool.map(render_rooms.render, left):
            progress.advance(count)
    places.write(arguments.output / "places.npz", found, arguments.workers)


if __name__ == "__main__":
    main()
