"""Rates requests whose images may be behind URLs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from saiqa.engines import Engine, Failure, Rating, Request
from saiqa.files.places import Fetched, RemotePath

Answers = list[Rating | Failure]
_FETCHING_THREADS = 16  # a fetch waits for the network, not for a core


def rate(engine: Engine, requests: Sequence[Request]) -> Answers:
    """``engine.rate`` for requests whose images may be in an object store; those are first downloaded, in parallel."""
    remote: dict[Any, None] = {request.image: None for request in requests if isinstance(request.image, RemotePath)}
    if not remote:
        return engine.rate(requests)
    from concurrent.futures import ThreadPoolExecutor  # not at the top, like other imports here: --help must be fast

    with ThreadPoolExecutor(_FETCHING_THREADS) as threads:
        pictures: dict[Any, Any] = dict(zip(remote, threads.map(fetched, remote), strict=True))
    # By type, not by a lookup: a picture in memory is not hashable.
    images = [pictures[r.image] if isinstance(r.image, RemotePath) else r.image for r in requests]
    asked = [replace(r, image=i) for r, i in zip(requests, images, strict=True) if not isinstance(i, Failure)]
    rated = iter(engine.rate(asked))
    return [image if isinstance(image, Failure) else next(rated) for image in images]


def fetched(image: Any) -> Any:
    """The picture behind a URL, not decoded yet (engines do that in their reader threads), or a ``Failure``.

    Any other kind of image is returned unchanged.
    """
    if not isinstance(image, RemotePath):
        return image
    from saiqa.model.decoding import IMAGE_ERRORS, open_image, unreadable

    try:
        return open_image(Fetched(image))
    except IMAGE_ERRORS as error:
        return Failure(unreadable(error))
