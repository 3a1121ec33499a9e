"""The HTTP side of the service: routes, access, and status codes.

    POST /score           images in, scores out (docs/service.md)
    POST /explain         an image and a dimension in, a map of what lowers its score out
    POST /v1/decisions    the same model through the interface of decision models
    GET /health           what is served, and the limits
    GET /metrics          for Prometheus
    GET /                 the page

A picture that cannot be read has an ``error`` in a 200 answer. A whole request is refused with 400 if it is not HTTP, 401
without the token, 403 or 421 if another site caused it, 408 if the body arrives too slowly, 413 beyond a limit, 422 if the body
is not understood, 501 for maps if the engine has none, 503 with Retry-After if the queue is full, 500 for unexpected errors.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request, Response, params
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect

from saiqa import facts
from saiqa.calibration import CONFIDENCE
from saiqa.image_score import ImageScore, verdict
from saiqa.pictures.results import Layout, line_of
from saiqa.scorer import DEMO_CAVEAT, Scorer
from saiqa.service import decisions, picture_maps
from saiqa.service.batching import Batcher, Closed, QueueFull, ScoringFailed
from saiqa.service.gate import Gate
from saiqa.service.intake import TEXT_FIELDS, Limits, Picture, Question, Refused, check_length, read_question
from saiqa.service.messages import Answer, ImageResult, readable, request_body
from saiqa.service.metrics import Measured, Metrics
from saiqa.service.site import Site, examples

# Batches larger than a model pass let the engine read the next pass's images during the current one.
_PASSES_A_BATCH = 4
# Memory limit for the bodies of all requests together, in bodies of the maximum size.
_BODIES = 8
_CLOSING_SECONDS = 1.5  # for the model's current batch; uvicorn has already let requests end
Read = TypeVar("Read")
_CLIENT_LEFT = 499  # nginx's code for it; nobody reads the answer


@dataclass(frozen=True)
class Settings:
    """How the service behaves.

    Attributes:
        limits: limits of one request.
        max_queue: the most images that may be queued or in progress.
        wait_seconds: how long an incomplete batch waits for more images.
        token: what clients must send as ``Authorization: Bearer ...``; None lets everybody in.
        frames: origins whose pages may show the page in a frame.
        hosts: names under which the service is reached, besides ``localhost`` and IP addresses.
        request_seconds: how long the body of a request may take to arrive.
        confidence: confidence of the intervals, if the scorer has a calibration.
        max_width: a score whose interval is wider, in points, is not returned.
    """

    limits: Limits
    max_queue: int
    wait_seconds: float
    token: str | None = None
    hosts: tuple[str, ...] = ()
    request_seconds: float = 60
    frames: tuple[str, ...] = ()
    confidence: float = CONFIDENCE
    max_width: float | None = None


class Service:
    """One scorer behind a queue, and what is known about it."""

    def __init__(self, scorer: Scorer, settings: Settings):
        self.scorer, self.settings = scorer, settings
        self.metrics = Metrics(lambda: self.batcher.pending)
        self.batcher = Batcher(
            self._answered,
            max_queue=settings.max_queue,
            max_batch=_PASSES_A_BATCH * scorer.model.batch_size,
            wait_seconds=settings.wait_seconds,
            pixels=lambda picture: picture.pixels,
            observe=self.metrics.batch,
        )
        self.maps = picture_maps.offered(scorer)
        self.examples = examples()
        self.caveat = DEMO_CAVEAT if scorer.demo else None
        sure: dict[str, Any] = {"calibration": scorer.calibration, "confidence": settings.confidence}
        self.layout = Layout(scorer.dimensions, True, scorer.weights, **sure, max_width=settings.max_width)
        self._bytes_held = 0

    async def score(self, request: Request) -> Answer:
        """Answer one request. Raises ``Refused``, ``QueueFull``, ``Closed`` or ``ScoringFailed``."""
        async with self._read(request, read_question) as question:
            return await self._rate(question)

    def _answered(self, pictures: list[Picture], asked: Any) -> list[Any]:
        """The answer for each picture; called by the model's thread."""
        if isinstance(asked, picture_maps.Where):
            return [picture_maps.drawn(self.scorer, picture, asked) for picture in pictures]
        return self.scorer.score([picture.image for picture in pictures if picture.image is not None], asked)

    async def explain(self, request: Request) -> picture_maps.MapAnswer:
        """As ``score``, for the map of one picture."""
        async with self._read(request, functools.partial(picture_maps.read, here=bool(self.maps))) as (picture, where):
            images = [] if picture.image is None else [picture]
            [found] = await asyncio.wrap_future(self.batcher.submit(images, where)) or [picture.error]
        return picture_maps.answer(self.scorer, picture, where, found, self.caveat)

    async def decide(self, request: Request) -> decisions.Decision:
        """As ``score``, for typed questions about one picture."""
        async with self._read(request, decisions.read_decision) as asked:
            decisions.check_model(asked, self.scorer.model_name)
            [score] = await asyncio.wrap_future(self.batcher.submit([asked.picture], asked.dimensions))
        self.metrics.images(score.error is None, score.error is not None)
        unsure = self.layout.judged(line_of(score)).unsure
        return decisions.decision(asked, score, unsure, self.scorer.model_name, self.caveat)

    @asynccontextmanager
    async def _read(self, request: Request, read: Callable[..., Awaitable[Read]]) -> AsyncIterator[Read]:
        """The result of ``read`` for a request; the body's bytes count as held until the block ends."""
        limits = self.settings.limits
        check_length(request, limits)
        self.batcher.check_room()  # before reading a body in vain
        held = 0

        def hold(size_bytes: int) -> None:
            nonlocal held
            if self._bytes_held + size_bytes > _BODIES * limits.request_bytes:
                raise QueueFull(retry_after_seconds=1)
            held += size_bytes
            self._bytes_held += size_bytes

        try:
            try:
                async with asyncio.timeout(self.settings.request_seconds):
                    question = await read(request, limits, hold)
            except TimeoutError:
                seconds = f"{self.settings.request_seconds:g} s"
                raise Refused(HTTPStatus.REQUEST_TIMEOUT, f"The body of a request must arrive within {seconds}") from None
            yield question
        finally:
            self._bytes_held -= held

    async def _rate(self, question: Question) -> Answer:
        images = [picture for picture in question.pictures if picture.image is not None]
        rated: list[ImageScore] = await asyncio.wrap_future(self.batcher.submit(images, question.dimensions))
        scores = iter(rated)
        results = [self._result(picture, None if picture.image is None else next(scores)) for picture in question.pictures]
        failed = sum(result.error is not None for result in results)
        self.metrics.images(len(results) - failed, failed)
        return Answer(model=self.scorer.model_name, caveat=self.caveat, results=results)

    def _result(self, picture: Picture, score: ImageScore | None) -> ImageResult:
        if score is None:
            return ImageResult(name=picture.name, error=picture.error)
        judged = self.layout.judged(line_of(score))
        unsure = judged.unsure
        return ImageResult(
            name=picture.name,
            scores=judged.scores,
            probabilities=score.probabilities,
            overall=judged.overall,
            error=score.error,
            notes=list(score.notes),
            intervals=judged.intervals,
            unsure=unsure,
            verdict=f"not sure of {', '.join(unsure)}" if unsure else verdict(judged.scores),
        )

    def health(self) -> dict:
        """What is served, and the limits of a request."""
        limits = self.settings.limits
        return {
            "status": "ok" if self.batcher.alive else "stopped",
            "model": self.scorer.model_name,
            "caveat": self.caveat,
            "engine": self.scorer.model.engine,
            "dimensions": list(facts.DIMENSIONS),
            "words": facts.WORD_VALUES,
            "meanings": facts.MEANINGS,
            "hints": facts.HINTS,
            "examples": list(self.examples),
            "maps": self.maps,
            "confidence": self.layout.confidence if self.layout.calibration else None,
            "max_width": self.layout.max_width,
            "token_needed": self.settings.token is not None,
            "pending_images": self.batcher.pending,
            "max_queue": self.settings.max_queue,
            "max_images": limits.images,
            "max_request_bytes": limits.request_bytes,
            "max_pixels": limits.pixels,
        }


def create_app(scorer: Scorer, settings: Settings) -> Gate:
    """The ASGI application around one scorer, whose thread it starts; the application's shutdown ends it."""
    service = Service(scorer, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.batcher.close, _CLOSING_SECONDS)

    # No /docs: FastAPI's loads its scripts from a content delivery network.
    app = FastAPI(title="SA-IQA", lifespan=lifespan, docs_url=None, redoc_url=None)
    guarded = [Depends(_require(settings.token))]
    _add_questions(app, service, guarded)
    _add_reports(app, service, guarded)
    _add_errors(app)
    app.add_middleware(Measured, metrics=service.metrics, paths=("/score", picture_maps.PATH, decisions.PATH))
    app.mount("/", Site(settings.frames, service.examples))
    return Gate(app, settings.hosts)


def _add_questions(app: FastAPI, service: Service, guarded: Sequence[params.Depends]) -> None:
    """The routes that take pictures."""
    described: dict[str, Any] = {"openapi_extra": {"requestBody": request_body(TEXT_FIELDS)}, "responses": _REFUSALS}

    @app.post("/score", response_model=Answer, dependencies=guarded, **described)
    async def score(request: Request) -> Answer:
        return await service.score(request)

    refusals: dict[str, Any] = {**described, "responses": {**_REFUSALS, 501: _DETAIL}}

    @app.post(picture_maps.PATH, response_model=picture_maps.MapAnswer, dependencies=guarded, **refusals)
    async def explain(request: Request) -> picture_maps.MapAnswer:
        return await service.explain(request)

    typed: dict[str, Any] = {
        "openapi_extra": {"requestBody": decisions.request_body()},
        "responses": {**_REFUSALS, 404: _DETAIL},
    }

    # exclude_unset: a caveat is not part of that interface, so it is left out unless there is one
    @app.post(
        decisions.PATH, response_model=decisions.Decision, response_model_exclude_unset=True, dependencies=guarded, **typed
    )
    async def decide(request: Request) -> decisions.Decision:
        return await service.decide(request)

    # otherwise the handler of the page's files would answer "Not Found"
    @app.api_route(decisions.PATH, methods=_NO_POST, include_in_schema=False)
    @app.api_route(picture_maps.PATH, methods=_NO_POST, include_in_schema=False)
    @app.api_route("/score", methods=_NO_POST, include_in_schema=False)
    async def only_post() -> JSONResponse:
        return JSONResponse({"detail": "Send pictures with POST"}, 405, {"Allow": "POST"})


def _add_reports(app: FastAPI, service: Service, guarded: Sequence[params.Depends]) -> None:
    """The routes that tell how the service is."""

    @app.head("/health", include_in_schema=False)
    @app.get("/health", responses={503: _DETAIL})
    async def health() -> JSONResponse:
        return JSONResponse(service.health(), 200 if service.batcher.alive else 503)

    @app.head("/metrics", dependencies=guarded, include_in_schema=False)
    @app.get("/metrics", dependencies=guarded, response_class=PlainTextResponse, responses={401: _DETAIL})
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _require(token: str | None) -> Callable[[Request], Awaitable[None]]:
    """A dependency that admits requests with the token."""

    async def check(request: Request) -> None:
        if token is None:
            return
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(sent.strip().encode(), token.encode())  # constant time
        if scheme.lower() != "bearer" or not same:
            raise HTTPException(401, "Send the header `Authorization: Bearer TOKEN`", {"WWW-Authenticate": "Bearer"})

    return check


def _add_errors(app: FastAPI) -> None:
    def answer(request: Request, status: int, detail: str, **headers: str) -> JSONResponse:
        body: dict[str, Any] = {"detail": detail}
        if request.url.path == decisions.PATH:  # whose clients look for the reason here
            kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
            body = {"error": {"message": detail, "type": kind, "param": None, "code": None}}
        return JSONResponse(body, status, {name.replace("_", "-"): text for name, text in headers.items()})

    @app.exception_handler(HTTPException)
    async def stopped(request: Request, error: HTTPException) -> JSONResponse:
        return answer(request, error.status_code, error.detail, **(error.headers or {}))

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        # The rest of the body is discarded for up to ``gate.HEADER_SECONDS``: a client that is disconnected while sending would
        # not see the answer.
        ends = {"Connection": "close"} if error.status == HTTPStatus.REQUEST_TIMEOUT else {}
        return answer(request, error.status, readable(error.detail), **ends)

    @app.exception_handler(QueueFull)
    async def full(request: Request, error: QueueFull) -> JSONResponse:
        return answer(request, 503, "The queue is full. Try again later", Retry_After=str(error.retry_after_seconds))

    @app.exception_handler(Closed)
    async def closed(request: Request, error: Closed) -> JSONResponse:
        return answer(request, 503, "The service is being shut down", Retry_After="10")

    @app.exception_handler(ScoringFailed)
    async def failed(request: Request, error: ScoringFailed) -> JSONResponse:
        return answer(request, 500, "The images could not be scored; the service's log says why")

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=_CLIENT_LEFT)


_NO_POST = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"]
_DETAIL = {"description": "Why not", "content": {"application/json": {"schema": {"type": "object"}}}}
_REFUSALS = dict.fromkeys((400, 401, 403, 408, 413, 421, 422, 500, 503), _DETAIL)
