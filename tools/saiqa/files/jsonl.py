"""JSON and JSONL: strict, one object per line, with line numbers in errors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from saiqa.errors import InputError
from saiqa.files import folders
from saiqa.files.places import Place
from saiqa.files.text_files import atomic_writer, empty_file, reading


def to_json(payload: object, indent: int | None = 2) -> str:
    """Strict JSON: paths as text, numbers that are not finite as null, numpy's numbers as numbers."""
    return json.dumps(_plain(payload), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "item"):
        return _plain(value.item())
    return value if value is None or isinstance(value, str | int | bool) else str(value)


_JSON_BLANKS = " \t\n\r"
_decode = json.JSONDecoder().raw_decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def read_jsonl(path: Place) -> list[tuple[int, dict]]:
    """The objects of a JSONL file with their line numbers; blank lines are skipped.

    Raises:
        InputError: file missing or empty, or a line that is no JSON object (named).
    """
    return list(stream_jsonl(path))


def stream_jsonl(path: Place) -> Iterator[tuple[int, dict]]:
    """As ``read_jsonl``, one line in memory at a time; an error is raised when its line is reached."""
    empty = True
    with reading(path), path.open("rb") as file:
        # by \n alone: text inside JSON may hold U+2028 and its like unescaped
        for number, line in enumerate(file, 1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if not text.isspace():
                empty = False
                yield number, json_object(path, number, text)
    if empty:
        raise empty_file(path)


def json_object(path: Place, number: int, line: str) -> dict:
    """The object on one line of a JSONL. Raises ``InputError`` if it is not one."""
    text = line.strip(_JSON_BLANKS)
    try:
        value, end = _decode(text)  # a quarter quicker than json.loads, which looks for blanks everywhere
    except (ValueError, RecursionError) as error:
        raise line_error(path, number, f"not JSON ({error})") from None
    if end < len(text):
        raise line_error(path, number, f"not JSON (more text behind character {end})")
    if not isinstance(value, dict):
        raise line_error(path, number, "not a JSON object")
    return value


def line_error(path: Place, number: int, what: str) -> InputError:
    """The error for one line of a file."""
    return InputError(f"{folders.shown(path)}, line {number}: {what}", "Correct or remove this line")


def write_jsonl(path: Path, values: Iterable[dict]) -> None:
    """Write one object per line, completely or not at all."""
    with atomic_writer(path) as file:
        file.writelines(json_line(value) for value in values)


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write lines, line ends included, completely or not at all; return how many."""
    count = 0
    with atomic_writer(path) as file:
        for line in lines:
            file.write(line)
            count += 1
    return count


def json_line(value: dict) -> str:
    """One line of JSONL, line end included. Raises ``ValueError`` for numbers that are not finite."""
    return _encode(value) + "\n"


def stream_images(path: Place) -> Iterator[tuple[str, dict]]:
    """Image path and object of each line, one in memory at a time. Raises as ``stream_jsonl`` and ``only_image``."""
    return ((only_image(path, number, value), value) for number, value in stream_jsonl(path))


def only_image(path: Place, number: int, value: dict) -> str:
    """The one image path of a line. Raises ``InputError`` for a line with none or several."""
    images = value.get("images")
    if not (isinstance(images, list) and len(images) == 1 and isinstance(images[0], str) and images[0]):
        raise line_error(path, number, '"images" is not a list of one path')
    return images[0]
