"""What the infer stage asks: the records of a question file, one in memory at a time."""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import json
import os
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from saiqa import scoring
from saiqa.files import folders, ids, places, stamps
from saiqa.files.digests import text_digest
from saiqa.files.places import RemotePath
from saiqa.files.question_files import QuestionFile, Record
from saiqa.notes import Notes
from saiqa.run import log

_SHOWN_PROMPTS = 4

# A benchmark has few answers, each many times over.
_split_answer = functools.lru_cache(maxsize=1024)(scoring.split_answer)


@functools.lru_cache(maxsize=1024)
def _same(prompt: str) -> str:
    """The same object for equal prompts, so that a batch sent to a worker contains it once."""
    return prompt


@dataclass(frozen=True, slots=True)
class Question:
    """One image of a benchmark file: its path as written, its file, the prompt and the answer up to the rating word."""

    image: str
    file: str | RemotePath
    prompt: str
    answer_prefix: str

    @property
    def id(self) -> str:
        return folders.image_id(self.image)

    def is_there(self) -> bool:
        """Whether the file exists. A remote file is assumed to; if reading it fails, that is a failure."""
        return isinstance(self.file, RemotePath) or os.path.isfile(self.file)


class Questions:
    """The questions of a file, each with its record's own prompt and answer prefix.

    Iterating reads the file again. Only 8 bytes per image are held, while the file is checked, and what is missing.

    Args:
        file: the question file.
        limit: use only the first ``limit`` records; None for all.
        out: told of duplicate ids, and of records without an answer.
        earlier: what an earlier run has rated; pictures that have changed since are removed from it.
        with_digests: detect changed pictures by their content, which means reading them all.

    Attributes:
        rated: how many of the questions ``earlier`` has rated.
        changed: how many of the others it had rated, before their pictures changed.
        askable: how many of the rest have an image.
        missing: image id -> reason, for the others.
        twins: how many image ids occur more than once in the file.
        prompts: the first few different pairs of prompt and answer prefix, in alphabetical order.
        prompt_hash: a digest of what the ratings depend on besides the images, 64 hexadecimal digits. Where all images are
            asked the same, only that counts, so that a file may grow between two runs; where they are not, so does which
            image is asked what.

    Raises:
        InputError: the file is missing or broken, or not one of the images is there.
    """

    def __init__(
        self,
        file: QuestionFile,
        limit: int | None,
        out: Notes,
        earlier: log.Partial | None = None,
        with_digests: bool = False,
    ) -> None:
        self._file, self._limit, self._with_digests = file, limit, with_digests
        self._prefix, self._prefix_source = file.fallback()
        self._count = self.rated = self.changed = self.askable = self.twins = 0
        self.missing: dict[str, str] = {}
        asked = self._check(out, earlier)
        self.prompts, self.prompt_hash = sorted(asked.pairs), asked.digest()
        if not self.rated and not self.askable:
            first = folders.shown(places.place(next(iter(self)).file))
            what = f"none of the {self._count} images of {folders.shown(file.path)} is there, {first} first"
            raise folders.missing_data(what)

    def __len__(self) -> int:
        return self._count

    def among(self, image_ids: Collection[str]) -> int:
        """How many of the questions have one of these ids; each id must be that of a question."""
        return sum(question.id in image_ids for question in self) if self.twins else len(image_ids)

    def __iter__(self) -> Iterator[Question]:
        return map(self._question, itertools.islice(self._file, self._limit))

    def images(self) -> Iterator[str]:
        """The image paths as written, in order."""
        return (question.image for question in self)

    def _question(self, record: Record) -> Question:
        answer = _split_answer(record.response)
        file = self._file.image_file(record)
        return Question(record.image, file, _same(record.query), answer[0] if answer else self._prefix)

    def _check(self, out: Notes, earlier: log.Partial | None) -> _Asked:
        """Read the whole file, and count."""
        asked, digests, lacking = _Asked(), array("Q"), 0
        for number, record in enumerate(self._file):
            digests.append(text_digest(record.image_id))
            lacking += _split_answer(record.response) is None
            if self._limit is None or number < self._limit:
                question = self._question(record)
                asked.add(question)
                self._take(question, earlier)
        self._count_twins(digests, out)
        if lacking:
            where = f"{lacking} of {len(digests)} records of {folders.shown(self._file.path)}"
            out.note(f"{where} have no answer: taking the answer sentence of {self._prefix_source}, {self._prefix!r}")
        return asked

    def _take(self, question: Question, earlier: log.Partial | None) -> None:
        self._count += 1
        known = earlier is not None and question.image in earlier.rated
        if earlier and known and earlier.forget_if_changed(question.image, stamps.of(question.file, self._with_digests)):
            self.changed += 1
            known = False
        if known:
            self.rated += 1
        elif question.is_there():
            self.askable += 1
        else:
            self.missing[question.id] = missing_reason(question)

    def _count_twins(self, digests: array, out: Notes) -> None:
        """Count duplicate ids, by their digests, and name the first few."""
        import numpy  # not at the top: --help does without

        found = numpy.frombuffer(digests, dtype=numpy.uint64)
        found.sort()
        twins = array("Q", numpy.unique(found[1:][found[1:] == found[:-1]]).tobytes())
        self.twins = len(twins)
        if self.twins:
            named = ids.few(self._named(twins), self.twins)
            out.note(f"{folders.shown(self._file.path)}: {named} come more than once; every line of them is rated")

    def _named(self, digests: array) -> Iterator[str]:
        """The ids with one of the (sorted) digests, each once, in the order of the file."""
        named = set()
        for record in self._file:
            digest = text_digest(record.image_id)
            at = bisect.bisect_left(digests, digest)
            if at < len(digests) and digests[at] == digest and record.image_id not in named:
                named.add(record.image_id)
                yield record.image_id


def missing_reason(question: Question) -> str:
    """Why an image whose file is not there has no rating."""
    return f"{question.file} is not there"


class _Asked:
    """A summary of what is asked, collected question by question in constant memory.

    Attributes:
        pairs: the first few different pairs of prompt and answer prefix in alphabetical order.
    """

    def __init__(self) -> None:
        self.pairs: set[tuple[str, str]] = set()
        self._sum = 0

    def add(self, question: Question) -> None:
        pair = (question.prompt, question.answer_prefix)
        if pair not in self.pairs:
            self.pairs.add(pair)
            if len(self.pairs) > _SHOWN_PROMPTS:
                self.pairs.remove(max(self.pairs))
        # A sum does not depend on the order.
        text = "\0".join((question.image, *pair))
        self._sum += int.from_bytes(hashlib.blake2b(text.encode(), digest_size=32).digest(), "little")

    def digest(self) -> str:
        if len(self.pairs) == 1:
            return hashlib.sha256(json.dumps(list(self.pairs)).encode()).hexdigest()
        return f"{self._sum % 2**256:064x}"
