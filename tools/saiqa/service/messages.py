"""The service's requests and answers as pydantic models, which also define validation and OpenAPI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from saiqa import facts
from saiqa.files.text_files import readable

NAME_CHARACTERS = 255


# pydantic rejects lone surrogates, and one in a name is no reason to refuse a picture.
Text = Annotated[str, BeforeValidator(lambda value: readable(value) if isinstance(value, str) else value)]
File = Annotated[Text, Field(json_schema_extra={"contentEncoding": "base64"})]
Dimensions = Annotated[list[Text], Field(json_schema_extra={"items": {"enum": list(facts.DIMENSIONS)}})]


# ---- requests --------------------------------------------------------------------------------------------------------


class NamedImage(BaseModel):
    """An image file in base64, with a name for the answer."""

    model_config = ConfigDict(strict=True)
    name: Text = ""
    data: File


class ScoreRequest(BaseModel):
    """The JSON body of POST /score: images, and dimensions (all by default)."""

    model_config = ConfigDict(strict=True, extra="forbid")
    images: list[File | NamedImage] = Field(json_schema_extra={"minItems": 1})
    dimensions: Dimensions | None = None


def explained(error: ValidationError, value: object) -> str:
    """What is wrong with a body that is not a ``ScoreRequest``, in one line for the client."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    places = [problem["loc"] for problem in problems]
    if not isinstance(value, dict) or ("images",) in places:
        return 'Send {"images": [{"name": "a.jpg", "data": "base64 of the file"}, ...]}'
    unknown = [str(problem["loc"][0]) for problem in problems if problem["type"] == "extra_forbidden"]
    if unknown:
        return only_these("Keys", unknown)
    if places[0][0] == "images":
        return "An image must be its file in base64, or an object with `name` and `data`"
    return "`dimensions` must be a list of names"


def only_these(kind: str, unknown: Sequence[str]) -> str:
    """Which fields or keys a request may have, and which it has instead."""
    return f"{kind} are `images` and `dimensions`, not {', '.join(sorted(unknown))[:NAME_CHARACTERS]}"


def request_body(most_fields: int) -> dict[str, Any]:
    """The request body of POST /score for OpenAPI; /health has the limits."""
    schema = ScoreRequest.model_json_schema()
    named = schema.pop("$defs")["NamedImage"]
    images = schema["properties"]["images"]
    images["items"]["anyOf"] = [named if "$ref" in one else one for one in images["items"]["anyOf"]]
    dimensions = schema["properties"]["dimensions"]["anyOf"][0]
    fields = {
        "images": {**images, "items": {"type": "string", "format": "binary"}},
        "dimensions": {**dimensions, "maxItems": most_fields},
    }
    form = {**schema, "properties": fields}
    return {"required": True, "content": {"multipart/form-data": {"schema": form}, "application/json": {"schema": schema}}}


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema without ``$defs``: every reference is replaced by its definition."""
    definitions = schema.pop("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, list):
            return [resolved(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return resolved(definitions[value["$ref"].rpartition("/")[2]])
        return {key: resolved(one) for key, one in value.items()}

    return resolved(schema)


# ---- answers ---------------------------------------------------------------------------------------------------------


class ImageResult(BaseModel):
    """One image of an answer."""

    name: str
    scores: dict[str, float] = {}
    probabilities: dict[str, dict[str, float]] = {}
    overall: float | None = None
    error: str | None
    notes: list[str] = []
    intervals: dict[str, tuple[float, float]] = {}
    unsure: list[str] = []
    verdict: str = ""


class Answer(BaseModel):
    """The answer of POST /score: one result per image, in the order sent."""

    model: str
    caveat: str | None
    results: list[ImageResult]
