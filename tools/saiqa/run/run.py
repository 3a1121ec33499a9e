"""A run over many images that can be stopped and resumed. ``infer.py`` and ``score_images.py`` share it.

What is known of an image is a line in a log beside the result, on disk as soon as it is known. The log's header holds what the
lines depend on (``Model.identity``); a run of another identity never continues it. Nothing that a run has kept is removed
unasked: a log that is not continued is set aside, and images that a continuing run does not name keep their lines.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from saiqa.errors import InputError
from saiqa.files import folders
from saiqa.run.log import Partial
from saiqa.run.record import read_run_record
from saiqa.run.spec import Model
from saiqa.stopping import as_interrupt


@dataclass(frozen=True)
class Kept:
    """What is kept of a run: the place of its log, and what an earlier run has left to resume.

    Attributes:
        path: of the log, beside the first result.
        earlier: the log of an earlier run, or its finished result as a log; None if nothing is resumed.
        finished: whether ``earlier`` is a finished result.
    """

    path: Path
    earlier: Partial | None = None
    finished: bool = False

    @classmethod
    def beside(
        cls,
        outputs: Sequence[Path],
        resume: bool,
        note: Callable[[str], None],
        read_finished: Callable[[Path, dict], Partial] = Partial.of_result,
    ) -> Kept:
        """What is kept beside these results, of which any may be finished; with ``resume``, what can be resumed.

        Args:
            note: called if there is nothing to resume.
            read_finished: turns a finished result and its run record into a log.

        Raises:
            InputError: a file is broken, or a finished result has no record of how it was made.
        """
        log = folders.partial_path(outputs[0])
        if not resume:
            return cls(log)
        if partial := Partial.read(log):
            return cls(log, partial)
        finished = next((output for output in outputs if output.is_file()), None)
        if finished is None:
            note(f"{folders.shown(outputs[0])}: nothing to resume, starting from the first image")
            return cls(log)
        record = read_run_record(finished)
        if "identity" not in record:
            what = f"nothing tells how {folders.shown(finished)} was made: no {folders.run_record_path(finished).name}"
            raise InputError(what, "Run without --resume to make it anew")
        return cls(log, read_finished(finished, record), finished=True)


@dataclass
class Run:
    """One run, from checking what exists to the finished log.

    Attributes:
        kept: where the lines are kept, and what is resumed.
        model: the checkpoint and how it is run.
        identity: of the lines to be written.
        images: the images of this run in order, produced anew at each call.
        details: ``Engine.describe()`` of the engine in use, or of the earlier run's.
    """

    kept: Kept
    model: Model
    identity: dict
    images: Callable[[], Iterable[str]]
    details: dict = field(default_factory=dict)
    _log: Partial | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Take over the earlier run's identity. Raises ``InputError`` if it differs from this run's."""
        if self.earlier:
            header = self.earlier.header
            refuse_other(self.earlier.path, header.get("identity"), self.identity)
            self.identity = header["identity"]  # with the dtype that "auto" was then
            self.details = header.get("engine", {})

    @property
    def log(self) -> Partial:
        """The log, once the run has begun."""
        assert self._log is not None
        return self._log

    @property
    def earlier(self) -> Partial | None:
        """The log that is resumed; None if there is none."""
        return self.kept.earlier

    @property
    def finished(self) -> bool:
        """Whether a finished result is resumed."""
        return self.kept.finished

    def is_rated(self, image: str) -> bool:
        """Whether the earlier run has rated the image."""
        return self.earlier is not None and image in self.earlier.rated

    def was_tried(self, image: str) -> bool:
        """Whether the image failed in the earlier run."""
        return self.earlier is not None and image in self.earlier.failed

    def settle(self, details: Mapping) -> None:
        """Take over the loaded engine's dtype and details. Raises ``InputError`` if the earlier run had another dtype."""
        identity = self.model.settled(self.identity, details)
        if self.earlier:
            refuse_other(self.earlier.path, self.identity, identity)
        self.identity, self.details = identity, dict(details)

    def begin(self, note: Callable[[str], None]) -> Partial:
        """Start the log with the earlier run's lines; a log that is not resumed is renamed.

        Args:
            note: told what was renamed, and how many lines of images that are not in this run are kept.
        """
        if self.earlier is None:
            _set_aside(self.kept.path, note)
        self._log = Partial(self.kept.path, {"identity": self.identity, "engine": self.details})
        self.log.start(self.earlier, self.images)
        if self.log.others:
            note(f"{self.log.others} lines of the earlier run, of images that are not named now, are kept")
        return self.log

    def known_lines(self) -> Iterator[str]:
        """The earlier run's lines of this run's images, in the order of the images."""
        return Partial.read_whole(self.kept.path).ratings(self.images()) if self.earlier else iter(())

    @contextmanager
    def keeping(self, note: Callable[[str], None]) -> Iterator[None]:
        """If the block is interrupted, say how to resume."""
        try:
            with as_interrupt():
                yield
        except BaseException as error:
            if self._log is None or not self.kept.path.is_file():
                raise
            hint = f"{self.log.count} rated images are kept in {folders.shown(self.kept.path)}; continue with --resume"
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(hint) from None
            note(hint)
            raise


def _set_aside(log: Path, note: Callable[[str], None]) -> None:
    """Rename a log that has lines besides its header."""
    if not log.is_file():
        return
    with log.open("rb") as file:
        lines = sum(1 for _ in file) - 1
    if lines <= 0:
        return
    names = (log.with_name(f"{log.name}.{number}") for number in itertools.count(1))
    kept = next(name for name in names if not name.exists())
    os.replace(log, kept)
    note(f"{folders.shown(kept)} keeps {lines} lines of an interrupted run; under the name {log.name} --resume continues it")


def refuse_other(earlier: Path, then: Mapping | None, now: Mapping) -> None:
    """Raise ``InputError``, saying what differs, if two identities differ. A dtype of "auto" is compared after loading."""
    then = then or {}
    differing = [key for key in now if then.get(key) != now[key] and (key, now[key]) != ("dtype", "auto")]
    if differing:
        said = "; ".join(f"{key} was {_brief(then.get(key))}, is {_brief(now[key])}" for key in differing)
        what = f"{folders.shown(earlier)} is of another run: {said}"
        raise InputError(what, "Use the flags of that run, or start anew without --resume")


def changed_note(count: int) -> str:
    """The note on pictures that have changed since they were rated."""
    return f"{count} pictures have changed since they were rated, and are rated again"


def _brief(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else text[:12] + "..."
