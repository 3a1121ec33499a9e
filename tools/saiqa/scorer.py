"""Scores for any picture, from Python: ``Scorer(model_path).score(images)``."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, overload

from saiqa import facts
from saiqa.calibration import UNLIKE, Calibration, prompt_digest
from saiqa.calibration import read as read_calibration
from saiqa.engines import DTYPES, ENGINES, Engine, Failure, Rating, Request
from saiqa.errors import InputError
from saiqa.files import checkpoint_folders, folders, hub_checkpoints, question_files
from saiqa.files.places import RemotePath
from saiqa.image_map import DEFAULTS, METHODS, ImageMap
from saiqa.image_score import ImageScore, image_score
from saiqa.overall import overall_score, read_weights
from saiqa.progress import progress_iter
from saiqa.run.given_images import is_one, name_of, request_image
from saiqa.run.rate import fetched
from saiqa.run.ray_workers import Workers, rate_batches
from saiqa.run.spec import Model
from saiqa.run.views import CHOICES as VIEWS
from saiqa.scoring import score_of

if TYPE_CHECKING:
    from pathlib import Path

    from pandas import DataFrame

    from saiqa.files.places import Place
    from saiqa.run.given_images import ImageLike, OneImage

DEMO_CAVEAT = "the demo's model knows rendered rooms only and is no judge of real ones"

# Images passed to the engine at a time: enough for full batches of similar sizes, few enough to hold them decoded.
CHUNK_IMAGES = 64


class Scorer:
    """A checkpoint that scores pictures of rooms. Finds its files immediately; loads the model when first needed.

    Args:
        model_path: a checkpoint folder or, if there is no such path, ``owner/name`` on the Hugging Face Hub: downloaded at
            first use, without executable files. The repository's ``SA-IQA-model/sa-iqa-prompt{N}`` if None.
        demo: use the small checkpoint and data in ``demo/``, which know only rendered rooms.
        data_root: the benchmark folder, or its URL, whose annotations hold the sentences the checkpoint was trained on; the
            repository's ``SA-BENCH`` if None. If it has no annotations, this project's own sentences are used.
        engine: ``prefill``, ``swift`` or ``vllm``.
        device: ``auto`` (CUDA if available), ``cpu``, ``cuda``, ``cuda:1``.
        dtype: ``float32``, ``bfloat16``, ``int8`` (prefill only: the language model in 8 bits, the rest in bfloat16), or
            ``auto``: bfloat16 on CUDA, and on a CPU with native bfloat16 if the weights are stored in it; otherwise float32.
        batch_size: at most this many images per pass.
        prompt_version: 1 to 4; the released checkpoint was tuned on 4.
        weights: dimension -> weight in the overall score, or a file written by ``fuse_scores.py fit``; equal if None.
        system: the system prompt; if None, the one the checkpoint was trained with; if empty, none.
        min_pixels, max_pixels: bounds on the size of an image; if None, the MIN_PIXELS and MAX_PIXELS environment variables,
            or else the checkpoint's bounds.
        upright: turn photographs as their EXIF orientation says. The release does not.
        compile: fuse the model's small operations with torch.compile (prefill and vllm).
        trust_remote_code: run the bundle's own Python files (swift only).
        calibration: a file written by ``calibrate.py`` for this checkpoint; every score then has an interval.
        views: how many views of a picture are rated, 1, 2 or 4: as it is, mirrored, slightly zoomed in, and both; the word
            probabilities are averaged.
        base_url: the address of a vLLM server that runs this checkpoint, e.g. ``http://127.0.0.1:8000/v1`` (vllm only).

    Attributes:
        dimensions: the dimensions that can be asked for.
        demo: whether the model is the demo's.
        model: the checkpoint and how it is run.
        model_name: the last part of the model path.
        prompt_source: where the sentences come from, for display.

    Raises:
        Failed: the Hub cannot be reached.
        InputError: there is no checkpoint or ``data_root``, or one of the checkpoint's files, the annotations or the weights
            file is broken.
        ValueError: an argument has a value that is not listed above.
    """

    dimensions: tuple[str, ...] = tuple(facts.DIMENSIONS)
    _engine: Engine | None = None
    _process = 0  # the process that loaded it

    def __init__(
        self,
        model_path: str | os.PathLike | None = None,
        *,
        demo: bool = False,
        data_root: str | os.PathLike | None = None,
        engine: str = "prefill",
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 8,
        prompt_version: int = facts.RECOMMENDED,
        weights: Mapping[str, float] | str | os.PathLike | None = None,
        system: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        upright: bool = True,
        compile: bool = False,
        trust_remote_code: bool = False,
        base_url: str | None = None,
        views: int = 1,
        calibration: str | os.PathLike | None = None,
    ):
        _check(engine, dtype, prompt_version, base_url, views)
        roots = folders.roots(demo)
        path = given_checkpoint(model_path, prompt_version) if model_path else roots.models / facts.tuned_model(prompt_version)
        self.demo = demo and model_path is None
        self.model_name = checkpoint_folders.model_name(path)
        checkpoint = checkpoint_folders.find_checkpoint(path, note=lambda line: None)
        shown: dict[str, Any] = {"system": system, "min_pixels": min_pixels, "max_pixels": max_pixels, "upright": upright}
        run: dict[str, Any] = {"device": device, "dtype": dtype, "batch_size": batch_size, "compile": compile}
        run |= {"trust_remote_code": trust_remote_code, "base_url": base_url, "views": views}
        self.model = Model.of(checkpoint, engine=engine, **shown, **run)
        self.sentences = question_files.all_sentences(given_data_root(data_root) if data_root else roots.data, prompt_version)
        self.prompt_source = question_files.prompt_source(self.sentences)
        self.weights = read_weights(folders.input_path(weights)) if isinstance(weights, str | os.PathLike) else weights
        self.calibration = self._calibration(folders.input_path(calibration)) if calibration else None

    def _calibration(self, path: Path) -> Calibration:
        """The calibration of this checkpoint's scores. Raises ``InputError`` if it is for another checkpoint."""
        found = read_calibration(path)
        asked = {name: sentences for name, sentences in self.sentences.items() if name in found.dimensions}
        prompts = {name: prompt_digest(one.query, one.before) for name, one in asked.items()}
        found.check(checkpoint_folders.fingerprint(self.model.checkpoint), self.model.engine_name, prompts)
        return found

    @property
    def engine(self) -> Engine:
        """The model, loaded at first use. Raises ``UserError`` if it cannot be loaded.

        Raises:
            RuntimeError: it was loaded before this process was forked. Its threads do not exist in the new process, which
                would wait for them forever.
        """
        if self._engine is None:
            self._engine, self._process = self.model.load(), os.getpid()
        if self._process != os.getpid():
            raise RuntimeError(
                "this Scorer was loaded before the process was forked: start processes with "
                'multiprocessing.get_context("spawn"), or make the Scorer in the new process'
            )
        return self._engine

    def __getstate__(self) -> dict:
        """Everything but the loaded model; a process that unpickles this loads its own."""
        return {**vars(self), "_engine": None}

    @overload
    def score(  # type: ignore[overload-overlap]
        self, images: OneImage, dimensions: Sequence[str] | None = None, progress: bool = False
    ) -> ImageScore: ...

    @overload
    def score(
        self, images: Iterable[ImageLike], dimensions: Sequence[str] | None = None, progress: bool = False
    ) -> list[ImageScore]: ...

    def score(
        self, images: OneImage | Iterable[ImageLike], dimensions: Sequence[str] | None = None, progress: bool = False
    ) -> ImageScore | list[ImageScore]:
        """Score one image or many.

        Args:
            images: one or several paths, URLs, PIL images, bytes of image files, open files, arrays [height, width, 3] or
                [height, width] (grey), or tensors [3, height, width]; uint8, or float from 0 to 1.
            dimensions: which of the four; all if None.
            progress: show progress on stderr.

        Returns:
            For one image its result; for several a list with one result per image, in order. An image that cannot be read has
            an ``error`` and no scores.

        Raises:
            TypeError: something that is not an image.
            ValueError: an array of another shape or type, an unknown dimension, or weights that do not cover the dimensions.
            InputError: a URL whose protocol is not supported.
        """
        if is_one(images):
            return next(self.stream([images], dimensions))
        results = self.stream(cast("Iterable[ImageLike]", images), dimensions)
        return list(progress_iter(results, len(images), "score") if progress and isinstance(images, Sized) else results)

    __call__ = score

    def explain(self, image: OneImage, dimension: str, method: str | None = None) -> ImageMap:
        """Where in an image its score comes from (prefill engine).

        Raises as ``score`` does, and ``InputError`` if the image cannot be read or rated.

        Args:
            method: one of ``image_map.METHODS``; by default the dimension's in ``image_map.DEFAULTS``.
        """
        from saiqa.engines.region_maps import region_map

        if self.model.views > 1:
            raise ValueError("maps need a single view: make a Scorer with views=1")
        _check_choice("dimension", dimension, self.dimensions)
        method = DEFAULTS[dimension] if method is None else method
        _check_choice("method", method, METHODS)
        name, found = name_of(image) or "image 1", fetched(request_image(image, True))
        for request in self._requests([found], [dimension]):  # no request if fetching failed
            found = region_map(self.engine, request, method)
        if isinstance(found, Failure):
            raise InputError(f"{name}: {found.reason}")
        return ImageMap(name, dimension, score_of(found[0].logprobs), found[1], method)

    def frame(
        self, images: OneImage | Iterable[ImageLike], dimensions: Sequence[str] | None = None, progress: bool = False
    ) -> DataFrame:
        """As ``score``, as a pandas DataFrame: one row per image, the columns of ``ImageScore.to_dict`` minus probabilities."""
        import pandas

        columns = ["image", *self.asked(dimensions), "overall"]
        several: Iterable[ImageLike] = [images] if is_one(images) else images  # type: ignore[assignment]
        rows = [result.to_dict() for result in self.score(several, dimensions, progress)]
        bounds = [name for name in (rows[0] if rows else ()) if name.endswith(("_low", "_high"))]
        return pandas.DataFrame(rows, columns=[*columns, *bounds, "error"])

    def stream(
        self, images: Iterable[ImageLike], dimensions: Sequence[str] | None = None, workers: Workers | None = None
    ) -> Iterator[ImageScore]:
        """As ``score``, for any number of images. Reads ahead by ``CHUNK_IMAGES``, or by a few such chunks per worker.

        An image from an iterator is taken as it is when the iterator yields it, so the same array, picture or file may be
        refilled for the next. Files in a sequence are read when their turn comes.

        Args:
            workers: engines of this checkpoint to use instead of this process's own; for paths and URLs only.
        """
        if is_one(images):
            raise TypeError("give a list of images, not one image; score(image) scores one")
        asked = self.asked(dimensions)
        at_once = workers is None and not isinstance(images, Sequence)
        numbered = ((number, image, request_image(image, at_once)) for number, image in enumerate(images, 1))
        chunks = iter(lambda: list(itertools.islice(numbered, CHUNK_IMAGES)), [])
        return itertools.chain.from_iterable(self._rate(chunks, asked, workers))

    def asked(self, dimensions: Sequence[str] | None) -> tuple[str, ...]:
        """The dimensions in their usual order. Raises ``ValueError`` for unknown ones, or if the weights do not cover them."""
        if isinstance(dimensions, str):
            raise ValueError(f"dimensions must be a list out of {', '.join(self.dimensions)}, not {dimensions!r}")
        for name in dimensions or ():
            _check_choice("dimension", name, self.dimensions)
        asked = tuple(name for name in self.dimensions if not dimensions or name in dimensions)
        overall_score(dict.fromkeys(asked, 1.0), self.weights)
        return asked

    def _rate(self, chunks: Iterable[list], asked: tuple[str, ...], workers: Workers | None) -> Iterator[list[ImageScore]]:
        under_way: deque[tuple[list, list]] = deque()

        def requests() -> Iterator[list[Request]]:
            for chunk in chunks:
                images = [image for _, _, image in chunk]
                under_way.append(([(number, given) for number, given, _ in chunk], images))
                yield self._requests(images, asked)

        for answers in rate_batches(workers or self.engine, requests()):
            chunk, images = under_way.popleft()
            yield self._results(chunk, images, asked, iter(answers))

    def _requests(self, images: Sequence, asked: Sequence[str]) -> list[Request]:
        return [
            Request(image, self.sentences[dimension].query, self.sentences[dimension].before)
            for image in images
            if not isinstance(image, Failure)
            for dimension in asked
        ]

    def _results(
        self, chunk: list[tuple[int, ImageLike]], images: Sequence, asked: Sequence[str], ratings: Iterator[Rating | Failure]
    ) -> list[ImageScore]:
        names = [name_of(image) or f"image {n}" for n, image in chunk]
        results = []
        for name, image in zip(names, images, strict=True):
            failed = isinstance(image, Failure)
            answers = {dimension: image if failed else next(ratings) for dimension in asked}
            looks = (answer.look for answer in answers.values() if isinstance(answer, Rating))
            results.append(self._calibrated(image_score(name, answers, self.weights), next(looks, None)))
        return results

    def _calibrated(self, result: ImageScore, look: Sequence[float] | None) -> ImageScore:
        """A result with the calibration's intervals and notes added."""
        if self.calibration is None:
            return result
        unlike = look is not None and self.calibration.familiar is not None and not self.calibration.familiar.knows(look)
        intervals = self.calibration.intervals(result.scores, result.probabilities)
        return replace(result, intervals=intervals, notes=(*result.notes, *([UNLIKE] if unlike else [])))


def _check(engine: str, dtype: str, prompt_version: int, base_url: str | None, views: int) -> None:
    _check_choice("engine", engine, ENGINES)
    _check_choice("dtype", dtype, DTYPES)
    _check_choice("prompt_version", prompt_version, facts.PROMPT_VERSIONS)
    _check_choice("views", views, VIEWS)
    if base_url and engine != "vllm":
        raise ValueError('base_url is for engine="vllm"')


def given_checkpoint(model_path: str | os.PathLike, version: int) -> Path:
    """The checkpoint that the user names: a folder, which need not exist, or one on the Hub, which is then downloaded."""
    if hub_checkpoints.is_id(model_path):
        return hub_checkpoints.fetch(os.fspath(model_path), version)
    return folders.input_path(model_path)


def given_data_root(text: str | os.PathLike) -> Place:
    """The benchmark folder or URL that the user names. Raises ``InputError`` if the folder does not exist."""
    data = folders.data_path(text)
    if not isinstance(data, RemotePath) and not data.is_dir():
        raise folders.missing_data(f"the data root {folders.shown(data)} is not there")
    return data


def _check_choice(kind: str, value: object, choices: Iterable) -> None:
    if value not in choices:
        raise ValueError(f"{kind} must be one of {', '.join(map(str, choices))}, not {value!r}")
