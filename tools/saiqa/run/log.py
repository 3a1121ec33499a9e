"""A result that grows line by line, and is continued where it was left."""

from __future__ import annotations

import bisect
import itertools
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from saiqa.errors import Failed
from saiqa.files import folders, stamps
from saiqa.files.digests import text_digest
from saiqa.files.jsonl import json_line, json_object, only_image, write_lines
from saiqa.files.text_files import atomic_writer, cannot_write, reading

AGAIN = "again"  # marks a line of an image that is to be rated again if it is named again
_FORGOTTEN = 2**64 - 1  # the offset of no line
_FAILURE_START = '{"failed"'  # of the line that ``failure_line`` makes


class LineIndex:
    """Where in a file the line of an image starts, and the stamp of its picture: 32 bytes of memory a line.

    Images are told apart by ``text_digest``.
    """

    def __init__(self) -> None:
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
    def read_whole(cls, path: Path) -> Partial:
        """As ``read``, of a file that this process has begun."""
        found = cls.read(path)
        assert found is not None, path
        return found

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

    def line_of(self, image: str) -> dict | None:
        """The line of one image, rated or failed; None where there is none."""
        line = next(self._found([image], self.rated, self.failed), None)
        return None if line is None else json.loads(line)

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
        written = Partial.read_whole(self.path)
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
                    raise Failed(f"{folders.shown(self.path)} changed while it was read", "Run without --resume")
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
