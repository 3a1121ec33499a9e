"""Maps of what lowers a score, from an engine with the native model."""

from __future__ import annotations

from typing import Any

import torch

from saiqa.engines import Engine, Failure, Rating, Request, checked_rating
from saiqa.engines.pass_budget import is_out_of_memory
from saiqa.errors import UsageError
from saiqa.model import maps
from saiqa.model.decoding import IMAGE_ERRORS, unreadable

MOST = 8  # rows and columns of regions


def region_map(engine: Engine, request: Request, method: str) -> tuple[Rating, list[list[float]]] | Failure:
    """The rating of a request, and how many points each region of its picture lowers the score [rows][columns].

    Args:
        method: one of ``maps.METHODS``.

    Raises:
        UsageError: maps are not available with this engine or dtype.
    """
    native, ask = checked(engine), maps.METHODS[method]
    try:
        found = rated(native, request, with_slope=ask in maps.OF_PIXELS)
        if isinstance(found, Failure):
            return found
        rating, question, (rows, columns) = found
        regions, (down, across) = maps.regions(rows, columns, MOST)
        points = ask(question, regions.to(native.device))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Failure("out of memory for a map; lower max_pixels")
    return rating, points.float().reshape(down, across).tolist()


def checked(engine: Engine) -> Any:
    """The engine, if it supports maps. Raises ``UsageError`` otherwise."""
    if engine.name != "prefill":
        raise UsageError(f"the {engine.name} engine has no maps", "Use the prefill engine")
    if engine.dtype is torch.int8:  # type: ignore[attr-defined]
        raise UsageError("there are no maps in int8", "Use float32 or bfloat16")
    return engine


def rated(engine: Any, request: Request, with_slope: bool = False) -> tuple[Rating, maps.Asked, tuple[int, int]] | Failure:
    """The rating, as ``engine.rate`` gives it, the question as the model reads it, and the rows and columns of groups.

    Args:
        with_slope: keep the graph for gradients at the pixels, so that the tower need not run again.
    """
    answers: list[Any] = [None]
    rows = engine.rows([request], answers)
    if not rows:
        return answers[0]
    (row,), (question,) = rows, rows[0].questions
    try:
        patches, grid = engine.patches(row)
    except IMAGE_ERRORS as error:
        return Failure(unreadable(error))
    with torch.set_grad_enabled(with_slope):
        patches = patches.to(engine.device).requires_grad_(with_slope)
        picture = maps.Picture(patches, grid, engine.see([patches], [grid]))
    with torch.no_grad():
        ((_, logprobs),) = engine.answer(rows, picture.visual)
    rating = checked_rating(logprobs, notes=row.notes)
    if isinstance(rating, Failure):
        return rating
    ids = torch.tensor([*row.prefix, *question.suffix], device=engine.device)
    stride = engine.model.config.vit_config.hidden_stride
    _, down, across = grid[0].tolist()
    return rating, maps.asked(engine.model, picture, ids, question.word_ids), (down // stride, across // stride)
