"""Expands command-line paths into image files: files, folders, patterns, tables, lists, URLs. Opens no image.

An image is known by its path from end to end, so that pictures of one name in two folders stay two.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from saiqa import facts
from saiqa.errors import InputError
from saiqa.files import csv_files, jsonl
from saiqa.files.folders import input_path, resolve_image, shown
from saiqa.files.places import Place, is_url, place, url_name

STDIN = "-"
TABLE_SUFFIXES = (".csv", ".jsonl")


@dataclass(frozen=True)
class Lists:
    """How lists of images are read.

    Attributes:
        column: column of a CSV, or key of a JSONL, with the path; a JSONL line may have ``"images": [path]`` instead.
        data_root: what a first folder ``SA-BENCH`` of a listed path stands for.
        stdin: where ``-`` reads one path per line.
        note: told what is passed over.
    """

    column: str
    data_root: Place
    stdin: IO[str]
    note: Callable[[str], None]

    def expand(self, typed: Sequence[str]) -> list[str]:
        """The paths of all images, each once, in the order in which they were typed; those of a folder by name.

        Raises:
            InputError: something typed is not there or holds no image, a list is broken, or a name is not UTF-8.
        """
        found = [path if is_url(path) else str(Path(path)) for text in typed for path in self._expand_one(text)]
        unique = list(dict.fromkeys(found))
        if len(unique) < len(found):
            self.note(f"{len(found) - len(unique)} images are named more than once and taken once")
        for path in unique:
            _check_utf8(path)
            if is_url(path):
                place(path)
        return unique

    def _expand_one(self, text: str) -> Iterable[str]:
        if text == STDIN:
            return _lines(self.stdin)
        if is_url(text):
            return [_image_url(text)]
        path = Path(text) if os.path.exists(text) else input_path(text)
        if os.path.isdir(path):
            return self._folder(path)
        if path.suffix.lower() in TABLE_SUFFIXES:
            return self._table(path)
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
        """The files with the suffix of an image; the kinds of the others are said."""
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
            self.note(f"{where}: files that are no images are passed over: {kinds}")
        return images

    def _table(self, path: Path) -> Iterator[str]:
        for listed in self._csv(path) if path.suffix.lower() == ".csv" else self._jsonl(path):
            yield str(resolve(listed, path, self.data_root))

    def _csv(self, path: Path) -> Iterator[str]:
        _, rows = csv_files.open_csv(path, required=[self.column])
        for number, row in rows:
            if not row[self.column]:
                raise jsonl.line_error(path, number, f"no {self.column}")
            yield row[self.column]

    def _jsonl(self, path: Path) -> Iterator[str]:
        for number, value in jsonl.read_jsonl(path):
            listed = value.get(self.column)
            yield listed if isinstance(listed, str) and listed else jsonl.only_image(path, number, value)


def _image_url(url: str) -> str:
    if url_name(url).lower().endswith(TABLE_SUFFIXES):
        raise InputError(f"{url} is a list behind a URL", "Download it: lists are files of this machine")
    return url


def resolve(listed: str, table: Path, data_root: Place) -> str | Place:
    """What a path in a table means: from the working directory, else the table's folder, else the data root; a URL itself."""
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
    """Files below a folder, by name; what is hidden is left out."""
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
