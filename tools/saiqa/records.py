"""CSV and JSONL in and out. Every cell is text from end to end; a result file is whole or absent.

CSV goes through the standard library: it never guesses a type, so that the id ``007`` stays ``007`` and a column comes
out as it went in, and it knows the line of an error.
"""

from __future__ import annotations

import bisect
import csv
import io
import itertools
import json
import operator
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from saiqa import bundle, facts, ids, stamps
from saiqa.console import Failed, InputError
from saiqa.digests import text_digest
from saiqa.scoring import split_answer
from saiqa.stores import Place

AGAIN = "again"  # marks a line of an image that is to be rated again if it is named again
_FORGOTTEN = 2**64 - 1  # the offset of no line
_FAILURE_START = '{"failed"'  # of the line that ``failure_line`` makes

_JSON_BLANKS = " \t\n\r"
_decode = json.JSONDecoder().raw_decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


# ---- files that are whole or absent ----------------------------------------------------------------------------------


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[str]]:
    """A text file that takes the place of ``path`` when, and only when, the block ends without an error.

    Raises:
        Failed: the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _nameless(path.parent, temporary) as descriptor:
            # errors: half a character becomes the escape that JSON has for it
            with open(descriptor, "w", encoding="utf-8", newline="", errors="backslashreplace", closefd=False) as file:
                yield file
            _give_name(descriptor, path, temporary)
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def _nameless(folder: Path, name: Path) -> Iterator[int]:
    """A new file for writing that no kill can leave behind: it has no name yet where the file system can do that."""
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except (AttributeError, OSError):  # another system than Linux, or a file system without
        descriptor = os.open(name, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _give_name(descriptor: int, path: Path, temporary: Path) -> None:
    """Put a written file of ``_nameless`` at ``path``; only where that is taken does it have another name before."""
    if os.fstat(descriptor).st_nlink == 0:
        try:
            _link(descriptor, path)
            return
        except FileExistsError:
            temporary.unlink(missing_ok=True)
            _link(descriptor, temporary)
    os.replace(temporary, path)


def _link(descriptor: int, name: Path) -> None:
    # The descriptor as a folder is not used: it makes Python call what follows the link under /proc.
    os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=descriptor, follow_symlinks=True)


def check_writable(path: Path) -> None:
    """Find out before the work, without writing, whether ``path`` can be written. Raises ``Failed``."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise cannot_write(path, "it is a folder" if path.is_dir() else f"{bundle.shown(folder)} takes no new files")


def cannot_write(path: Path, reason: str) -> Failed:
    return Failed(f"cannot write {bundle.shown(path)}: {reason}", "Choose another folder")


def write_text(path: Path, text: str) -> None:
    """Write a whole file at once."""
    with atomic_writer(path) as file:
        file.write(text)


def read_text(path: Place) -> str:
    """The text of a file, line ends untouched."""
    with reading(path):
        text = path.read_bytes().decode("utf-8-sig")
    if not text.strip():
        raise empty_file(path)
    return text


@contextmanager
def reading(path: Place) -> Iterator[None]:
    """Turn what reading a text file can raise into ``InputError``."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{bundle.shown(path)} is not there", "Check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {bundle.shown(path)}: {error}", "It must be a UTF-8 text file") from None


def empty_file(path: Place) -> InputError:
    return InputError(f"{bundle.shown(path)} is empty", "Download or make it again")


# ---- CSV -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A CSV file: column names in order, and a mapping of column to text for each row."""

    path: Path
    columns: list[str]
    rows: list[dict[str, str]]

    def column(self, name: str) -> list[str]:
        """The cells of one column, [rows]."""
        return [row[name] for row in self.rows]


def read_csv(path: Path, required: Sequence[str] = ()) -> Table:
    """Read a CSV file as text.

    Args:
        path: a UTF-8 file with a header line.
        required: columns that must be there.

    Raises:
        InputError: file missing or empty, no rows, a required column missing, rows of another length than the header, or
            a column name that comes twice.
    """
    columns, rows = read_cells(path, required)
    return Table(path, columns, [dict(zip(columns, cells, strict=True)) for cells in rows])


def read_cells(path: Path, required: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """As ``read_csv``, in a third of the time: the columns, and the cells of each row in their order."""
    columns, lines = _open_csv(path, required)
    return columns, [cells for _, cells in lines]


def open_csv(path: Path, required: Sequence[str] = ()) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The columns of a CSV file, and its rows one by one, each with the number of its line.

    Raises:
        InputError: as ``read_csv``; for what is wrong in a row, when that row's turn comes.
    """
    columns, lines = _open_csv(path, required)
    return columns, ((number, dict(zip(columns, cells, strict=True))) for number, cells in lines)


def _open_csv(path: Path, required: Sequence[str]) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    lines = _csv_lines(path)
    _, columns = next(lines)
    check_columns(path, columns, required)
    first = next(lines, None)
    if first is None:
        raise InputError(f"{bundle.shown(path)} has a header and no rows", "Download or make it again")
    return columns, itertools.chain([first], lines)


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not blank, with their numbers; all as long as the first, the header."""
    lines = csv.reader(io.StringIO(read_text(path), newline=""))
    width = None
    try:
        for cells in filter(None, lines):
            width = width or len(cells)
            if len(cells) != width:
                what = f"{bundle.shown(path)}, line {lines.line_num}: {len(cells)} cells under {width} columns"
                raise InputError(what, "Quote cells that contain commas")
            yield lines.line_num, cells
    except csv.Error as error:
        raise InputError(f"{bundle.shown(path)}, line {lines.line_num}: {error}", "Save it as plain CSV") from None


def check_columns(path: Path, columns: list[str], required: Sequence[str]) -> None:
    """Refuse a table that lacks a required column or has one twice. Raises ``InputError``."""
    missing = [name for name in required if name not in columns]
    if missing:
        what = f"{bundle.shown(path)} has no column {', '.join(missing)}"
        names = [" ".join(name.split())[:60] for name in columns]
        raise InputError(what, f"Its columns are {ids.few(names, len(names))}")
    check_unique(path, "column name", columns)


def check_unique(path: Path, kind: str, values: Iterable[str]) -> None:
    """Refuse values that come twice. Raises ``InputError`` that names the first few."""
    twice = ids.twins(values)
    if twice:
        raise InputError(f"{bundle.shown(path)}: {kind} {ids.few(twice, len(twice))} comes more than once", "Keep one of each")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, str]]) -> None:
    """Write rows as CSV, whole or not at all."""
    write_cells(path, columns, map(operator.itemgetter(*columns), rows))


def write_cells(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """As ``write_csv``, rows as the cells in the order of the columns."""
    with atomic_writer(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


# ---- JSONL -----------------------------------------------------------------------------------------------------------


def read_jsonl(path: Place) -> list[tuple[int, dict]]:
    """The objects of a JSONL file with their line numbers; blank lines are passed over.

    Raises:
        InputError: file missing or empty, or a line that is no JSON object (named).
    """
    return list(stream_jsonl(path))


def stream_jsonl(path: Place) -> Iterator[tuple[int, dict]]:
    """As ``read_jsonl``, one line in memory at a time; an error is raised when its line's turn comes."""
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
    """The object on one line of a JSONL. Raises ``InputError`` where it is none."""
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


def line_error(path: Path, number: int, what: str) -> InputError:
    """The error for one line of a file."""
    return InputError(f"{bundle.shown(path)}, line {number}: {what}", "Correct or remove this line")


def write_jsonl(path: Path, values: Iterable[dict]) -> None:
    """Write one object a line, whole or not at all."""
    with atomic_writer(path) as file:
        file.writelines(json_line(value) for value in values)


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write lines that have their ends, whole or not at all; return how many."""
    count = 0
    with atomic_writer(path) as file:
        for line in lines:
            file.write(line)
            count += 1
    return count


def json_line(value: dict) -> str:
    """One line of JSONL, with its line end. Raises ``ValueError`` for numbers that are not finite."""
    return _encode(value) + "\n"


def only_image(path: Path, number: int, value: dict) -> str:
    """The one image path of a line. Raises ``InputError`` for a line with none or several."""
    images = value.get("images")
    if not (isinstance(images, list) and len(images) == 1 and isinstance(images[0], str) and images[0]):
        raise line_error(path, number, '"images" is not a list of one path')
    return images[0]


# ---- questions and answers of the benchmark --------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """One line of a benchmark JSONL: image path as written, prompt, and the model answer if there is one."""

    image: str
    query: str
    response: str


def read_records(path: Place) -> list[Record]:
    """The records of a benchmark JSONL, in order.

    Raises:
        InputError: as ``read_jsonl``; a line without a query or with other than one image.
    """
    return list(stream_records(path))


def stream_records(path: Place) -> Iterator[Record]:
    """As ``read_records``, one record in memory at a time."""
    for number, value in stream_jsonl(path):
        image = only_image(path, number, value)
        query, response = value.get("query"), value.get("response")
        if not isinstance(query, str) or not query.strip():
            raise line_error(path, number, 'no "query"')
        if not all(map(_is_text, (image, query, response))):
            raise line_error(path, number, "a text in it holds half a character (a surrogate by itself)")
        yield Record(image, query, response if isinstance(response, str) else "")


def _is_text(value: object) -> bool:
    """Whether a value of JSON can be written as UTF-8."""
    if not isinstance(value, str) or value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Sentences:
    """What the model is asked and how it answers, for one dimension and prompt version.

    Attributes:
        query: the user turn, with ``<image>``.
        before: the answer up to, and without, the blank before the rating word.
        after: the answer behind the rating word.
        source: where this was taken from, for a message.
    """

    query: str
    before: str
    after: str
    source: str

    def response(self, word: str) -> str:
        """The whole answer with this rating word."""
        return f"{self.before} {word}{self.after}" if self.before else f"{word}{self.after}"


OWN_SENTENCES = "tools/prompt_configs.py"  # the source of this project's own


def own_sentences(dimension: str, version: int) -> Sentences:
    """This project's own sentences, from ``facts``."""
    word = facts.WORDS[0]
    before, _, after = split_answer(facts.response(dimension, word))
    return Sentences(facts.query(dimension, version), before, after, OWN_SENTENCES)


def annotated_sentences(folder: Place, dimension: str, version: int) -> Sentences | None:
    """The sentences that the annotation files in ``folder`` use; None where no such file has an answer."""
    for split in facts.SPLITS:
        path = folder / facts.annotation_jsonl(dimension, split, version)
        for record in stream_records(path) if path.is_file() else ():
            answer = split_answer(record.response)
            if answer:
                before, _, after = answer
                return Sentences(record.query, before, after, bundle.shown(path))
    return None


def sentences(data_root: Place, dimension: str, version: int) -> Sentences:
    """The sentences for images that come with none: of the annotations below the data root, else this project's own."""
    annotated = annotated_sentences(data_root / facts.ANNOTATIONS_FOLDER, dimension, version)
    return annotated or own_sentences(dimension, version)


# ---- a result that grows line by line --------------------------------------------------------------------------------


class LineIndex:
    """Where in a file the line of an image starts, and the stamp of its picture: 32 bytes of memory a line.

    Images are told apart by ``text_digest``.
    """

    def __init__(self):
        self._digests, self._offsets, self._times, self._contents = (array("Q") for _ in range(4))
        self._is_sorted = True

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, image: str) -> bool:
        return self.offset(image) is not None

    def add(self, image: str, offset: int, stamp: tuple[int, int] = (0, 0)) -> None:
        """Note a line. ``stamp`` is that of its picture, as ``stamps.numbers`` gives it."""
        self._digests.append(text_digest(image))
        self._offsets.append(offset)
        self._times.append(stamp[0])
        self._contents.append(stamp[1])
        self._is_sorted = False

    def offset(self, image: str) -> int | None:
        """The offset of the image's line in bytes; None where it has none."""
        at = self._place(image)
        return None if at is None or self._offsets[at] == _FORGOTTEN else self._offsets[at]

    def stamp(self, image: str) -> tuple[int, int]:
        """The stamp of the image's picture."""
        at = self._place(image)
        return (0, 0) if at is None else (self._times[at], self._contents[at])

    def forget(self, image: str) -> None:
        """Be without the lines of an image."""
        at, digest = self._place(image), text_digest(image)
        while at is not None and at < len(self._digests) and self._digests[at] == digest:
            self._offsets[at] = _FORGOTTEN
            at += 1

    def _place(self, image: str) -> int | None:
        if not self._is_sorted:
            self._sort()
        digest = text_digest(image)
        at = bisect.bisect_left(self._digests, digest)
        return at if at < len(self._digests) and self._digests[at] == digest else None

    def offsets_but(self, digests: array) -> list[int]:
        """The offsets of the lines of all images but those with these digests."""
        import numpy

        own, named, offsets = (numpy.frombuffer(x, dtype=numpy.uint64) for x in (self._digests, digests, self._offsets))
        return offsets[~numpy.isin(own, named)].tolist()

    def _sort(self) -> None:
        import numpy  # not at the top: --help and the stages after infer do without

        order = numpy.argsort(numpy.frombuffer(self._digests, dtype=numpy.uint64), kind="stable")
        for name in ("_digests", "_offsets", "_times", "_contents"):
            values = numpy.frombuffer(getattr(self, name), dtype=numpy.uint64)
            setattr(self, name, array("Q", values[order].tobytes()))
        self._is_sorted = True


class Partial:
    """The finished lines of an unfinished result, on disk as soon as they are known, and nowhere else.

    The first line is a header that tells how they are made, each other line is one image: its rating, or a line with
    ``"failed": reason`` where it was tried in vain. A last line torn by a crash is forgotten.

    Attributes:
        path: the file.
        header: what the lines depend on (model, prompt, engine, ...).
        rated, failed: the images that an earlier run has rated, or tried in vain; empty where there was none.
        count: ratings in the file.
        others: lines in it, behind the header, of images that the run which writes it does not name.
    """

    def __init__(self, path: Path, header: dict):
        self.path, self.header = path, header
        self.rated, self.failed = LineIndex(), LineIndex()
        self.count = self.others = 0
        self._in_order = True

    @classmethod
    def read(cls, path: Path) -> Partial | None:
        """What an earlier run has left; None where there is nothing, or only a torn header.

        Raises:
            InputError: a line in the middle that is broken.
        """
        lines = _placed_lines(path) if path.is_file() else iter(())
        header = next(lines, None)
        if header is None:
            return None
        return cls(path, header[2])._holding(lines)

    @classmethod
    def of_result(cls, path: Path, header: dict) -> Partial:
        """A finished result, to be continued as if it were unfinished. Raises ``InputError`` for a broken line."""
        return cls(path, header)._holding(_placed_lines(path, torn=True))

    def _holding(self, lines: Iterable[tuple[int, int, dict]]) -> Partial:
        for number, offset, line in lines:
            index = self.failed if "failed" in line or AGAIN in line else self.rated
            index.add(only_image(self.path, number, line), offset, stamps.numbers(line))
        self.count = len(self.rated)
        self._in_order = not (self.rated or self.failed)
        return self

    def start(self, earlier: Partial | None = None, images: Callable[[], Iterable[str]] = tuple) -> None:
        """Write the file anew: the header, what ``earlier`` has of other images, and its ratings of ``images()``.

        The file of ``earlier`` may be this one: it stays until the new one is whole.
        """
        self.count = self.others = 0
        with atomic_writer(self.path) as file:
            file.write(json_line(self.header))
            for line in earlier.lines_but(images()) if earlier else ():
                file.write(line)
                self.others += 1
            for line in earlier.ratings(images()) if earlier else ():
                file.write(line)
                self.count += 1
        self._in_order = self.count == 0

    def forget_if_changed(self, image: str, stamp: Mapping | None) -> bool:
        """Be without the rating of an image whose picture has changed since; return whether that is so.

        Args:
            stamp: the picture's now, as ``stamps.of`` gives it.
        """
        now = stamps.numbers({stamps.PICTURE_KEY: stamp})
        changed = stamps.differ(self.rated.stamp(image), now)
        if changed:
            self.rated.forget(image)
        return changed

    def append(self, lines: Iterable[dict]) -> None:
        """Add finished lines, ratings and failures; they are in the file when this returns."""
        try:
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                for line in lines:
                    file.write(json_line(line))
                    self.count += "failed" not in line
        except OSError as error:
            raise cannot_write(self.path, error.strerror or str(error)) from error

    def finish(self, output: Path, images: Callable[[], Iterable[str]]) -> int:
        """Write the ratings as a result: of other images first, then in the order of ``images()``; return how many.

        The partial file stays.
        """
        return write_lines(output, (line for line in self.lines(images) if not line.startswith(_FAILURE_START)))

    def lines(self, images: Callable[[], Iterable[str]]) -> Iterator[str]:
        """All lines: of other images first, then of ``images()`` in their order, rated or failed."""
        if self._in_order:
            return self._all()
        written = Partial.read(self.path)
        return itertools.chain(
            itertools.islice(self._all(), self.others), written._found(images(), written.rated, written.failed)
        )

    def lines_but(self, images: Iterable[str]) -> Iterator[str]:
        """The lines of all other images than these, rated or failed, in their order in the file."""
        digests = array("Q", map(text_digest, images))
        offsets = sorted(self.rated.offsets_but(digests) + self.failed.offsets_but(digests))
        with self.path.open("rb") as file:
            for offset in offsets:
                file.seek(offset)
                yield file.readline().decode().rstrip("\n") + "\n"

    def _all(self) -> Iterator[str]:
        with self.path.open(encoding="utf-8", newline="\n") as file:
            next(file)
            yield from file

    def ratings(self, images: Iterable[str]) -> Iterator[str]:
        """The lines of those of ``images`` that have a rating, in their order. Raises ``Failed`` for a line gone astray."""
        return self._found(images, self.rated)

    def _found(self, images: Iterable[str], *indexes: LineIndex) -> Iterator[str]:
        """The line of each image in the first of the indexes that has it."""
        with self.path.open("rb") as file:
            for image in images:
                offsets = (index.offset(image) for index in indexes)
                offset = next((offset for offset in offsets if offset is not None), None)
                if offset is None:
                    continue
                file.seek(offset)
                line = file.readline().decode().rstrip("\n")
                if json.loads(line)["images"] != [image]:
                    raise Failed(f"{bundle.shown(self.path)} changed while it was read", "Run without --resume")
                yield line + "\n"

    def remove(self) -> None:
        """Delete the file: the result is whole."""
        self.path.unlink(missing_ok=True)


def failure_line(image: str, reason: str) -> dict:
    """The line of a partial result for an image that was tried in vain."""
    return {"failed": reason, "images": [image]}


def _placed_lines(path: Path, torn: bool = False) -> Iterator[tuple[int, int, dict]]:
    """Number, offset in bytes and object of each line that is not blank; a last one without its end only if ``torn``."""
    offset = 0
    with reading(path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if (torn or line.endswith(b"\n")) and not line.isspace():
                yield number, offset, json_object(path, number, line.decode())
            offset += len(line)
