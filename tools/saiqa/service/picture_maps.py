"""POST /explain: what lowers the score of one picture in one dimension, region by region."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request

from saiqa import facts
from saiqa.errors import InputError, UsageError
from saiqa.image_map import ImageMap, standing
from saiqa.scorer import Scorer
from saiqa.service.intake import UNUSABLE, Limits, Picture, Refused, read_question

PATH = "/explain"


@dataclass(frozen=True)
class Where:
    """The request for a map, which the batcher passes to the model's thread."""

    dimension: str


class MapAnswer(BaseModel):
    """The map of one picture: how many points each region lowers the score [rows][columns]."""

    model: str
    caveat: str | None
    name: str
    dimension: str
    map: list[list[float]] = []
    method: str = ""
    standing: str
    error: str | None = None


def offered(scorer: Scorer) -> dict[str, str]:
    """For /health: dimension -> how far its maps can be trusted; empty if the engine has no maps."""
    from saiqa.engines.region_maps import checked  # not at the top: torch is imported after the command has set its threads

    if scorer.model.views > 1:
        return {}
    try:
        checked(scorer.engine)
    except UsageError:
        return {}
    return {name: standing(name, scorer.demo) for name in facts.DIMENSIONS}


async def read(request: Request, limits: Limits, hold: Callable[[int], None], here: bool) -> tuple[Picture, Where]:
    """The picture and dimension of a request; the body is like that of POST /score.

    Args:
        here: whether the served engine has maps.

    Raises:
        Refused: as ``read_question``, and unless there is exactly one picture and one dimension.
    """
    if not here:
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, "This service has no maps: they need the prefill engine and a single view")
    question = await read_question(request, limits, hold)
    if len(question.pictures) != 1 or len(question.dimensions) != 1:
        raise Refused(UNUSABLE, "A map needs exactly one image and one of `dimensions`")
    return question.pictures[0], Where(question.dimensions[0])


def drawn(scorer: Scorer, picture: Picture, where: Where) -> ImageMap | str:
    """The map, or why there is none."""
    assert picture.image is not None
    try:
        return scorer.explain(picture.image, where.dimension)
    except InputError as error:
        return str(error).partition(": ")[2]


def answer(scorer: Scorer, picture: Picture, where: Where, found: ImageMap | str, caveat: str | None) -> MapAnswer:
    """The answer for a map, or for the reason why there is none."""
    shared: dict[str, Any] = {"model": scorer.model_name, "caveat": caveat, "name": picture.name, "dimension": where.dimension}
    shared["standing"] = standing(where.dimension, scorer.demo)
    if isinstance(found, str):
        return MapAnswer(**shared, error=found)
    return MapAnswer(**shared, map=found.map, method=found.method)
