"""Expands command-line paths into image files: files, folders, patterns, tables, lists, URLs. Opens no image.

An image is identified by its full path, so pictures with the same name in two folders stay separate. The other columns of a
list (prompt, model, seed, ...) are kept with the image.
"""

from __future__ import annotations

import glob
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from saiqa import facts
from saiqa.errors import InputError
from saiqa.files import csv_files, ids, jsonl, text_files
from saiqa.files.folders import input_path, resolve_image, shown
from saiqa.files.places import Place, is_url, place, url_name

STDIN = "-"
LIST_SUFFIXES = (".csv", ".jsonl", ".txt")
IMAGE_KEY, IMAGES_KEY = "image", "images"

# Column or key -> a list's value for an image: text from a CSV, any JSON value from a JSONL.
Columns = Mapping[str, Any]
_NOTHING: Columns = {}


@dataclass(frozen=True)
class Lists:
    """How lists of images are read.

    Attributes:
        column: column of a CSV, or key of a JSONL, with the path; a JSONL line may have ``"images": [path]`` instead. A text
            file has one path per line.
        data_root: what a leading ``SA-BENCH/`` in a listed path stands for.
        stdin: where ``-`` reads one path per line.
        note: receives messages about skipped files.
        keep: the columns to keep; None for all.
    """

    column: str
    data_root: Place
    stdin: IO[str]
    note: Callable[[str], None]
    keep: Sequence[str] | None = None

    def expand(self, typed: Sequence[str]) -> dict[str, Columns]:
        """All images by their paths, each once, with their other columns.

        Returns:
            path -> column -> value, in the order of the arguments; within a folder sorted by name.

        Raises:
            InputError: an argument does not exist or has no images, a list is broken, a name is not UTF-8, or an image is
                listed twice with different values in a column.
        """
        found: dict[str, Columns] = {}
        more = 0
        for text in typed:
            for path, columns in self._expand_one(text):
                name = path if is_url(path) else str(Path(path))
                more += name in found
                found[name] = _joined(name, found.get(name, _NOTHING), columns)
        if more:
            self.note(f"{more} images are named more than once and used once")
        for name in found:
            _check_utf8(name)
            if is_url(name):
                place(name)
        return found

    def _expand_one(self, text: str) -> Iterable[tuple[str, Columns]]:
        path = Path(text) if os.path.exists(text) else input_path(text)
        if text != STDIN and not is_url(text) and not os.path.isdir(path) and path.suffix.lower() in LIST_SUFFIXES:
            return self._list(path)
        return ((image, _NOTHING) for image in self._images_of(text, path))

    def _images_of(self, text: str, path: Path) -> Iterable[str]:
        if text == STDIN:
            return _lines(self.stdin)
        if is_url(text):
            return [_image_url(text)]
        if os.path.isdir(path):
            return self._folder(path)
        if os.path.exists(path):
            return [str(path)]
        if glob.has_magic(text):
            return self._pattern(text)
        raise InputError(f"{text} is not there", "Check the path")

    def _folder(self, folder: Path) -> list[str]:
        return self._images(_files_below(folder), shown(folder))

    def _pattern(self, pattern: str) -> list[str]:
        matches = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
        if not matches:
            raise InputError(f"nothing matches {pattern}", "Check the pattern")
        files = dict.fromkeys(
            file for match in matches for file in (_files_below(Path(match)) if os.path.isdir(match) else [match])
        )
        return self._images(files, pattern)

    def _images(self, files: Iterable[str], where: str) -> list[str]:
        """The files with an image suffix; a note lists the kinds of the others."""
        images: list[str] = []
        others: Counter[str] = Counter()
        for file in files:
            suffix = os.path.splitext(file)[1].lower()
            if os.path.exists(file) and not os.path.isfile(file):
                others["no regular file"] += 1
            elif suffix in facts.IMAGE_SUFFIXES:
                images.append(file)
            else:
                others[suffix or "no suffix"] += 1
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        if not images:
            held = f" (but {kinds})" if kinds else ""
            raise InputError(f"no image in {where}{held}", f"Images end in {', '.join(facts.IMAGE_SUFFIXES)}")
        if others:
            self.note(f"{where}: files that are not images are skipped: {kinds}")
        return images

    # lists

    def _list(self, path: Path) -> Iterator[tuple[str, Columns]]:
        read = {".csv": self._csv, ".jsonl": self._jsonl, ".txt": self._text}[path.suffix.lower()]
        for listed, columns in read(path):
            kept = {name: value for name, value in columns.items() if self.keep is None or name in self.keep}
            yield str(resolve(listed, path, self.data_root)), kept or _NOTHING

    def _csv(self, path: Path) -> Iterator[tuple[str, Columns]]:
        columns, rows = csv_files.open_csv(path)
        for number, row in rows:
            if self.column not in columns:
                raise self._no_path(f"{shown(path)} has no column {self.column}", "columns", row)
            if not row[self.column]:
                raise jsonl.line_error(path, number, f"no {self.column}")
            yield row[self.column], {name: row[name] for name in columns if name != IMAGE_KEY or self.column != IMAGE_KEY}

    def _jsonl(self, path: Path) -> Iterator[tuple[str, Columns]]:
        for number, value in jsonl.read_jsonl(path):
            listed = value.get(self.column)
            if self.column not in value and IMAGES_KEY not in value:
                raise self._no_path(f"{shown(path)}, line {number} has no {self.column}", "keys", value)
            if not (isinstance(listed, str) and listed):
                listed = jsonl.only_image(path, number, value)
            ours = {IMAGE_KEY: value.get(self.column) if self.column == IMAGE_KEY else None, IMAGES_KEY: [listed]}
            yield listed, {name: item for name, item in value.items() if name not in ours or ours[name] != item}

    def _text(self, path: Path) -> Iterator[tuple[str, Columns]]:
        return ((line.strip(), _NOTHING) for line in text_files.read_text(path).splitlines() if line.strip())

    def _no_path(self, what: str, kind: str, row: Columns) -> InputError:
        """The error for a list without the path column, suggesting the likeliest column."""
        names = [" ".join(name.split())[:60] for name in row]
        looks = [name for name, value in row.items() if isinstance(value, str) and _looks_like_an_image(value)]
        remedy = f"Its {kind} are {ids.few(names, len(names))}: --image_column {shlex.quote((looks or names or ['NAME'])[0])}"
        return InputError(what, remedy)


def _joined(image: str, one: Columns, other: Columns) -> Columns:
    """The columns of two lines about the same image. Raises ``InputError`` if they differ: one value would be lost."""
    for name in one.keys() & other.keys():
        if one[name] != other[name]:
            what = f"{image} is listed more than once, with {name} {str(one[name])[:60]!r} and {str(other[name])[:60]!r}"
            raise InputError(what, "Keep one line per image, or choose the columns to keep with --keep_columns")
    return {**one, **other} if one and other else one or other


def _looks_like_an_image(text: str) -> bool:
    name = url_name(text) if is_url(text) else text
    return name.lower().endswith(facts.IMAGE_SUFFIXES) or is_url(text)


def _image_url(url: str) -> str:
    if url_name(url).lower().endswith(LIST_SUFFIXES):
        raise InputError(f"{url} is a list behind a URL", "Download it: lists must be local files")
    return url


def resolve(listed: str, table: Path, data_root: Place) -> str | Place:
    """Resolve a path in a table: relative to the working directory, else the table's folder, else the data root. URLs stay."""
    if is_url(listed):
        return listed
    candidates = [Path(listed), table.parent / listed]
    there: list[Place] = [path for path in candidates if os.path.exists(path)]
    return there[0] if there else resolve_image(listed, data_root)


def _lines(stream: IO[str]) -> list[str]:
    lines = [line for line in stream.read().splitlines() if line.strip()]
    if not lines:
        raise InputError("the list on stdin is empty", "Give one path per line")
    return lines


def _files_below(folder: Path) -> Iterator[str]:
    """Files below a folder, sorted by name, without hidden ones."""
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.join(parent, name)


def _refuse(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}", "Check its permissions") from None


def _check_utf8(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = path.encode("utf-8", "backslashreplace").decode()
        raise InputError(f"the name of {shown} is not UTF-8", "Rename it: result files are UTF-8") from None
