"""From log-probabilities to a score, and from text to a rating word. Pure: standard library only.

Nothing here guesses: a log-probability that is missing or not finite is an error, never a number. Only
``score_of_known``, for result files written by the release, makes do with the words present, and says so.
"""

from __future__ import annotations

import functools
import math
import operator
import re
import string
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from saiqa.facts import WORD_VALUES, WORDS
from saiqa.numbers import is_finite

# Whitespace and punctuation around a word, and the marks that BPE and SentencePiece vocabularies use for a space.
_AROUND_A_WORD = string.whitespace + string.punctuation + "\u0120\u2581\u3002\uff0c\uff0e"
_RATING_WORD = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)
_in_order = operator.itemgetter(*WORDS)
_VALUES = _in_order(WORD_VALUES)
_ROUNDING = 1e-6
_FIVE_FLOATS = [float] * len(WORDS)
_WORD_OF_VALUE = {value: word for word, value in WORD_VALUES.items()}

# What the release writes as the log-probability of a word that was not among the five likeliest tokens.
FILLER = -50.0


class ScoringError(ValueError):
    """A distribution that gives no score, or a mean opinion score that gives no rating word."""


def is_score(value: float) -> bool:
    """Whether a number can be a score: from 1 to 5, up to rounding."""
    return min(_VALUES) - _ROUNDING <= value <= max(_VALUES) + _ROUNDING


def probabilities(logprobs: Mapping[str, float]) -> dict[str, float]:
    """Softmax over the five words.

    Args:
        logprobs: word -> natural log of its probability (or any logit), all five words present and finite.

    Returns:
        word -> probability; they sum to 1.

    Raises:
        ScoringError: a word is missing, or a value is not a finite number.
    """
    check_complete(logprobs)
    return dict(zip(WORDS, _softmax(_in_order(logprobs)), strict=True))


def _softmax(logprobs: Sequence[float]) -> list[float]:
    """The probabilities, in the order of the log-probabilities."""
    highest = max(logprobs)
    weights = [math.exp(logprob - highest) for logprob in logprobs]
    total = sum(weights)
    return [weight / total for weight in weights]


def check_complete(logprobs: Mapping[str, float]) -> None:
    """Raise ``ScoringError`` unless all five words are present and finite, as ``probabilities`` does."""
    if _is_plain(logprobs):
        return
    missing = [word for word in WORDS if word not in logprobs]
    if missing:
        raise ScoringError(f"no log-probability for {', '.join(missing)}")
    broken = [word for word in WORDS if not is_finite(logprobs[word])]
    if broken:
        raise ScoringError(f"log-probability of {', '.join(broken)} is not a finite number")


def score_of(logprobs: Mapping[str, float]) -> float:
    """The expected value under the five words, from 1 (bad) to 5 (excellent). Raises as ``probabilities`` does."""
    check_complete(logprobs)
    return sum(map(operator.mul, _softmax(_in_order(logprobs)), _VALUES))


def score_of_known(logprobs: Mapping[str, float]) -> tuple[float, bool]:
    """The score of a line of a result file, which the release may have written without some of the words.

    Args:
        logprobs: tokens -> log-probabilities; a word whose value is ``FILLER`` counts as missing.

    Returns:
        The expected value under the words present, from 1 (bad) to 5 (excellent), and whether all five are.

    Raises:
        ScoringError: none of the words is present, or the value of one is not a finite number.
    """
    if _is_plain(logprobs) and FILLER not in logprobs.values():
        return sum(map(operator.mul, _softmax(_in_order(logprobs)), _VALUES)), True
    found = by_word(logprobs)
    known = [word for word in WORDS if found.get(word, FILLER) != FILLER]
    if not known:
        raise ScoringError(f"no log-probability for {', '.join(WORDS)}")
    weights = _softmax([found[word] for word in known])
    return sum(map(operator.mul, weights, map(WORD_VALUES.get, known))), len(known) == len(WORDS)


def by_word(logprobs: Mapping[str, float]) -> Mapping[str, float]:
    """Log-probabilities by token -> by rating word; the likeliest spelling of a word counts.

    ``" good"``, ``"good"`` and ``"Good"`` are one word. Tokens that are no rating word are dropped, and words may be
    missing: ``score_of`` refuses an incomplete set. Raises ``ScoringError`` if a rating word's value is not finite.
    """
    if _is_plain(logprobs):
        return logprobs
    found: dict[str, float] = {}
    for token, logprob in logprobs.items():
        word = word_of(token)
        if word is None:
            continue
        if not is_finite(logprob):
            raise ScoringError(f"log-probability of {word} is not a finite number")
        found[word] = max(logprob, found.get(word, -math.inf))
    return found


def _is_plain(logprobs: Mapping[str, float]) -> bool:
    """Whether these are exactly the five words, each with a finite float: a fast check for the usual case."""
    if logprobs.keys() != WORD_VALUES.keys():
        return False
    values = logprobs.values()
    return list(map(type, values)) == _FIVE_FLOATS and math.isfinite(sum(values))


def word_of_mos(mos: str | float) -> str:
    """The rating word of a mean opinion score: rounded half up, so 3.5 is good.

    Raises:
        ScoringError: not a number, or outside 1..5.
    """
    try:
        value = Decimal(str(mos).strip())
    except InvalidOperation:
        raise ScoringError(f"MOS {str(mos)!r} is not a number") from None
    if not value.is_finite() or not min(_WORD_OF_VALUE) <= value <= max(_WORD_OF_VALUE):
        raise ScoringError(f"MOS {str(mos)!r} is not between 1 and 5")
    return _WORD_OF_VALUE[int(value.quantize(Decimal(1), rounding=ROUND_HALF_UP))]


@functools.lru_cache(maxsize=4096)  # a file has few distinct tokens, each repeated for every image
def word_of(text: str) -> str | None:
    """The rating word that a token or short text consists of, ignoring case and surrounding punctuation."""
    word = text.strip(_AROUND_A_WORD).casefold()
    return word if word in WORD_VALUES else None


def split_answer(answer: str) -> tuple[str, str, str] | None:
    """An answer as (text before, rating word, text after), split at its last whole rating word; None if it has none.

    The text before has no trailing whitespace; the word is in lower case.
    """
    matches = list(_RATING_WORD.finditer(answer))
    if not matches:
        return None
    start, end = matches[-1].span()
    return answer[:start].rstrip(), answer[start:end].lower(), answer[end:]


def find_rating_token(tokens: Sequence[str], answer_prefix: str) -> int | None:
    """The index of the generated token that carries the rating.

    If the answer prefix occurs in the text, this is the first rating word after it; otherwise the last rating word,
    because an answer may list the levels before it chooses one. A token counts only if it is a whole word of the text:
    not the ``good`` of ``goodness``, nor a word that the tokenizer has split.

    Args:
        tokens: the texts of the generated tokens, in order; joined they are the answer.
        answer_prefix: the text expected before the rating word; case and surrounding whitespace are ignored.

    Returns:
        The index, or None when no token is a rating word.
    """
    text = "".join(tokens).casefold()
    starts = [0]
    for token in tokens:
        starts.append(starts[-1] + len(token.casefold()))
    rated = [i for i in range(len(tokens)) if word_of(tokens[i]) and _is_whole(text, starts[i], starts[i + 1])]

    prefix = answer_prefix.strip().casefold()
    at = text.find(prefix) if prefix else -1
    if at >= 0:
        return next((i for i in rated if starts[i] >= at + len(prefix)), None)
    return rated[-1] if rated else None


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether no letter or digit of a neighbouring token continues the word in ``text[start:end]``."""
    before, after = text[start - 1 : start + 1], text[end - 1 : end + 1]
    return not (len(before) == 2 and before.isalnum()) and not (len(after) == 2 and after.isalnum())
