"""Training examples: read from question files, with people's ratings, and checked for faults."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from saiqa import facts, scoring
from saiqa.errors import InputError
from saiqa.files import csv_files, folders, question_files
from saiqa.files.digests import of_file
from saiqa.model.decoding import IMAGE_ERRORS, decode, open_image, size_of, unreadable
from saiqa.progress import Progress

_READERS = 4
_PROMPT_IN_NAME = re.compile(r"_prompt\d+$")


@dataclass(frozen=True)
class Example:
    """One question about one image, with people's answer.

    Attributes:
        file: the question file it is from.
        written: the image path as written there.
        image: the image's file.
        group: the file's dimension, or else its name.
        query, response: the two turns.
        mos: mean opinion score, 1..5; the rating word's value if the ratings are not available.
        marks: the individual raters' scores, 1..5 each; empty if not available.
    """

    file: Path
    written: str
    image: Path
    group: str
    query: str
    response: str
    mos: float
    marks: tuple[float, ...] = ()

    @property
    def word(self) -> str:
        """The rating word of the answer; empty if it has none."""
        found = scoring.split_answer(self.response)
        return found[1] if found else ""

    @property
    def answer_prefix(self) -> str:
        """The answer up to the space before the rating word, without that space."""
        found = scoring.split_answer(self.response)
        return found[0] if found else ""

    @property
    def image_id(self) -> str:
        return folders.image_id(self.written)


def read(files: Sequence[Path], data_root: Path) -> list[Example]:
    """The examples of question files. Ratings come from the table beside a file: ``X.csv`` for ``X_prompt4.jsonl``.

    Raises:
        InputError: a file is missing or broken.
    """
    found = []
    for file in files:
        folders.require_data(file)
        group = folders.dimension_in_name(file) or _stem(file)
        ratings = _ratings(file, group)
        for record in question_files.stream_records(file):
            image = Path(str(folders.resolve_image(record.image, data_root))).absolute()
            answer = scoring.split_answer(record.response)
            word_value = float(facts.WORD_VALUES[answer[1]]) if answer else 0.0
            mos, marks = ratings.get(record.image_id, (word_value, ()))
            found.append(Example(file, record.image, image, group, record.query, record.response, mos, marks))
    return found


def _stem(file: Path) -> str:
    return _PROMPT_IN_NAME.sub("", file.stem)


def _table_beside(file: Path) -> Path:
    """The path of the table of ratings that a question file was made from."""
    return file.with_name(f"{_stem(file)}.csv")


def _ratings(file: Path, group: str) -> dict[str, tuple[float, tuple[float, ...]]]:
    """Image id -> MOS and individual scores, from the table beside a question file; empty if there is none."""
    table = _table_beside(file)
    if not table.is_file():
        return {}
    columns, rows = csv_files.open_csv(table, required=[facts.ID_COLUMN])
    mos_column = facts.mos_column(group)
    if mos_column not in columns:
        return {}
    raters = [name for name in columns if re.fullmatch(rf"{re.escape(group)}_score_\d+", name)]
    found = {}
    for _, row in rows:
        try:
            marks = tuple(float(row[name]) for name in raters if row[name])
            found[row[facts.ID_COLUMN]] = (float(row[mos_column]), marks)
        except ValueError:
            continue  # the rating word's value is used instead
    return found


# ---- train and validation --------------------------------------------------------------------------------------------


def split(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Split into training and validation examples: by image, so that no image is in both, and the same in every run."""
    parts: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        digest = hashlib.sha256(example.image_id.encode()).digest()
        parts[int.from_bytes(digest[:8], "big") < share * 2**64].append(example)
    return parts


def counts(examples: Iterable[Example]) -> list[str]:
    """The number of examples per group and rating word, as lines for display."""
    words: dict[str, Counter[str]] = {}
    for example in examples:
        words.setdefault(example.group, Counter())[example.word] += 1
    return [
        f"{group}: {sum(count.values())} ({', '.join(f'{word} {count[word]}' for word in facts.WORDS if count[word])})"
        for group, count in words.items()
    ]


def digests(files: Iterable[Path]) -> dict[str, str]:
    """File name -> SHA-256 of its content, for question files and the tables beside them."""
    found = {}
    for file in files:
        for one in (file, _table_beside(file)):
            if one.is_file():
                found[one.name] = of_file(one)
    return found


# ---- faults ----------------------------------------------------------------------------------------------------------


def faults(
    examples: Sequence[Example], tokens: Callable[[Example, int, int], int], longest: int | None
) -> tuple[list[tuple[str, str]], int]:
    """All faults that prevent training, as (file, why), and the length of the longest example in tokens.

    Every image is decoded once, however many questions there are about it.

    Args:
        tokens: the number of tokens of an example, given height and width of its image.
        longest: the most tokens an example may have; None for no limit.
    """
    by_image: dict[Path, list[Example]] = {}
    for example in examples:
        by_image.setdefault(example.image, []).append(example)
    found: list[tuple[str, str]] = []
    most = 0
    with ThreadPoolExecutor(_READERS) as readers, Progress(len(by_image), "checking the images") as progress:
        for (image, asked), size in zip(by_image.items(), readers.map(_size, by_image), strict=True):
            progress.advance()
            if isinstance(size, str):
                found.append((folders.shown(image), size))
                continue
            for example in asked:
                length = tokens(example, *size)
                most = max(most, length)
                if longest is not None and length > longest:
                    found.append((folders.shown(image), f"has {length} tokens with its question, the limit is {longest}"))
    found += [
        (folders.shown(one.file), f"the response about {one.written} has no rating word") for one in examples if not one.word
    ]
    return list(dict.fromkeys(found)), most


def _size(image: Path) -> tuple[int, int] | str:
    """Height and width of an image, or why it cannot be decoded."""
    if not image.is_file():
        return "is not there"
    try:
        with open_image(image) as opened:
            size = size_of(opened, False)
            decode(opened, False)
        return size
    except (*IMAGE_ERRORS, MemoryError) as error:
        return unreadable(error)


def require_marks(examples: Iterable[Example]) -> None:
    """Raise ``InputError`` if the individual scores of an example are not known."""
    without = next((example for example in examples if not example.marks), None)
    if without is not None:
        what = f"the individual raters' scores for {without.written} are not known"
        remedy = f"Put {_table_beside(without.file).name} with the columns {without.group}_score_1, 2, ... beside the questions"
        raise InputError(what, remedy)
