"""Progress on stderr: a tqdm bar on a terminal, an occasional plain line anywhere else.

Log files get whole lines without carriage returns; results on stdout are never touched.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TextIO, TypeVar

from saiqa.stopping import check_stopped

if TYPE_CHECKING:
    from tqdm import tqdm

Item = TypeVar("Item")

LINE_EVERY_PERCENT = 10
LINE_EVERY_SECONDS = 30


def progress_iter(iterable: Iterable[Item], total: int | None = None, desc: str = "", **_: object) -> Iterator[Item]:
    """Yield the items of ``iterable`` and show progress. Scripts around the release import it by this name.

    Args:
        iterable: any iterable.
        total: number of items; ``len(iterable)`` by default. If it has no length, nothing is shown.
        desc: what is being worked on.
    """
    count = total if total is not None else getattr(iterable, "__len__", lambda: None)()
    if count is None:
        yield from iterable
        return
    with Progress(count, desc, unit="items") as progress:
        for item in iterable:
            yield item
            progress.advance()


_hushed = False


def hush(quiet: bool) -> None:
    """Switch progress off (or on again) in this process, from here on."""
    global _hushed
    _hushed = quiet


class Progress:
    """Counts finished items of a known total; a context manager.

    Args:
        total: number of items.
        label: what is being worked on; starts every line.
        unit: what the items are called, in the plural, for the rate.
        stream: where to write; stderr by default.
    """

    def __init__(self, total: int, label: str, unit: str = "images", stream: TextIO | None = None):
        self.total, self.label, self.unit = total, label, unit
        self.stream = stream or sys.stderr
        self.done = 0
        self._started = self._said_at = time.monotonic()
        self._said_done = 0
        self._shown = not _hushed and total > 0
        self._bar = self._terminal_bar() if self._shown and self.stream.isatty() else None

    def _terminal_bar(self) -> tqdm | None:
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:  # scoring and pooling work without tqdm
            return None
        return tqdm(total=self.total, desc=self.label, unit=f" {self.unit}", file=self.stream, dynamic_ncols=True)

    def advance(self, count: int = 1) -> None:
        """Report that ``count`` more items are finished."""
        check_stopped()
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._shown and self._line_is_due():
            self._say()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within, other lines may be written to the terminal: the bar makes room for them."""
        if self._bar is None:
            yield
            return
        with self._bar.external_write_mode(file=sys.stdout):
            yield

    def _line_is_due(self) -> bool:
        step = (self.done - self._said_done) * 100 >= LINE_EVERY_PERCENT * self.total
        waited = time.monotonic() - self._said_at >= LINE_EVERY_SECONDS
        return step or waited or self.done == self.total

    def _say(self) -> None:
        now = time.monotonic()
        rate = self.done / max(now - self._started, 1e-9)
        share = 100 * self.done // max(self.total, 1)
        line = f"{self.label}: {self.done}/{self.total} ({share}%), {rate:.1f} {self.unit}/s"
        print(line, file=self.stream, flush=True)
        self._said_at, self._said_done = now, self.done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
