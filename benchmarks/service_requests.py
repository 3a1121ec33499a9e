"""Requests to the service: pictures with known scores, requests with them, and checks of the answers."""

from __future__ import annotations

import io
import json
import random
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING

from saiqa.errors import InputError
from saiqa.files import folders

if TYPE_CHECKING:
    from saiqa import Scorer

APART = 10  # any two images of the pool differ by this many tolerances in a dimension
ODD_SHARE = 0.04  # of the requests must be refused or have a broken picture
MAX_IMAGES, MAX_MEGAPIXELS = 8, 4
BOUNDARY = "saiqa-benchmark"


@dataclass(frozen=True)
class Known:
    """A picture's file and its scores by ``Scorer``."""

    data: bytes
    scores: dict[str, float]


def make_pool(scorer: Scorer, args: Namespace) -> list[Known]:
    """Pictures that can be told apart by their scores. Raises ``InputError`` if there are too few."""
    folder = Path(args.images) if args.images else folders.roots(demo=True).data / "images"
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    random.Random(0).shuffle(paths)
    files = [path.read_bytes() for path in paths[: 2 * args.pool]]
    pool: list[Known] = []
    for data, result in zip(files, scorer.score(files), strict=True):
        if result.error is None and all(_distance(result.scores, known.scores) > APART * args.tolerance for known in pool):
            pool.append(Known(data, result.scores))
    if len(pool) < MAX_IMAGES:
        raise InputError(f"{folder} has only {len(pool)} pictures with different scores", "Give a larger folder with --images")
    return pool[: args.pool]


def _distance(a: dict[str, float], b: dict[str, float]) -> float:
    """The largest difference of a score."""
    return max(abs(a[name] - b[name]) for name in a)


@dataclass(frozen=True)
class Sent:
    """A request and its expected answer: the status of a refusal, or the scores of each image (None for a broken one)."""

    body: bytes
    status: int
    wanted: list[dict[str, float] | None]


def draw(generator: random.Random, pool: Sequence[Known], count: int) -> Sent:
    """A request with some images of the pool; sometimes one that must be refused, or has a broken picture."""
    chosen = generator.choices(pool, k=count)
    files = [known.data for known in chosen]
    wanted: list[dict[str, float] | None] = [known.scores for known in chosen]
    if generator.random() > ODD_SHARE:
        return Sent(form(files), 200, wanted)
    kind = generator.choice(("images", "pixels", "form", "broken"))
    if kind == "images":
        return Sent(form([pool[0].data] * (MAX_IMAGES + 1)), 413, [])
    if kind == "pixels":
        return Sent(form([*files, _large_picture()]), 413, [])
    if kind == "form":
        return Sent(b"no form", 422, [])
    place = generator.randrange(count)
    files[place], wanted[place] = files[place][: len(files[place]) // 2], None
    return Sent(form(files), 200, wanted)


def form(files: Sequence[bytes]) -> bytes:
    """A multipart body; the file names are the positions."""
    head = '--{}\r\nContent-Disposition: form-data; name="images"; filename="{}"\r\n\r\n'
    parts = [head.format(BOUNDARY, place).encode() + data + b"\r\n" for place, data in enumerate(files)]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def _large_picture() -> bytes:
    """A small file with more pixels than the service accepts."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("1", (2001, 1000 * MAX_MEGAPIXELS // 2)).save(buffer, "PNG")
    return buffer.getvalue()


def check(sent: Sent, status: int, headers: Message, body: bytes, tolerance: float) -> str | None:
    """What is wrong with an answer; None if it is as expected."""
    if status == 503:
        clean = headers.get("Retry-After", "").isdecimal() and "detail" in json.loads(body)
        return None if clean else f"503 without Retry-After or detail: {body[:200]!r}"
    if status != sent.status:
        return f"status {status} instead of {sent.status}: {body[:200]!r}"
    if status != 200:
        return None if json.loads(body).get("detail") else f"{status} without detail"
    results = json.loads(body)["results"]
    if [result["name"] for result in results] != [str(place) for place in range(len(sent.wanted))]:
        return f"results of {[result['name'] for result in results]} for {len(sent.wanted)} images"
    problems = (_problem(result, wanted, tolerance) for result, wanted in zip(results, sent.wanted, strict=True))
    return next(filter(None, problems), None)


def _problem(result: dict, wanted: dict[str, float] | None, tolerance: float) -> str | None:
    if wanted is None:
        return None if result["error"] and not result["scores"] else "a broken picture has a score"
    if result["error"] or result["scores"].keys() != wanted.keys():
        return f"no scores: {result['error']}"
    far = _distance(result["scores"], wanted)
    return f"scores that are {far:.2g} from the image's own" if far > tolerance else None
