"""POST /v1/decisions: typed questions about an input, in the format of OpenAI's Decisions API (version: docs/service.md).

Only what a scorer can truthfully answer is supported: one picture, embedded in the request, and questions of type ``score``
about one of the dimensions, with the five words as levels. Everything else is refused with a reason.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from saiqa import facts
from saiqa.image_score import ImageScore
from saiqa.service.intake import UNUSABLE, Limits, Picture, Refused, open_picture, read_json
from saiqa.service.messages import NAME_CHARACTERS, Text, inlined

PATH = "/v1/decisions"
LEVELS = tuple(sorted(facts.WORD_VALUES, key=lambda word: facts.WORD_VALUES[word]))  # lowest first
MOST_QUESTIONS = 400
_MARKS = 100_000  # brackets and commas of the JSON
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


# ---- requests --------------------------------------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)  # unknown keys are accepted and ignored


class TextPart(_Strict):
    """Text, in the instructions of a question."""

    type: Literal["input_text"]
    text: Text


class ImagePart(_Strict):
    """The picture, as a data URL."""

    type: Literal["input_image"]
    image_url: Text


class UserMessage(_Strict):
    """A message with the picture."""

    type: Literal["message"] = "message"
    role: Literal["user"]
    content: list[ImagePart]


class Level(_Strict):
    """One of the five words."""

    label: Text
    description: Text | None = None


class ScoreQuestion(_Strict):
    """A question about one dimension, given by the question's name or in its instructions."""

    type: Literal["score"]
    name: Text | None = None
    instructions: Text | list[TextPart]
    levels: list[Level]


class DecisionRequest(_Strict):
    """The JSON body of POST /v1/decisions."""

    model: Text
    input: list[UserMessage]
    questions: Annotated[list[ScoreQuestion], Field(min_length=1, max_length=MOST_QUESTIONS)]


def request_body() -> dict[str, Any]:
    """The request body of POST /v1/decisions for OpenAPI."""
    return {"required": True, "content": {"application/json": {"schema": inlined(DecisionRequest.model_json_schema())}}}


@dataclass(frozen=True)
class Asked:
    """A parsed request: the model it is for, its picture, and its questions, each with its dimension."""

    model: str
    picture: Picture
    questions: list[tuple[ScoreQuestion, str]]

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The dimensions asked about, in their usual order."""
        asked = {dimension for _, dimension in self.questions}
        return tuple(name for name in facts.DIMENSIONS if name in asked)


async def read_decision(request: Request, limits: Limits, hold: Callable[[int], None]) -> Asked:
    """Read and validate a request. Raises ``Refused`` as ``intake.read_question``, and for what a scorer cannot answer."""
    value = await read_json(request, limits, hold, _MARKS)
    return await run_in_threadpool(_understood, value, limits)


def _understood(value: object, limits: Limits) -> Asked:
    try:
        body = DecisionRequest.model_validate(value)
    except ValidationError as error:
        raise Refused(UNUSABLE, _explained(error)) from None
    questions = [(one, _dimension(one, f"questions[{n}]")) for n, one in enumerate(body.questions)]
    images = [part for message in body.input for part in message.content]
    if len(images) != 1:
        raise Refused(UNUSABLE, f"input: there are {len(images)} pictures, but a request must have one")
    picture = open_picture("the picture", _data(images[0].image_url), limits)
    if picture.image is None:
        raise Refused(UNUSABLE, f"input: {picture.error}")
    return Asked(body.model, picture, questions)


# Replaces pydantic's message if one of these fields has a value of the wrong type.
_HELP = {
    "input": "a list of user messages with one input_image: text cannot be scored",
    "content": "a list of parts of type input_image: text cannot be scored",
    "questions": f"from 1 to {MOST_QUESTIONS} questions of type score",
}


def _explained(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
    last = next((part for part in reversed(problem["loc"]) if isinstance(part, str)), "")
    said = _HELP.get(last) if problem["loc"][-1:] == (last,) else None
    return f"{place[:NAME_CHARACTERS] or 'the body'}: {said or problem['msg']}"


def _dimension(question: ScoreQuestion, place: str) -> str:
    """The dimension a question is about: given by its name, else the only one in its instructions."""
    if [level.label.strip().lower() for level in question.levels] != list(LEVELS):
        raise Refused(
            UNUSABLE, f"{place}.levels: this model knows the labels {', '.join(LEVELS)}, in this order, and no others"
        )
    parts = question.instructions
    text = parts if isinstance(parts, str) else " ".join(part.text for part in parts)
    found = [name for name in facts.DIMENSIONS if re.search(rf"\b{name}\b", text, re.IGNORECASE)]
    named = [question.name] if question.name in facts.DIMENSIONS else []
    if len(named or found) != 1 or (named and found and named[0] not in found):
        which = ", ".join(facts.DIMENSIONS)
        raise Refused(UNUSABLE, f"{place}: it must be about one of {which}: as its name, or the only one in its instructions")
    return str((named or found)[0])


def _data(url: str) -> bytes | None:
    """The file in a data URL; None if it is not base64. Raises ``Refused`` for other URLs: nothing is downloaded."""
    match = _DATA_URL.match(url)
    if not match:
        raise Refused(UNUSABLE, "input: image_url must be a data URL, data:image/jpeg;base64,...: nothing is downloaded")
    try:
        return base64.b64decode(url[match.end() :], validate=True)
    except (binascii.Error, ValueError):
        return None


# ---- answers ---------------------------------------------------------------------------------------------------------


class LevelProbability(BaseModel):
    """The probability of a level; ``value`` is its index, from 0."""

    value: int
    label: str
    probability: float


class ScoreAnswer(BaseModel):
    """The expected level, from 0; ``confidence`` is 1 if all probability is on one level, 0 if it is uniform."""

    type: Literal["score"]
    name: str | None
    score: float
    confidence: float
    probabilities: list[LevelProbability]


class Refusal(BaseModel):
    """There is no score, or it is not certain enough."""

    type: Literal["refusal"]
    name: str | None


class InputDetails(BaseModel):
    """Input tokens read from a cache and written to it."""

    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(BaseModel):
    """Reasoning tokens."""

    reasoning_tokens: int


class Usage(BaseModel):
    """Always 0: nothing is charged, and tokens are not counted."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


_NOT_COUNTED = Usage(
    input_tokens=0,
    input_tokens_details=InputDetails(cached_tokens=0, cache_write_tokens=0),
    output_tokens=0,
    output_tokens_details=OutputDetails(reasoning_tokens=0),
    total_tokens=0,
)


class Decision(BaseModel):
    """The answer of POST /v1/decisions: one answer per question, in order. ``caveat`` is present only for the demo's model."""

    model: str
    answers: list[Annotated[ScoreAnswer | Refusal, Field(discriminator="type")]]
    usage: Usage
    caveat: str = ""


def check_model(asked: Asked, model: str) -> None:
    """Raise ``Refused`` if a request is for another model than the one served."""
    if asked.model != model:
        raise Refused(HTTPStatus.NOT_FOUND, f"model: this service has {model}, not {asked.model[:NAME_CHARACTERS]!r}")


def decision(asked: Asked, score: ImageScore, unsure: Collection[str], model: str, caveat: str | None) -> Decision:
    """The answer to a request. Raises ``Refused`` if the picture could not be read after all."""
    if not score.scores:
        raise Refused(UNUSABLE, f"input: {score.error}")
    known = {name: score.probabilities[name] for name in score.scores if name not in unsure}
    answers = [_answer(question, known.get(dimension)) for question, dimension in asked.questions]
    found = Decision(model=model, answers=answers, usage=_NOT_COUNTED)
    return found.model_copy(update={"caveat": caveat}) if caveat else found


def _answer(question: ScoreQuestion, words: Mapping[str, float] | None) -> ScoreAnswer | Refusal:
    if words is None:
        return Refusal(type="refusal", name=question.name)
    levels = [
        LevelProbability(value=value, label=level.label, probability=words[word])
        for value, (word, level) in enumerate(zip(LEVELS, question.levels, strict=True))
    ]
    mean = sum(level.value * level.probability for level in levels)
    certain = confidence([level.probability for level in levels])
    return ScoreAnswer(type="score", name=question.name, score=mean, confidence=certain, probabilities=levels)


def confidence(probabilities: Collection[float]) -> float:
    """One minus the normalised entropy of a distribution."""
    entropy = -sum(p * math.log(p) for p in probabilities if p > 0)
    return min(1.0, max(0.0, 1 - entropy / math.log(len(probabilities))))
