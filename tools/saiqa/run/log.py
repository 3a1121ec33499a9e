"""A result that grows line by line and can be resumed."""

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

AGAIN = "again"  # marks the line of an image that has to be rated again when a run names it again
_FORGOTTEN = 2**64 - 1  # an offset that no line has
_FAILURE_START = '{"failed"'  # how a line made by ``failure_line`` starts


class LineIndex:
    """Offset of each image's line in a file, and the stamp of its picture: 32 bytes of memory per line.

    Images are identified by ``text_digest``.
    """

    def __init__(self) -> None:
        self._digests, self._offsets, self._times, self._contents = (array("Q") for _ in range(4))
        self._is_sorted = True

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, image: str) -> bool:
        return self.offset(image) is not None

    def add(self, image: str, offset: int, stamp: tuple[int, int] = (0, 0)) -> None:
        """Add a line. ``stamp`` is its picture's, in the form of ``stamps.numbers``."""
        self._digests.append(text_digest(image))
        self._offsets.append(offset)
        self._times.append(stamp[0])
        self._contents.append(stamp[1])
        self._is_sorted = False

    def offset(self, image: str) -> int | None:
        """The offset of the image's line in bytes; None if it has none."""
        at = self._place(image)
        return None if at is None or self._offsets[at] == _FORGOTTEN else self._offsets[at]

    def stamp(self, image: str) -> tuple[int, int]:
        """The stamp of the image's picture."""
        at = self._place(image)
        return (0, 0) if at is None else (self._times[at], self._contents[at])

    def forget(self, image: str) -> None:
        """Drop all lines of an image from the index."""
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
        """The offsets of all lines except those of images with these digests."""
        import numpy

        own, named, offsets = (numpy.frombuffer(x, dtype=numpy.uint64) for x in (self._digests, digests, self._offsets))
        return offsets[~numpy.isin(own, named)].tolist()

    def _sort(self) -> None:
        import numpy  # not at the top: --help and the stages after infer do not need it

        order = numpy.argsort(numpy.frombuffer(self._digests, dtype=numpy.uint64), kind="stable")
        for name in ("_digests", "_offsets", "_times", "_contents"):
            values = numpy.frombuffer(getattr(self, name), dtype=numpy.uint64)
            setattr(self, name, array("Q", values[order].tobytes()))
        self._is_sorted = True


class Partial:
    """The finished lines of an unfinished result; written to disk immediately and not kept in memory.

    The first line is a header that says how the ratings are made. Each other line is one image: its rating, or
    ``"failed": reason`` if it could not be rated. A last line truncated by a crash is ignored.

    Attributes:
        path: the file.
        header: what the lines depend on (model, prompt, engine, ...).
        rated, failed: the images that an earlier run has rated, or failed to rate; empty if there was no such run.
        count: number of ratings in the file.
        others: number of lines, after the header, of images that are not among those of the run that writes the file.
    """

    def __init__(self, path: Path, header: dict):
        self.path, self.header = path, header
        self.rated, self.failed = LineIndex(), LineIndex()
        self.count = self.others = 0
        self._in_order = True

    @classmethod
    def read_whole(cls, path: Path) -> Partial:
        """As ``read``, for a file that this process has started."""
        found = cls.read(path)
        assert found is not None, path
        return found

    @classmethod
    def read(cls, path: Path) -> Partial | None:
        """The file of an earlier run; None if there is none, or only a truncated header.

        Raises:
            InputError: a line other than the last is broken.
        """
        lines = _placed_lines(path) if path.is_file() else iter(())
        header = next(lines, None)
        if header is None:
            return None
        return cls(path, header[2])._holding(lines)

    @classmethod
    def of_result(cls, path: Path, header: dict) -> Partial:
        """A finished result, to be resumed as if it were unfinished. Raises ``InputError`` for a broken line."""
        return cls(path, header)._holding(_placed_lines(path, torn=True))

    def _holding(self, lines: Iterable[tuple[int, int, dict]]) -> Partial:
        for number, offset, line in lines:
            index = self.failed if "failed" in line or AGAIN in line else self.rated
            index.add(only_image(self.path, number, line), offset, stamps.numbers(line))
        self.count = len(self.rated)
        self._in_order = not (self.rated or self.failed)
        return self

    def start(self, earlier: Partial | None = None, images: Callable[[], Iterable[str]] = tuple) -> None:
        """Rewrite the file: the header, the lines that ``earlier`` has for other images, and its ratings of ``images()``.

        ``earlier`` may have the same path: the old file stays until the new one is complete.
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
        """Drop the rating of an image if its picture has changed since; returns whether it has.

        Args:
            stamp: the picture's current stamp, in the form of ``stamps.of``.
        """
        now = stamps.numbers({stamps.PICTURE_KEY: stamp})
        changed = stamps.differ(self.rated.stamp(image), now)
        if changed:
            self.rated.forget(image)
        return changed

    def line_of(self, image: str) -> dict | None:
        """The line of one image, rated or failed; None if there is none."""
        line = next(self._found([image], self.rated, self.failed), None)
        return None if line is None else json.loads(line)

    def append(self, lines: Iterable[dict]) -> None:
        """Append finished lines, ratings and failures; they are in the file when this returns."""
        try:
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                for line in lines:
                    file.write(json_line(line))
                    self.count += "failed" not in line
        except OSError as error:
            raise cannot_write(self.path, error.strerror or str(error)) from error

    def finish(self, output: Path, images: Callable[[], Iterable[str]]) -> int:
        """Write the ratings as a result: other images first, then ``images()`` in their order; returns their number.

        The partial file is kept.
        """
        return write_lines(output, (line for line in self.lines(images) if not line.startswith(_FAILURE_START)))

    def lines(self, images: Callable[[], Iterable[str]]) -> Iterator[str]:
        """All lines, rated or failed: other images first, then ``images()`` in their order."""
        if self._in_order:
            return self._all()
        written = Partial.read_whole(self.path)
        return itertools.chain(
            itertools.islice(self._all(), self.others), written._found(images(), written.rated, written.failed)
        )

    def lines_but(self, images: Iterable[str]) -> Iterator[str]:
        """The lines of all images except these, rated or failed, in file order."""
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
        """The lines of the rated images among ``images``, in their order. Raises ``Failed`` if the file has changed."""
        return self._found(images, self.rated)

    def _found(self, images: Iterable[str], *indexes: LineIndex) -> Iterator[str]:
        """The line of each image, from the first index that has it."""
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
        """Delete the file, once the result is complete."""
        self.path.unlink(missing_ok=True)


def failure_line(image: str, reason: str) -> dict:
    """The line of a partial result for an image that could not be rated."""
    return {"failed": reason, "images": [image]}


def _placed_lines(path: Path, torn: bool = False) -> Iterator[tuple[int, int, dict]]:
    """Number, offset in bytes and object of each non-blank line; a last line without a newline only if ``torn``."""
    offset = 0
    with reading(path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if (torn or line.endswith(b"\n")) and not line.isspace():
                yield number, offset, json_object(path, number, line.decode())
            offset += len(line)
