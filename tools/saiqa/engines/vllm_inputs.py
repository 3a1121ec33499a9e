"""The input for vLLM, in this process or in a server: questions as tokens, pictures at their final size. Imports no vLLM.

vLLM reports which tokens it has read. They are compared with those of the prefill engine, so that a vLLM that resizes,
truncates or words anything differently gives no score rather than a different one.
"""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from saiqa.engines import Failure, Request, describe_input
from saiqa.engines.loading import identity_of, load_tokenizer, model_config, read_image, word_ids_after
from saiqa.model.decoding import IMAGE_ERRORS, Decoded, unreadable
from saiqa.model.ovis2_5 import turn_text
from saiqa.model.pixels import PixelBounds, Preprocessing, resized_picture
from saiqa.prompts import system_prompt

AROUND_AN_IMAGE = 2  # tokens: image start and image end
TEXT_TOKENS = 2048  # at most, per question
QUESTIONS_AN_IMAGE = 4  # processed together; more have to wait
CHUNK_IMAGES = 64  # decoded at a time


@dataclass(frozen=True)
class Question:
    """One request as tokens.

    Attributes:
        before, after: the tokens around the image, including the answer prefix.
        visual: number of tokens of the image.
        word_ids: token ids of the five words.
    """

    before: list[int]
    after: list[int]
    visual: int
    word_ids: list[int]

    def __len__(self) -> int:
        return len(self.before) + self.visual + len(self.after)

    def misread(self, ids: Sequence[int]) -> str | None:
        """Why the tokens that vLLM has read are not this question; None if they are. Image tokens are only counted."""
        if len(ids) - len(self.before) - len(self.after) != self.visual:
            return f"vLLM reads {len(ids)} tokens instead of {len(self)}: it resizes the picture or rewords the prompt"
        if list(ids[: len(self.before)]) != self.before or list(ids[len(ids) - len(self.after) :]) != self.after:
            return "vLLM reads another prompt than it was given"
        return None


class Inputs:
    """Makes vLLM's input for one checkpoint.

    Args:
        model_path: a checkpoint folder in the released format.
        system, bounds, upright: as in ``PrefillEngine``.

    Raises:
        InputError: a file of the checkpoint is missing or broken.
    """

    def __init__(self, model_path: str | Path, system: str | None, bounds: PixelBounds | None, upright: bool):
        self.system = system_prompt(model_path, system)
        self.bounds = bounds or PixelBounds.of_checkpoint(model_path)
        self.upright = upright
        self.preprocessing = Preprocessing.of_checkpoint(model_path)
        self.config = model_config(model_path)
        self.tokenizer = load_tokenizer(model_path)
        vit = self.config.vit_config
        self._group_side = vit.patch_size * vit.hidden_stride
        self._words_after = functools.cache(functools.partial(word_ids_after, self.tokenizer))

    @property
    def most_tokens(self) -> int:
        """The most tokens per question: the largest picture plus ``TEXT_TOKENS``, limited by the model's positions."""
        visual = self.bounds.max_pixels // self._group_side**2 + AROUND_AN_IMAGE
        return min(visual + TEXT_TOKENS, self.config.llm_config.max_position_embeddings)

    def describe(self) -> dict:
        return describe_input(self.system, self.bounds, self.preprocessing, self.upright)

    def picture(self, image: str | Path | io.BytesIO | Image.Image) -> Decoded | Failure:
        """The image at the size that the tower sees, or why it cannot be read."""
        try:
            decoded = read_image(image, self.upright)
            resized = resized_picture(decoded.image, self.bounds, self.preprocessing, self._group_side)
        except (*IMAGE_ERRORS, MemoryError) as error:
            return Failure(unreadable(error))
        return Decoded(resized, decoded.notes)

    def question(self, request: Request, picture: Image.Image) -> Question | Failure:
        """The request as tokens, for a picture from ``picture``, or why it cannot be asked."""
        try:
            word_ids = self._words_after(request.answer_prefix)
        except ValueError as error:
            return Failure(str(error))
        before, after = turn_text(request.prompt, self.system)
        visual = picture.width * picture.height // self._group_side**2 + AROUND_AN_IMAGE
        question = Question(self.encode(before), self.encode(after) + self.encode(request.answer_prefix), visual, word_ids)
        if len(question) >= self.most_tokens:
            return Failure(f"the question has {len(question)} tokens, but vLLM is set up for at most {self.most_tokens - 1}")
        return question

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)


def by_image(requests: Sequence[Request]) -> Iterator[list[list[int]]]:
    """The indices of the requests about each image, ``CHUNK_IMAGES`` images at a time."""
    places: dict[object, list[int]] = {}
    for place, request in enumerate(requests):
        places.setdefault(identity_of(request.image), []).append(place)
    images = iter(places.values())
    return iter(lambda: list(itertools.islice(images, CHUNK_IMAGES)), [])
