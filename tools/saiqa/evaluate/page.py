"""Self-contained HTML pages: the templates are beside this file, pictures are embedded as small JPEGs."""

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
    """Fill in a template of this folder and write it, completely or not at all; ``data`` is for the page's script.

    Raises:
        Failed: jinja2 is not installed, or the file cannot be written.
    """
    try:
        import jinja2
        import markupsafe
    except ModuleNotFoundError as error:
        raise lacking("an HTML page", error.name, "report") from None
    if "data" in values:
        values["data"] = markupsafe.Markup(script_data(values["data"]))
    here = Path(__file__).parent
    # Everything is escaped except the style, which is our own.
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    pages.filters["breakable"] = lambda text: markupsafe.Markup(_BREAKS.sub("<wbr>", str(markupsafe.escape(text))))
    style = markupsafe.Markup((here / "report.css").read_text(encoding="utf-8"))
    text_files.write_text(path, pages.get_template(template).render(style=style, **values))


def path_of(typed: str) -> Path:
    """The path of a page, as typed. Raises ``UsageError`` for another suffix, ``Failed`` if it cannot be written."""
    path = folders.output_path(typed)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{typed} does not end in .html, but a report is an HTML page", "Change the file name")
    text_files.check_writable(path)
    return path


def script_data(value: object) -> str:
    """JSON that is safe inside <script>: nothing in it ends the element."""
    return to_json(value, indent=None).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def picture(file: Place) -> dict[str, str | None]:
    """A picture for a page: its ``source``, or under ``missing`` why there is none."""
    small = thumbnails.of_file(file, _THUMBNAIL_PIXELS)
    return {"missing": small} if isinstance(small, str) else {"missing": None, "source": thumbnails.address(small)}
