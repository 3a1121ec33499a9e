"""Pairs of pictures side by side, as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from saiqa import facts
from saiqa.evaluate import page
from saiqa.files import places
from saiqa.pictures import side_by_side
from saiqa.pictures.side_by_side import Mean, Pair, Picture

MOST_PAIRS = 50


def write(path: Path, names: tuple[str, str], pairs: Sequence[Pair], found: Mapping[str, Mean], notes: Sequence[str]) -> None:
    """Write the report, completely or not at all. Raises ``Failed`` as ``page.write``."""
    clearest = sorted(pairs, key=lambda pair: -max((abs(p - 0.5) for p in pair.better.values()), default=0))
    page.write(
        path,
        "report.pairs.html.j2",
        a=names[0],
        b=names[1],
        header=side_by_side.SUMMARY_HEADER,
        lines=side_by_side.summary(found),
        notes=notes,
        n=len(pairs),
        cards=list(map(_card, clearest[:MOST_PAIRS])),
    )


def _card(pair: Pair) -> dict:
    said = ", ".join(f"{dimension} {p:.3f}" for dimension, p in pair.better.items()) or "no probabilities"
    return {"name": pair.name, "said": said, "sides": [_side("A", pair.a), _side("B", pair.b)]}


def _side(label: str, picture: Picture) -> dict:
    scores = {d: sum(facts.WORD_VALUES[word] * p for word, p in words.items()) for d, words in picture.words.items()}
    numbers = ", ".join(f"{dimension} {score:.2f}" for dimension, score in scores.items()) or (picture.error or "no scores")
    said = {"label": label, "numbers": numbers, "image": picture.image, "alt": f"{label}: {picture.image}, {numbers}"}
    return said | page.picture(places.place(picture.file) if isinstance(picture.file, str) else picture.file)
