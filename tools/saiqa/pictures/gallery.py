"""Scored pictures as one page to look at: thumbnails to sort and filter, histograms, the worst and the best, and what failed.

The page loads nothing from elsewhere. Up to ``EMBEDDED`` thumbnails are in the file itself; of more, they lie in a folder
beside it.
"""

from __future__ import annotations

import datetime
import itertools
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any

from saiqa import facts
from saiqa.errors import UsageError
from saiqa.evaluate import page
from saiqa.files import folders, places, text_files

EMBEDDED = 1000
_SIDE = 200  # pixels of a thumbnail's longer side
_READERS = 4
_AHEAD = 64  # pictures
_BINS = 16  # of a histogram, a quarter of a point each
_EXTREMES = 4  # pictures at either end of a dimension
_MOST_GROUPS = 50
MEANINGS = {
    "distortion": "how free of bent, melted or impossible things it is: higher is less distorted",
    "harmony": "how well colours, styles and materials go together",
    "layout": "how well the pieces are placed, spaced and balanced",
    "lighting": "how well light and shadow show and shape the room",
}

Shown = Mapping[str, Any]  # a line of the result, as ``results.Layout.json_value`` has it


def path_of(typed: str) -> Path:
    """The page's path. Raises ``UsageError`` for another suffix than .html, ``Failed`` where nothing can be written."""
    path = folders.output_path(typed)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {typed} is a page", "Give it a name that ends in .html")
    text_files.check_writable(path)
    return path


def write(path: Path, lines: Iterable[Shown], dimensions: Sequence[str], made: Mapping[str, str], caveat: str | None) -> None:
    """Write the page.

    Args:
        lines: of the result; read once, and held without their thumbnails.
        dimensions: those that were asked for.
        made: what the provenance says, name -> text.
        caveat: what is to be said of the scores in front of everything.

    Raises:
        Failed: jinja2 is not installed, or something cannot be written.
    """
    everything = list(lines)
    beside = path.with_name(f"{path.stem}_pictures") if len(everything) > EMBEDDED else None
    if beside:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    cards = list(_cards(everything, dimensions, beside))
    scored = [card for card in cards if card["overall"] is not None or card["scores"]]
    page.write(
        path,
        "gallery.html.j2",
        cards=scored,
        failed=[card for card in cards if card["error"]],
        dimensions=[(name, MEANINGS[name]) for name in dimensions],
        histograms={name: histogram(card["scores"].get(name) for card in scored) for name in dimensions},
        extremes={name: extremes(scored, name) for name in dimensions},
        groups=groups(scored),
        made=made,
        caveat=caveat,
        today=datetime.date.today().isoformat(),
    )


def _cards(lines: Sequence[Shown], dimensions: Sequence[str], beside: Path | None) -> Iterator[dict[str, Any]]:
    """What the page shows of each picture, in order; thumbnails are made by several threads, a few at a time."""
    with ThreadPoolExecutor(_READERS) as readers:
        waiting = iter(lines)
        for batch in iter(lambda: list(itertools.islice(waiting, _AHEAD)), []):
            small = readers.map(lambda line: page.thumbnail(places.place(line["image"]), _SIDE), batch)
            for line, picture in zip(batch, small, strict=True):
                yield _card(line, dimensions, picture, beside)


def _card(line: Shown, dimensions: Sequence[str], picture: bytes | str, beside: Path | None) -> dict[str, Any]:
    scores = {name: line["scores"][name] for name in dimensions if name in line["scores"]}
    name = PurePath(line["image"]).name
    error = line["error"].replace(line["image"], name) if "error" in line else None  # no folder of this machine
    card: dict[str, Any] = {"name": name, "scores": scores, "overall": line["overall"], "error": error}
    card["group"] = str(line.get(facts.GENERATOR_COLUMN, ""))
    card["verdict"] = verdict(scores)
    card["source"] = "" if isinstance(picture, str) else _source(picture, beside)
    return card


def _source(content: bytes, beside: Path | None) -> str:
    """Where the page finds a thumbnail."""
    if beside is None:
        return page.data_address("image/jpeg", content)
    file = beside / f"{sum(1 for _ in beside.iterdir()):06d}.jpg"
    file.write_bytes(content)
    return f"{beside.name}/{file.name}"


def verdict(scores: Mapping[str, float]) -> str:
    """Which dimension pulls a picture down, in words; empty where none stands out."""
    if len(scores) < 2:
        return ""
    worst = min(scores, key=lambda name: scores[name])
    rest = [score for name, score in scores.items() if name != worst]
    return f"{worst} is what pulls it down" if scores[worst] < 3.5 and sum(rest) / len(rest) - scores[worst] > 0.75 else ""


def histogram(scores: Iterable[float | None]) -> list[int]:
    """How many scores lie in each of ``_BINS`` equal parts of 1 to 5."""
    counts = [0] * _BINS
    for score in (score for score in scores if score is not None):
        counts[min(_BINS - 1, max(0, int((score - 1) * _BINS / 4)))] += 1
    return counts


def extremes(cards: Sequence[Mapping[str, Any]], dimension: str) -> dict[str, list]:
    """The worst and the best of a dimension."""
    ranked = sorted((card for card in cards if dimension in card["scores"]), key=lambda card: card["scores"][dimension])
    return {"worst": ranked[:_EXTREMES], "best": ranked[::-1][:_EXTREMES]}


def groups(cards: Sequence[Mapping[str, Any]]) -> list[str]:
    """What made the pictures, where the list says it of them and there are few."""
    found = sorted({card["group"] for card in cards} - {""})
    return found if 1 < len(found) <= _MOST_GROUPS else []
