"""Pages of HTML that load nothing from elsewhere: templates beside this file, pictures as small JPEGs in them."""

from __future__ import annotations

import re
from pathlib import Path

from saiqa.errors import UsageError, lacking
from saiqa.files import folders, text_files
from saiqa.files.jsonl import to_json
from saiqa.files.places import Place
from saiqa.model import thumbnails

SUFFIXES = (".html", ".htm")
_BREAKS = re.compile("(?<=[-_./])")  # where a long name may break
_THUMBNAIL_PIXELS = 360  # longer side


def write(path: Path, template: str, **values: object) -> None:
    """Write a template of this folder, filled in, whole or not at all; ``style`` is ours, ``data`` is for its script.

    Raises:
        Failed: jinja2 is not installed, or the file cannot be written.
    """
    try:
        import jinja2
        import markupsafe
    except ModuleNotFoundError as error:
        raise lacking("a page of HTML", error.name, "report") from None
    if "data" in values:
        values["data"] = markupsafe.Markup(script_data(values["data"]))
    here = Path(__file__).parent
    # Everything is escaped but the style, which is ours.
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    pages.filters["breakable"] = lambda text: markupsafe.Markup(_BREAKS.sub("<wbr>", str(markupsafe.escape(text))))
    style = markupsafe.Markup((here / "report.css").read_text(encoding="utf-8"))
    text_files.write_text(path, pages.get_template(template).render(style=style, **values))


def path_of(typed: str) -> Path:
    """Where the user wants a page. Raises ``UsageError`` for another suffix, ``Failed`` where it cannot be written."""
    path = folders.output_path(typed)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{typed} does not end in .html, and a report is a page of HTML", "Name it so")
    text_files.check_writable(path)
    return path


def script_data(value: object) -> str:
    """JSON that may stand within <script>: nothing in it ends the element."""
    return to_json(value, indent=None).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def picture(file: Place) -> dict[str, str | None]:
    """A picture on a page: its ``source``, or as ``missing`` why there is none."""
    small = thumbnails.of_file(file, _THUMBNAIL_PIXELS)
    return {"missing": small} if isinstance(small, str) else {"missing": None, "source": thumbnails.address(small)}
