"""The page that ``score_images.py`` writes: its flags, and what draws maps for it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from saiqa.cli.console import Output
from saiqa.cli.explain import check as check_maps
from saiqa.errors import InputError, UsageError
from saiqa.files import folders
from saiqa.files.places import is_url
from saiqa.image_map import standing
from saiqa.pictures import gallery
from saiqa.pictures.results import Layout
from saiqa.scorer import DEMO_CAVEAT, Scorer


def add_flags(add: Callable) -> None:
    """Add them with ``add``, the ``add_argument`` of a group."""
    add("--report", metavar="FILE", help="a page to look at: thumbnails to sort and filter, histograms, one .html")
    add("--maps", action="store_true", help="on the page, draw over the worst of a dimension what lowers its score")


def path_of(args: argparse.Namespace) -> Path | None:
    """Where the page goes; None for none.

    Raises:
        UsageError: flags do not go together, and as ``gallery.path_of``.
    """
    if args.maps:
        if not args.report:
            raise UsageError("--maps are on a page", "Give --report FILE")
        check_maps(args)
    return gallery.path_of(args.report) if args.report else None


def write(
    path: Path,
    shown: Iterable[gallery.Shown],
    layout: Layout,
    made: dict[str, str],
    scorer: Scorer,
    with_maps: bool,
    out: Output,
) -> None:
    """Write the page of these lines of the result. Raises ``Failed`` as ``gallery.write``."""
    caveat = DEMO_CAVEAT if scorer.demo else None
    reference = layout.reference.name if layout.reference else None
    maps: dict[str, Any] = {}
    if with_maps:
        maps = {"draw": _drawer(scorer), "standing": {name: standing(name, scorer.demo) for name in layout.dimensions}}
    gallery.write(path, shown, layout.dimensions, made, caveat, reference, **maps)
    out.note(f"page: {folders.shown(path)}")


def _drawer(scorer: Scorer) -> gallery.Draw:
    """What puts the map of a dimension over a picture; over one of another machine, or that cannot be read, none."""
    from saiqa.pictures import overlay

    def draw(image: str, dimension: str, side: int) -> bytes | None:
        if is_url(image):
            return None
        try:
            return overlay.thumbnail(image, scorer.model.upright, scorer.explain(image, dimension), side)
        except InputError:  # which the score has told of, or the picture has changed since
            return None

    return draw
