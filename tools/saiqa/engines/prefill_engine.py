"""The default engine: one pass over image, prompt and answer prefix gives the five words' exact probabilities.

The answer up to the rating word is known beforehand, so nothing is generated. Requests about the same image share the
pass over it: a row of the batch is

    [system and user turn up to the image's end] [question and answer prefix 1] [question and answer prefix 2] ...

where each suffix sees the shared part and itself, never another suffix, and counts its positions from the end of the shared
part. Logits are computed at the one position of each suffix where the rating word would follow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from prompt_configs import WORDS
from saiqa.engines import Failure, Rating, Request
from saiqa.engines.loading import IMAGE_ERRORS, describe_torch, load_image, open_bundle, resolve_device, resolve_dtype
from saiqa.ovis2_5 import (
    Ovis2_5,
    PixelBounds,
    image_to_patches,
    image_token_ids,
    shrink,
    turn_text,
    visual_grid,
)


@dataclass
class Question:
    """One request as tokens: where its answer goes, what follows the image, and the ids of the five words."""

    place: int
    suffix: list[int]
    word_ids: list[int]


@dataclass
class Row:
    """One image with all the questions about it."""

    image: str | Path | Image.Image
    prefix: list[int] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.prefix) + sum(len(question.suffix) for question in self.questions)


class PrefillEngine:
    """Rates with the native model, without generating.

    Args:
        model_path: a checkpoint folder in the released format.
        device: "auto" (CUDA when there is one), "cpu", "cuda", "cuda:1".
        dtype: "auto" (bfloat16 on CUDA, float32 on CPU), "float32", "bfloat16".
        batch_size: images a model pass; halved, not dropped, when the device runs out of memory.
        system: system prompt, none by default.
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
        trust_remote_code: bool = False,
    ):
        if trust_remote_code:
            raise ValueError("the prefill engine runs the native model only; --trust_remote_code needs --engine swift")
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        self.batch_size = batch_size
        self.system = system
        self.model: Ovis2_5
        self.model, self.tokenizer = open_bundle(model_path, self.device, self.dtype)
        self.bounds = PixelBounds.of(self.model.config)
        self._word_ids: dict[str, list[int]] = {}

    def describe(self) -> dict:
        return {
            "engine": self.name,
            **describe_torch(self.device, self.dtype),
            "min_pixels": self.bounds.min_pixels,
            "max_pixels": self.bounds.max_pixels,
        }

    def rate(self, requests: Sequence[Request]) -> list[Rating | Failure]:
        answers: list[Rating | Failure | None] = [None] * len(requests)
        rows = self._rows(requests, answers)
        batches = _batches(rows, self.batch_size)
        with ThreadPoolExecutor(max_workers=max(1, os.cpu_count() or 1)) as readers, torch.inference_mode():
            for batch in _ahead(readers, batches, self._patches):
                self._rate_batch(batch, answers)
        return answers

    # --- from requests to rows -------------------------------------------------------------------------------------

    def _rows(self, requests: Sequence[Request], answers: list) -> list[Row]:
        """One row an image; a request whose image cannot even be opened gets its ``Failure`` here."""
        rows: dict[tuple, Row] = {}
        sizes: dict[object, tuple[int, int] | Failure] = {}
        for place, request in enumerate(requests):
            image = request.image
            identity = id(image) if isinstance(image, Image.Image) else str(image)
            if identity not in sizes:
                sizes[identity] = _image_size(image)
            size = sizes[identity]
            if isinstance(size, Failure):
                answers[place] = size
                continue
            before, after = turn_text(request.prompt, self.system)
            row = rows.setdefault((identity, before), Row(image))
            row.prefix = row.prefix or [*self._encode(before), *image_token_ids(self._groups(*size))]
            suffix = self._encode(after) + self._encode(request.answer_prefix)
            row.questions.append(Question(place, suffix, self._words_after(request.answer_prefix)))
        return list(rows.values())

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _groups(self, height: int, width: int) -> int:
        vit = self.model.config.vit_config
        rows, columns = visual_grid(height, width, self.bounds, vit.patch_size, vit.hidden_stride)
        return rows * columns // vit.hidden_stride**2

    def _words_after(self, answer_prefix: str) -> list[int]:
        """Token ids of the five words where they follow ``answer_prefix``.

        Raises:
            ValueError: a word is not one token there, so no single position holds the distribution.
        """
        if answer_prefix not in self._word_ids:
            blank = " " if answer_prefix else ""
            start = self._encode(answer_prefix)
            ids = []
            for word in WORDS:
                full = self._encode(f"{answer_prefix}{blank}{word}")
                if full[:-1] != start:
                    raise ValueError(f"the tokenizer of this checkpoint does not make one token of {blank + word!r}")
                ids.append(full[-1])
            self._word_ids[answer_prefix] = ids
        return self._word_ids[answer_prefix]

    def _patches(self, row: Row) -> tuple[torch.Tensor, torch.Tensor]:
        vit = self.model.config.vit_config
        image = shrink(load_image(row.image), self.bounds)
        return image_to_patches(image, self.bounds, vit.patch_size, vit.hidden_stride)

    # --- the pass ----------------------------------------------------------------------------------------------------

    def _rate_batch(self, batch: list[tuple[Row, Future]], answers: list) -> None:
        rows, patches, grids = [], [], []
        for row, future in batch:
            try:
                pixel_values, grid = future.result()
            except IMAGE_ERRORS as error:
                for question in row.questions:
                    answers[question.place] = Failure(f"cannot read the image: {error}")
                continue
            rows.append(row)
            patches.append(pixel_values)
            grids.append(grid)
        for place, logprobs in self._rate_rows(rows, patches, grids):
            answers[place] = Rating(dict(zip(WORDS, logprobs, strict=True)))

    def _rate_rows(self, rows: list[Row], patches: list, grids: list) -> list[tuple[int, list[float]]]:
        """(place, five log-probabilities) of every question, halving the batch for as long as memory does not suffice."""
        if not rows:
            return []
        try:
            return self._forward(rows, patches, grids)
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        torch.cuda.empty_cache()
        self.batch_size = half = max(1, len(rows) // 2)
        return self._rate_rows(rows[:half], patches[:half], grids[:half]) + self._rate_rows(
            rows[half:], patches[half:], grids[half:]
        )

    def _forward(self, rows: list[Row], patches: list, grids: list) -> list[tuple[int, list[float]]]:
        ids, positions, segments = (tensor.to(self.device) for tensor in _pack(rows))
        visual = self.model.embed_images(torch.cat(patches).to(self.device), torch.cat(grids))
        embeds = self.model.embed(ids, visual)
        shared = any(len(row.questions) > 1 for row in rows)
        # Rows are padded at their ends, where a causal model cannot look: without suffixes to part, causal is enough.
        mask = {"full_attention": _suffix_mask(segments) if shared else None}
        hidden = self.model.llm.model(
            inputs_embeds=embeds, position_ids=positions, attention_mask=mask, use_cache=False
        ).last_hidden_state
        lines, ends, word_ids, places = _rating_positions(rows)
        logits = self.model.llm.lm_head(hidden[lines, ends])
        logprobs = logits.float().log_softmax(-1).gather(1, torch.tensor(word_ids, device=self.device))
        return list(zip(places, logprobs.tolist(), strict=True))


def _batches(rows: list[Row], batch_size: int) -> list[list[Row]]:
    """Rows of nearly the same length together: at most ``batch_size``, and never more than an eighth of padding."""
    batches: list[list[Row]] = []
    for row in sorted(rows, key=len):
        if batches and len(batches[-1]) < batch_size and len(row) <= len(batches[-1][0]) * 1.125:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _image_size(image: str | Path | Image.Image) -> tuple[int, int] | Failure:
    """Height and width from the file's header."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    try:
        with Image.open(image) as opened:
            return opened.height, opened.width
    except IMAGE_ERRORS as error:
        return Failure(f"cannot read the image: {error}")


def _ahead(readers: ThreadPoolExecutor, batches: list[list[Row]], read) -> Iterator[list[tuple[Row, Future]]]:
    """The batches with their images being read, the next batch's while the model works on the present one."""
    waiting = None
    for batch in batches:
        started = [(row, readers.submit(read, row)) for row in batch]
        if waiting is not None:
            yield waiting
        waiting = started
    if waiting is not None:
        yield waiting


def _pack(rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, positions and segments, each [rows, longest] int64, padded at the end.

    The segment is 0 in the part all questions share, and the question's number, from 1, in its own suffix.
    """
    longest = max(len(row) for row in rows)
    ids, positions, segments = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(3))
    for line, row in enumerate(rows):
        start = len(row.prefix)
        ids[line, :start] = torch.tensor(row.prefix)
        positions[line, :start] = torch.arange(start)
        for number, question in enumerate(row.questions, 1):
            end = start + len(question.suffix)
            ids[line, start:end] = torch.tensor(question.suffix)
            positions[line, start:end] = torch.arange(len(question.suffix)) + len(row.prefix)
            segments[line, start:end] = number
            start = end
    return ids, positions, segments


def _suffix_mask(segments: torch.Tensor) -> torch.Tensor:
    """Who sees whom [rows, 1, length, length] bool: what stands before, in the shared part or in the own suffix."""
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    asking, asked = segments[:, :, None], segments[:, None, :]
    return (causal & ((asked == 0) | (asked == asking)))[:, None]


def _rating_positions(rows: list[Row]) -> tuple[list[int], list[int], list[list[int]], list[int]]:
    """For every question: its row, the position whose next token is the rating word, the word ids, its place."""
    lines, ends, word_ids, places = [], [], [], []
    for line, row in enumerate(rows):
        end = len(row.prefix)
        for question in row.questions:
            end += len(question.suffix)
            lines.append(line)
            ends.append(end - 1)
            word_ids.append(question.word_ids)
            places.append(question.place)
    return lines, ends, word_ids, places


