"""Log-probabilities to scores, and text to rating words."""

import math

import pytest

from saiqa import facts
from saiqa.scoring import (
    FILLER,
    ScoringError,
    by_word,
    find_rating_token,
    probabilities,
    score_of,
    score_of_known,
    split_answer,
    word_of,
    word_of_mos,
)

EVEN = dict.fromkeys(facts.WORDS, -2.0)


def test_score_is_the_expected_value_under_the_five_words():
    logprobs = {word: math.log(p) for word, p in zip(facts.WORDS, (0.4, 0.3, 0.2, 0.08, 0.02), strict=True)}
    assert score_of(logprobs) == pytest.approx(0.4 * 5 + 0.3 * 4 + 0.2 * 3 + 0.08 * 2 + 0.02 * 1)
    assert sum(probabilities(logprobs).values()) == pytest.approx(1)


def test_only_differences_of_the_logits_count_and_none_overflows():
    logits = {**EVEN, "good": 3.0}
    assert score_of(logits) == pytest.approx(score_of({word: value + 5000 for word, value in logits.items()}))
    assert score_of({**EVEN, "excellent": 1e6}) == pytest.approx(5)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, None, "x", True])
def test_what_is_no_finite_number_has_no_score(broken):
    with pytest.raises(ScoringError, match="fair"):
        score_of({**EVEN, "fair": broken})


def test_a_missing_word_is_named():
    with pytest.raises(ScoringError, match="poor, bad"):
        score_of(dict.fromkeys(facts.WORDS[:3], -1.0))


def test_a_line_of_the_release_is_scored_over_the_words_it_has():
    logprobs = {word: math.log(p) for word, p in zip(facts.WORDS[:4], (0.4, 0.3, 0.2, 0.1), strict=True)}
    expected = pytest.approx(0.4 * 5 + 0.3 * 4 + 0.2 * 3 + 0.1 * 2)
    assert score_of_known(logprobs) == (expected, False)
    assert score_of_known({**logprobs, "bad": FILLER}) == (expected, False)
    assert score_of_known({" Good.": -0.1, "cat": -0.01}) == (4, False)
    assert score_of_known(EVEN) == (score_of(EVEN), True)
    assert score_of_known({**EVEN, "bad": -50.001})[1]
    assert score_of_known({**{f" {word}": -2 for word in facts.WORDS}, "good": -50}) == (pytest.approx(3), True)


@pytest.mark.parametrize("logprobs", [{}, {"cat": -0.1}, dict.fromkeys(facts.WORDS, FILLER), {"good": -50}])
def test_without_a_single_word_there_is_no_score(logprobs):
    with pytest.raises(ScoringError, match="no log-probability for excellent, good, fair, poor, bad"):
        score_of_known(logprobs)


def test_a_word_that_is_not_finite_is_no_word_that_lacks():
    with pytest.raises(ScoringError, match="fair is not a finite number"):
        score_of_known({**EVEN, "fair": math.nan})


def test_spellings_of_a_word_are_one_word_with_the_likeliest_logprob():
    assert by_word({" good": -0.1, "good": -9.0, "Good": -3.0, "cat": 0.0}) == {"good": -0.1}


@pytest.mark.parametrize(
    ("mos", "word"),
    [
        *(("1", "bad"), ("1.5", "poor"), ("2.5", "fair"), ("3.5", "good"), ("4.5", "excellent")),
        *(("3.49999999", "fair"), ("3.9", "good"), (2.5, "fair"), (5, "excellent"), (" 2.0 ", "poor")),
    ],
)
def test_a_mos_is_rounded_half_up(mos, word):
    assert word_of_mos(mos) == word


@pytest.mark.parametrize("mos", ["", "n/a", "nan", "inf", "0.99", "5.01", "-3", "3,5"])
def test_a_mos_outside_the_scale_has_no_word(mos):
    with pytest.raises(ScoringError):
        word_of_mos(mos)


@pytest.mark.parametrize("text", [" good", "Good", "GOOD.", "**good**", "\u0120good", "\u2581good\n"])
def test_a_rating_word_is_known_by_meaning(text):
    assert word_of(text) == "good"


@pytest.mark.parametrize("text", ["", ".", "goodness", "go", "very good", "<|im_end|>"])
def test_other_text_is_no_rating_word(text):
    assert word_of(text) is None


@pytest.mark.parametrize("dimension", facts.DIMENSIONS)
@pytest.mark.parametrize("word", facts.WORDS)
def test_answers_split_at_the_rating_word(dimension, word):
    assert split_answer(facts.response(dimension, word)) == (facts.answer_prefix(dimension), word, ".")


def test_the_last_whole_rating_word_is_where_an_answer_is_cut():
    assert split_answer("A good light is rare; this one is FAIR.") == ("A good light is rare; this one is", "fair", ".")
    assert split_answer("Of goodness there is nothing to say") is None
    assert split_answer("Good") == ("", "good", "")


PREFIX = "The light here is"


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["The", " light", " here", " is", " good", ".", "<|im_end|>"], 4),
        (["The", " light", " here", " is", " good", " indeed", ",", " very", " clear", "."], 4),  # another ending
        ([" good", "!", " The", " light", " here", " is", " Poor", "."], 6),  # the word after the prefix counts
        (["The", " light", " here", " is", " rather", " poor", "."], 5),
        (["excellent", ",", " good", " or", " bad", "?", " I", " say", " fair"], 8),  # no prefix: the last one
        ([" good", "ness", " is", " fair"], 3),
        (["The", " light", " here", " is", " go", "od", "."], None),  # split by the tokenizer
        (["fair", ".", " The", " light", " here", " is", " nice"], None),
        (["no", " idea"], None),
        ([], None),
    ],
)
def test_the_rating_token_is_found_by_meaning(tokens, expected):
    assert find_rating_token(tokens, PREFIX) == expected


@pytest.mark.parametrize("value", (10**400, -(10**400), True, None, "1", [1.0], float("nan"), float("inf")))
def test_what_no_float_can_hold_is_no_log_probability(value):
    with pytest.raises(ScoringError, match="finite"):
        score_of_known({"excellent": value, "good": -1.0})
