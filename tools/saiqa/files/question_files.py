"""The benchmark's question files, and the prompt and answer sentences of a dimension."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from saiqa import facts
from saiqa.files import folders
from saiqa.files.jsonl import line_error, only_image, stream_jsonl
from saiqa.files.places import Place, RemotePath
from saiqa.scoring import split_answer


@dataclass(frozen=True)
class Record:
    """One line of a benchmark JSONL: image path as written, prompt, and answer if there is one."""

    image: str
    query: str
    response: str

    @property
    def image_id(self) -> str:
        return folders.image_id(self.image)


def read_records(path: Place) -> list[Record]:
    """The records of a benchmark JSONL, in order.

    Raises:
        InputError: as ``read_jsonl``; a line without a query, or without exactly one image.
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
        before: the answer up to the space before the rating word, without that space.
        after: the answer after the rating word.
        source: where the sentences come from, for messages.
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
    parts = split_answer(facts.response(dimension, word))
    assert parts, "the template has a rating word"
    before, _, after = parts
    return Sentences(facts.query(dimension, version), before, after, OWN_SENTENCES)


def annotated_sentences(folder: Place, dimension: str, version: int) -> Sentences | None:
    """The sentences of the annotation files in ``folder``; None if none of them has an answer."""
    for split in facts.SPLITS:
        path = folder / facts.annotation_jsonl(dimension, split, version)
        for record in stream_records(path) if path.is_file() else ():
            answer = split_answer(record.response)
            if answer:
                before, _, after = answer
                return Sentences(record.query, before, after, folders.shown(path))
    return None


def sentences(data_root: Place, dimension: str, version: int) -> Sentences:
    """The sentences for images without their own: from the annotations below the data root, else this project's own."""
    annotated = annotated_sentences(data_root / facts.ANNOTATIONS_FOLDER, dimension, version)
    return annotated or own_sentences(dimension, version)


@dataclass(frozen=True)
class QuestionFile:
    """A benchmark JSONL of one dimension, and the folder of its images. Each iteration reads the file anew."""

    path: Place
    dimension: str
    version: int
    data_root: Place

    def __iter__(self) -> Iterator[Record]:
        return stream_records(self.path)

    def image_file(self, record: Record) -> str | RemotePath:
        """The file of a record's image, as ``folders.image_file``."""
        return folders.image_file(record.image, self.data_root)

    def fallback(self) -> tuple[str, str]:
        """The answer prefix for records without an answer, and where it comes from: this file, else as ``sentences``."""
        for record in self:
            if answer := split_answer(record.response):
                return answer[0], "another record of the file"
        found = sentences(self.data_root, self.dimension, self.version)
        return found.before, found.source


def all_sentences(data: Place, version: int) -> dict[str, Sentences]:
    """The sentences of every dimension. Raises ``InputError`` for a URL without annotations."""
    found = {name: sentences(data, name, version) for name in facts.DIMENSIONS}
    if isinstance(data, RemotePath) and all(map(_is_own, found.values())):
        raise folders.missing_data(f"{data} has no annotations with the sentences of prompt {version}")
    return found


def prompt_source(sentences: Mapping[str, Sentences]) -> str:
    """Where the sentences come from, in one line: the annotations, this project's own wording, or both."""
    sources = {name: _source(found) for name, found in sentences.items()}
    if len(set(sources.values())) == 1:
        return next(iter(sources.values()))
    return ", ".join(f"{name}: {source}" for name, source in sources.items())


def _is_own(sentences: Sentences) -> bool:
    """Whether sentences are this project's own wording."""
    return sentences.source == OWN_SENTENCES


def _source(sentences: Sentences) -> str:
    if _is_own(sentences):
        return f"this project's own wording ({sentences.source})"
    return f"the annotations in {os.path.dirname(sentences.source)}"
