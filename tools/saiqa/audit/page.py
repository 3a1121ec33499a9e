"""The page of an audit: the checks, and one room with everything that was done to it."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from saiqa.audit.examine import Audit
from saiqa.errors import lacking
from saiqa.files import text_files

_SIDE = 220  # pixels of a picture on the page


def write(path: Path, audit: Audit, model: str) -> None:
    """Write the page, one file. Raises ``Failed`` without jinja2."""
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise lacking("a page", error.name, "report") from None
    template = Path(__file__).with_name("audit.html.j2").read_text(encoding="utf-8")
    pictures = [(said, _data_url(picture), scores) for said, picture, scores in audit.shown]
    page = jinja2.Environment(autoescape=True).from_string(template)
    text_files.write_text(path, page.render(audit=audit, model=model, pictures=pictures))


def _data_url(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    small.convert("RGB").save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
