"""Can pictures that are not rooms be told from rooms, on the demo?

    python tools/infer.py --demo --split val && python tools/calibrate.py --demo --pictures --output /tmp/demo.json
    python benchmarks/unlike_study.py /tmp/demo.json [--photos DIR]

Compares the demo's test rooms, which the calibration has not seen, with other pictures: one colour, noise, text, a single
pixel, gradients and chequers, rooms upside down, rooms as negatives, and the pictures of a folder. For each kind: the number of
pictures, the area under the ROC curve against the test rooms, and the share that is flagged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tools"))

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from saiqa import Scorer, calibration
from saiqa.engines import Rating, Request
from saiqa.evaluate import tables
from saiqa.files import folders

SIZE = (224, 168)
DIMENSION = "layout"  # the look of a picture does not depend on the question


def kinds(rooms: list[Image.Image], photos: Path | None) -> Iterator[tuple[str, list[Image.Image]]]:
    """Pictures unlike the rooms of the training, by kind."""
    rng = np.random.default_rng(0)
    yield "one colour", [Image.new("RGB", SIZE, name) for name in ("black", "white", "grey", "red", "navy", "beige", "brown")]
    noise = rng.integers(0, 256, (20, *SIZE[::-1], 3), dtype=np.uint8)
    yield "noise", list(map(Image.fromarray, noise))
    yield "text", [page(rng) for _ in range(20)]
    yield "one pixel", [Image.new("RGB", (1, 1), tuple(map(int, rng.integers(0, 256, 3)))) for _ in range(20)]
    down, across = np.mgrid[: SIZE[1], : SIZE[0]]
    waves = [((across * a + down * b) % 256).astype(np.uint8) for a in range(3) for b in range(3) if a or b]
    chequers = [((across // side + down // side) % 2 * 255).astype(np.uint8) for side in (4, 8, 16, 32)]
    yield "gradients, chequers", [Image.fromarray(values).convert("RGB") for values in (*waves, *chequers)]
    yield "rooms upside down", [ImageOps.flip(room) for room in rooms]
    yield "rooms as negatives", [ImageOps.invert(room) for room in rooms]
    if photos:
        yield f"photographs in {photos.name}", [Image.open(file).convert("RGB") for file in sorted(photos.iterdir())]


def page(rng: np.random.Generator) -> Image.Image:
    """A page of random letters."""
    sheet = Image.new("RGB", (448, 336), "white")
    for top in range(10, 320, 14):
        ImageDraw.Draw(sheet).text((10, top), "".join(map(chr, rng.integers(97, 123, 60))), fill="black")
    return sheet


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--photos", type=Path)
    arguments = parser.parse_args()
    familiar = calibration.read(arguments.calibration).familiar
    if familiar is None:
        sys.exit("the calibration has no looks of pictures: use calibrate.py --pictures")
    scorer = Scorer(demo=True, device="cpu")
    asked = scorer.sentences[DIMENSION]

    def distances(pictures: list[Image.Image]) -> np.ndarray:
        answers = scorer.engine.rate([Request(picture, asked.query, asked.before) for picture in pictures])
        return np.array([familiar.distance(answer.look) for answer in answers if isinstance(answer, Rating) and answer.look])

    rooms = [Image.open(file).convert("RGB") for file in folders.demo_test_rooms()]
    near = distances(rooms)
    rows = [["test rooms", str(len(near)), "", f"{(near > familiar.furthest).mean():.3f}"]]
    for kind, pictures in kinds(rooms, arguments.photos):
        far = distances(pictures)
        area = (near[:, None] < far).mean() + (near[:, None] == far).mean() / 2
        rows.append([kind, str(len(far)), f"{area:.3f}", f"{(far > familiar.furthest).mean():.3f}"])
    print("\n".join(tables.lines(tables.MARKDOWN, ["", "n", "AUROC", "flagged"], rows, [], labels=1)))


if __name__ == "__main__":
    main()
