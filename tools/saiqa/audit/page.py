"""The page of an audit: the checks, and one room with everything that was done to it."""

from __future__ import annotations

from pathlib import Path

from saiqa.audit.examine import Audit
from saiqa.evaluate import page
from saiqa.model import thumbnails

_SIDE = 220  # pixels of a picture on the page


def write(path: Path, audit: Audit, model: str) -> None:
    """Write the page, one file. Raises ``Failed`` without jinja2."""
    shown = [(said, thumbnails.address(thumbnails.of_picture(room, _SIDE)), scores) for said, room, scores in audit.shown]
    page.write(path, "audit.html.j2", audit=audit, model=model, pictures=shown)
