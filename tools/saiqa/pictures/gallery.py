"""Scored pictures as an HTML page: thumbnails to sort and filter, histograms, the worst and the best, and failures.

The page is self-contained: up to ``EMBEDDED`` thumbnails are embedded in the file; if there are more, they are in a folder
beside it.
"""

from __future__ import annotations

import datetime
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from saiqa import facts
from saiqa.errors import Failed, UsageError
from saiqa.evaluate import page
from saiqa.files import folders, places
from saiqa.files.text_files import readable
from saiqa.image_score import verdict
from saiqa.model import thumbnails
from saiqa.pictures.results import PERCENTILES_KEY

EMBEDDED = 1000
_SIDE = 200  # pixels of a thumbnail's longer side
_READERS = 4
_AHEAD = 64  # pictures per batch
_BINS = 16  # of a histogram, a quarter of a point each
_EXTREMES = 4  # pictures at either end of a dimension
_MOST_GROUPS = 50
_OURS = ".saiqa-thumbnails"  # marks a folder as one of our thumbnail folders

Shown = Mapping[str, Any]  # a line of the result, in the form of ``results.Layout.json_value``
Card = dict[str, Any]
Draw = Callable[[str, str, int], bytes | None]  # (image, dimension, pixels of a side) -> JPEG with its map drawn over it


def path_of(typed: str) -> Path:
    """The page's path.

    Raises:
        UsageError: another suffix than .html, or another folder has the name of the thumbnail folder.
        Failed: the page cannot be written there.
    """
    path = page.path_of(typed)
    beside = thumbnails_folder(path)
    if beside.exists() and not (beside / _OURS).is_file():
        raise UsageError(f"{folders.shown(beside)} exists and is not a thumbnail folder", "Give the page another name")
    return path


def thumbnails_folder(path: Path) -> Path:
    """The folder for the thumbnails of a page that has too many to embed."""
    return path.with_name(f"{path.stem}_thumbnails")


def write(
    path: Path,
    lines: Iterable[Shown],
    dimensions: Sequence[str],
    made: Mapping[str, str],
    caveat: str | None,
    reference: str | None = None,
    draw: Draw | None = None,
    standing: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the page.

    Args:
        lines: the lines of the result; read once, and kept in memory without thumbnails.
        dimensions: the dimensions that were scored.
        made: provenance, name -> text.
        caveat: a caveat about the scores, shown at the top.
        reference: what the percentiles refer to; None if there are none.
        draw: draws the maps over the worst pictures of a dimension; None for no maps.
        standing: dimension -> how far its maps can be trusted.

    Raises:
        Failed: jinja2 is not installed, or something cannot be written.
    """
    everything = list(lines)
    beside = _emptied(thumbnails_folder(path), len(everything) > EMBEDDED)
    cards = list(_cards(everything, dimensions, beside))
    page.write(
        path,
        "gallery.html.j2",
        **_of_cards(cards, dimensions, draw),
        dimensions=dimensions,
        meanings=facts.MEANINGS,
        standing=standing,
        made=made,
        caveat=caveat,
        reference=reference,
        today=datetime.date.today().isoformat(),
    )


def _of_cards(cards: Sequence[Card], dimensions: Sequence[str], draw: Draw | None) -> dict[str, Any]:
    """What the template is told of the pictures."""
    scored = [card for card in cards if card["scores"]]
    return {
        "scored": len(scored),
        "failed": [card for card in cards if card["error"]],
        "histograms": {name: histogram(card["scores"].get(name) for card in scored) for name in dimensions},
        "extremes": {name: under_maps(extremes(scored, name), name, draw) for name in dimensions},
        "groups": groups(scored),
        "data": {"dimensions": dimensions, "cards": [_compact(card, dimensions) for card in scored]},
    }


def _emptied(beside: Path, wanted: bool) -> Path | None:
    """The folder for thumbnails, emptied of an earlier page's; None if none is wanted. Raises ``Failed``."""
    try:
        if (beside / _OURS).is_file():
            shutil.rmtree(beside)
        if wanted:
            beside.mkdir(parents=True)
            (beside / _OURS).touch()
    except OSError as error:
        raise Failed(f"cannot write {folders.shown(beside)}: {error.strerror}", "Give the page another name") from error
    return beside if wanted else None


def _cards(lines: Sequence[Shown], dimensions: Sequence[str], beside: Path | None) -> Iterator[Card]:
    """What the page shows of each picture, in order; several threads make the thumbnails, batch by batch."""
    from concurrent.futures import ThreadPoolExecutor  # not at the top: --help must be fast

    names = _names([line["image"] for line in lines])
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(lines), _AHEAD):
            batch = lines[start : start + _AHEAD]
            small = readers.map(lambda line: thumbnails.of_file(places.place(line["image"]), _SIDE), batch)
            for number, (line, picture) in enumerate(zip(batch, small, strict=True), start):
                yield _card(line, names[number], dimensions) | {"source": _source(picture, number, beside)}


def _names(images: Sequence[str]) -> list[str]:
    """The pictures' names on the page: the file name, with its folder if several files have the same name."""
    met = Counter(PurePath(image).name for image in images)
    parts = (PurePath(image).parts[-2:] for image in images)
    return [readable("/".join(both) if met[both[-1]] > 1 else both[-1]) for both in parts]


def _card(line: Shown, name: str, dimensions: Sequence[str]) -> Card:
    scores = {dimension: line["scores"][dimension] for dimension in dimensions if dimension in line["scores"]}
    card = {
        "image": line["image"],
        "name": name,
        "scores": scores,
        "overall": line["overall"],
        "error": None,
        "verdict": verdict(scores),
        "mapped": False,
    }
    card["percentiles"] = line.get(PERCENTILES_KEY, {})
    if "error" in line:  # without local folders
        folder = f"{PurePath(line['image']).parent}/"
        card["error"] = readable(line["error"].replace(line["image"], name).replace(folder, ""))
    return card | {"group": str(line.get(facts.GENERATOR_COLUMN, ""))}


def _source(picture: bytes | str, number: int, beside: Path | None) -> str:
    """Where the page finds a thumbnail; empty if there is none."""
    if isinstance(picture, str):
        return ""
    if beside is None:
        return thumbnails.address(picture)
    name = f"{number:06d}.jpg"
    (beside / name).write_bytes(picture)
    return quote(f"{beside.name}/{name}")


def _compact(card: Card, dimensions: Sequence[str]) -> Card:
    """A card for the page's script: scores in the order of the dimensions."""
    kept = {key: card[key] for key in ("name", "group", "verdict", "source", "overall", "percentiles")}
    return kept | {"scores": [card["scores"].get(name) for name in dimensions]}


def histogram(scores: Iterable[float | None]) -> list[int]:
    """The number of scores in each of ``_BINS`` equal bins from 1 to 5."""
    counts = [0] * _BINS
    for score in (score for score in scores if score is not None):
        counts[min(_BINS - 1, max(0, int((score - 1) * _BINS / 4)))] += 1
    return counts


def extremes(cards: Sequence[Mapping[str, Any]], dimension: str) -> dict[str, list]:
    """The worst and the best pictures of a dimension."""
    ranked = sorted((card for card in cards if dimension in card["scores"]), key=lambda card: card["scores"][dimension])
    return {"worst": ranked[:_EXTREMES], "best": ranked[::-1][:_EXTREMES]}


def under_maps(found: dict[str, list], dimension: str, draw: Draw | None) -> dict[str, list]:
    """The worst and the best, with maps drawn over the worst where possible."""
    if draw is None:
        return found
    drawn = [(card, draw(card["image"], dimension, _SIDE)) for card in found["worst"]]
    return found | {
        "worst": [card | {"source": thumbnails.address(jpeg), "mapped": True} if jpeg else card for card, jpeg in drawn]
    }


def groups(cards: Sequence[Mapping[str, Any]]) -> list[str]:
    """The generators of the pictures, if the list names several and they are few."""
    found = sorted({card["group"] for card in cards} - {""})
    return found if 1 < len(found) <= _MOST_GROUPS else []
