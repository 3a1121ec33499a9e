"""The page of an audit: the checks, and one room with all modifications."""

from __future__ import annotations

from pathlib import Path

from saiqa.audit.examine import Audit
from saiqa.evaluate import page
from saiqa.model import thumbnails

_SIDE = 220  # pixels of a picture on the page


def write(path: Path, audit: Audit, model: str) -> None:
    """Write the page as one file. Raises ``Failed`` if jinja2 is not installed."""
    shown = [(said, thumbnails.address(thumbnails.of_picture(room, _SIDE)), scores) for said, room, scores in audit.shown]
    page.write(path, "audit.html.j2", audit=audit, model=model, pictures=shown)
