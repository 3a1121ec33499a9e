"""The default engine: one prefill pass over image, prompt and answer prefix gives the five words' exact probabilities.

The answer up to the rating word is known beforehand, so nothing is generated. Requests about the same image share the pass
over it, and rows of several images are packed into one pass (``packed``) up to a token budget (``pass_budget``). Threads read
the next images while the model works.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import Qwen2TokenizerFast

from saiqa.engines import Failure, Rating, Request, checked_rating, describe_input
from saiqa.engines.loading import (
    describe_torch,
    file_of,
    identity_of,
    open_bundle,
    read_image,
    resolve_device,
    resolve_dtype,
    word_ids_after,
)
from saiqa.engines.pass_budget import READERS, free_bytes, is_out_of_memory, keep_freed_blocks, token_budget, working_dtype
from saiqa.model.decoding import IMAGE_ERRORS, open_image, size_of, unreadable
from saiqa.model.looks import looks_of
from saiqa.model.ovis2_5 import Ovis2_5, image_to_patches, image_token_ids, turn_text
from saiqa.model.packed import PackedReader, check_compiler, log_probabilities, pack
from saiqa.model.pixels import PixelBounds, shrink, visual_grid
from saiqa.prompts import system_prompt

LESS_MEMORY = "lower max_pixels, or use bfloat16"


@dataclass
class Question:
    """One request as tokens: the index of its answer, the tokens after the image, and the ids of the five words."""

    place: int
    suffix: list[int]
    word_ids: list[int]


@dataclass
class Row:
    """One image with all questions about it, and the notes from decoding it."""

    image: str | Path | io.BytesIO | Image.Image
    prefix: list[int] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prefix) + sum(len(question.suffix) for question in self.questions)


class PrefillEngine:
    """Rates with the native model, without generating.

    Args:
        model_path: a checkpoint folder in the released format.
        device: "auto" (CUDA if available), "cpu", "cuda", "cuda:1".
        dtype: "float32", "bfloat16", "int8" (the language model's linear layers in 8 bits, the rest in bfloat16), or "auto":
            bfloat16 on CUDA, and on a CPU with native bfloat16 if the weights are stored in it; otherwise float32.
        batch_size: at most this many images per pass. A pass is also limited to ``token_budget`` tokens, which is derived
            from the available memory and halved whenever memory runs out nevertheless.
        system: system prompt; None for the one that the checkpoint was trained with, "" for none.
        bounds: bounds on the pixels of an image; None for the checkpoint's.
        upright: turn images as their EXIF orientation says.
        compile: fuse the model's small operations with torch.compile; the first images take a minute longer.

    Raises:
        InputError: no such device, or the folder does not hold a complete Ovis2.5 checkpoint.
        Failed: ``compile`` is set but there is no working compiler.
    """

    name = "prefill"

    def __init__(
        self,
        model_path: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 8,
        system: str | None = None,
        bounds: PixelBounds | None = None,
        upright: bool = False,
        compile: bool = False,
        trust_remote_code: bool = False,
    ):
        if trust_remote_code:
            raise ValueError("the prefill engine runs the native model only; trust_remote_code needs the swift engine")
        if compile and dtype == "int8":
            raise ValueError("compile is for float32 and bfloat16, not for int8")
        chosen = resolve_device(device)
        system = system_prompt(model_path, system)
        _make_ready(chosen, compile)
        bounds = bounds or PixelBounds.of_checkpoint(model_path)
        self.dtype = resolve_dtype(dtype, chosen, model_path)
        model, tokenizer = open_bundle(model_path, chosen, self.dtype, bounds)
        self._hold(model, tokenizer, batch_size, system, bounds, upright, compile)

    @classmethod
    def of_model(
        cls,
        model: Ovis2_5,
        tokenizer: Qwen2TokenizerFast,
        *,
        batch_size: int = 8,
        system: str = "",
        bounds: PixelBounds | None = None,
        upright: bool = False,
        compile: bool = False,
    ) -> PrefillEngine:
        """An engine for a model already in memory, on its device and in its dtype; no checkpoint is read.

        The model's ``visual_tokenizer.preprocessing`` must be set. Raises ``Failed`` if ``compile`` is set but cannot work.
        """
        _make_ready(model.device, compile)
        engine = cls.__new__(cls)
        engine.dtype = model.dtype
        engine._hold(model.eval(), tokenizer, batch_size, system, bounds or PixelBounds.of(model.config), upright, compile)
        return engine

    def _hold(
        self,
        model: Ovis2_5,
        tokenizer: Qwen2TokenizerFast,
        batch_size: int,
        system: str,
        bounds: PixelBounds,
        upright: bool,
        compile: bool,
    ) -> None:
        self.model, self.tokenizer, self.device = model, tokenizer, model.device
        self.batch_size, self.system, self.bounds, self.upright, self.compile = batch_size, system, bounds, upright, compile
        self.preprocessing = model.visual_tokenizer.preprocessing
        working = working_dtype(self.dtype)
        self.token_budget = token_budget(model.config, working, self.device.type, free_bytes(self.device))
        self._read = PackedReader(model.llm, compile)
        if compile:
            model.visual_tokenizer.compile_blocks()
        self._words_after = functools.cache(functools.partial(word_ids_after, tokenizer))

    def describe(self) -> dict:
        return {
            "engine": self.name,
            **describe_torch(self.device, self.dtype),
            "compile": self.compile,
            **describe_input(self.system, self.bounds, self.preprocessing, self.upright),
        }

    def rate(self, requests: Sequence[Request]) -> list[Rating | Failure]:
        answers: list[Any] = [None] * len(requests)
        rows = self.rows(requests, answers)
        batches = self.batches(rows)
        with ThreadPoolExecutor(max_workers=min(READERS, os.cpu_count() or 1)) as readers, torch.inference_mode():
            for batch in _ahead(readers, batches, self.patches):
                self._rate_batch(batch, answers)
        return answers

    # --- from requests to rows -------------------------------------------------------------------------------------

    def rows(self, requests: Sequence[Request], answers: list | None = None) -> list[Row]:
        """One row per image. A request whose image cannot be opened, or whose rating words are not single tokens after its
        answer prefix, is in no row; its ``Failure`` goes to ``answers``."""
        rows: dict[tuple, Row] = {}
        sizes: dict[object, tuple[int, int] | Failure] = {}
        for place, request in enumerate(requests):
            image = request.image
            identity = identity_of(image)
            if identity not in sizes:
                sizes[identity] = _image_size(image, self.upright)
            size = sizes[identity]
            if isinstance(size, Failure):
                if answers is not None:
                    answers[place] = size
                continue
            try:
                word_ids = self._words_after(request.answer_prefix)
            except ValueError as error:
                if answers is not None:
                    answers[place] = Failure(str(error))
                continue
            before, after = turn_text(request.prompt, self.system)
            row = rows.setdefault((identity, before), Row(image))
            row.prefix = row.prefix or [*self._encode(before), *image_token_ids(self._groups(*size))]
            suffix = self._encode(after) + self._encode(request.answer_prefix)
            row.questions.append(Question(place, suffix, word_ids))
        return list(rows.values())

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _groups(self, height: int, width: int) -> int:
        vit = self.model.config.vit_config
        rows, columns = visual_grid(height, width, self.bounds, vit.patch_size, vit.hidden_stride)
        return rows * columns // vit.hidden_stride**2

    def patches(self, row: Row) -> tuple[torch.Tensor, torch.Tensor]:
        """The row's image as ``image_to_patches`` cuts it. Raises one of ``IMAGE_ERRORS`` if it cannot be read."""
        vit = self.model.config.vit_config
        decoded = read_image(row.image, self.upright)
        row.notes = decoded.notes
        image = shrink(decoded.image, self.bounds)
        return image_to_patches(image, self.bounds, self.preprocessing, vit.patch_size, vit.hidden_stride)

    def batches(self, rows: list[Row]) -> list[list[Row]]:
        """The rows in passes of at most ``batch_size`` images and ``token_budget`` tokens; a single image may have more tokens.

        Images of the same size are adjacent, so that the tower can batch them.
        """
        batches: list[list[Row]] = []
        tokens = 0
        for row in sorted(rows, key=len, reverse=True):
            tokens += len(row)
            if batches and len(batches[-1]) < self.batch_size and tokens <= self.token_budget:
                batches[-1].append(row)
            else:
                batches.append([row])
                tokens = len(row)
        return batches

    # --- the pass ----------------------------------------------------------------------------------------------------

    def _rate_batch(self, batch: list[tuple[Row, Future]], answers: list) -> None:
        rows, patches, grids = [], [], []
        for row, future in batch:
            try:
                pixel_values, grid = future.result()
            except (*IMAGE_ERRORS, MemoryError) as error:
                for question in row.questions:
                    answers[question.place] = Failure(unreadable(error))
                continue
            rows.append(row)
            patches.append(pixel_values)
            grids.append(grid)
        self._rate_rows(rows, patches, grids, answers)

    def _rate_rows(self, rows: list[Row], patches: list, grids: list, answers: list) -> None:
        """Answer every question of the rows; halve the pass as long as memory runs out."""
        if not rows:
            return
        tokens = sum(map(len, rows))
        if len(rows) == 1 or tokens <= self.token_budget:
            try:
                for place, rating in self._rated(rows, patches, grids):
                    answers[place] = rating
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Only here, after the handler, does nothing hold the tensors of the pass any more.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.token_budget = min(self.token_budget, max(1, tokens // 2))
        if len(rows) == 1:
            for question in rows[0].questions:
                answers[question.place] = Failure(f"out of memory for an image of {tokens} tokens; {LESS_MEMORY}")
            return
        half = (len(rows) + 1) // 2
        self._rate_rows(rows[:half], patches[:half], grids[:half], answers)
        self._rate_rows(rows[half:], patches[half:], grids[half:], answers)

    def _rated(self, rows: list[Row], patches: list, grids: list) -> list[tuple[int, Rating | Failure]]:
        """As ``forward``, as ratings with the pictures' notes and features."""
        visual = self.see(patches, grids)
        looks = looks_of(visual, [int(grid.prod()) // self.model.config.vit_config.hidden_stride**2 for grid in grids])
        logprobs = self.answer(rows, visual)
        told = zip(rows, map(tuple, looks.tolist()), strict=True)  # after the pass, which waits for the GPU anyway
        seen = {question.place: (row.notes, look) for row, look in told for question in row.questions}
        return [(place, checked_rating(values, None, *seen[place])) for place, values in logprobs]

    def forward(self, rows: list[Row], patches: list, grids: list) -> list[tuple[int, list[float]]]:
        """One pass over rows with these patches: (place, five log-probabilities) for every question."""
        return self.answer(rows, self.see(patches, grids))

    def see(self, patches: list, grids: list) -> torch.Tensor:
        """Visual embeddings [groups, hidden] of the images with these patches, concatenated."""
        return self.model.embed_images(torch.cat(patches).to(self.device), torch.cat(grids))

    def answer(self, rows: list[Row], visual: torch.Tensor) -> list[tuple[int, list[float]]]:
        """(place, five log-probabilities) for every question of the rows, given their images' visual embeddings."""
        questions = [question for row in rows for question in row.questions]
        packed = pack([(row.prefix, [question.suffix for question in row.questions]) for row in rows], self.device)
        hidden = self._read(self.model.embed(packed.ids, visual), packed)
        logprobs = log_probabilities(self.model.llm, hidden, [question.word_ids for question in questions])
        return list(zip((question.place for question in questions), logprobs, strict=True))


def _make_ready(device: torch.device, compile: bool) -> None:
    """Preparations before a model is loaded. Raises ``Failed`` if ``compile`` is set but cannot work."""
    if compile:
        check_compiler(device)
    if device.type == "cpu":
        keep_freed_blocks()


def _image_size(image: str | Path | io.BytesIO | Image.Image, upright: bool) -> tuple[int, int] | Failure:
    """Height and width from the file's header."""
    if isinstance(image, Image.Image):
        return size_of(image, upright)
    try:
        with open_image(file_of(image)) as opened:
            return size_of(opened, upright)
    except IMAGE_ERRORS as error:
        return Failure(unreadable(error))


def _ahead(readers: Executor, batches: list[list[Row]], read: Callable[[Row], object]) -> Iterator[list[tuple[Row, Future]]]:
    """The batches with their images being read; those of the next batch are read while the model works on the current one."""
    waiting = None
    for batch in batches:
        started = [(row, readers.submit(read, row)) for row in batch]
        if waiting is not None:
            yield waiting
        waiting = started
    if waiting is not None:
        yield waiting
