"""The HTML page of ``score_images.py``: its flags, and drawing its maps."""

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
    """Add the flags with ``add``, the ``add_argument`` of a group."""
    add("--report", metavar="FILE", help="write an HTML page with histograms and thumbnails to sort and filter: x.html")
    add("--maps", action="store_true", help="on the page, mark what lowers the score in the worst pictures per dimension")


def path_of(args: argparse.Namespace) -> Path | None:
    """The path of the page; None for no page.

    Raises:
        UsageError: flags cannot be combined, and as ``gallery.path_of``.
    """
    if args.maps:
        if not args.report:
            raise UsageError("--maps needs a page", "Give --report FILE")
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
    """The function that draws a dimension's map over a picture; None for a URL or a picture that cannot be read."""
    from saiqa.pictures import overlay

    def draw(image: str, dimension: str, side: int) -> bytes | None:
        if is_url(image):
            return None
        try:
            return overlay.thumbnail(image, scorer.model.upright, scorer.explain(image, dimension), side)
        except InputError:  # already reported with the score, or the picture has changed since
            return None

    return draw
