"""Counts the tokens of an example as training does: image, question and answer."""

from __future__ import annotations

import functools
from pathlib import Path

from saiqa.engines.loading import load_tokenizer, model_config
from saiqa.model.ovis2_5 import image_token_ids, turn_text
from saiqa.model.pixels import PixelBounds, visual_grid
from saiqa.training.examples import Example

_CLOSING = "<|im_end|>\n"


class TokenCounter:
    """Counts the tokens of examples for one base model.

    Args:
        base: its checkpoint folder.
        system: system prompt of the training.
        bounds: bounds on the pixels of an image.
    """

    def __init__(self, base: Path, system: str, bounds: PixelBounds):
        tokenizer, vit = load_tokenizer(base), model_config(base).vit_config
        self._bounds, self._patch, self._stride = bounds, vit.patch_size, vit.hidden_stride

        @functools.cache
        def of_text(query: str, response: str) -> int:
            before, after = turn_text(query, system)
            parts = (before, after, response, _CLOSING)
            return sum(len(tokenizer.encode(part, add_special_tokens=False)) for part in parts)

        self._of_text = of_text

    def __call__(self, example: Example, height: int, width: int) -> int:
        return self._of_text(example.query, example.response) + len(image_token_ids(self.groups(height, width)))

    def groups(self, height: int, width: int) -> int:
        """Number of visual tokens of an image."""
        rows, columns = visual_grid(height, width, self._bounds, self._patch, self._stride)
        return rows * columns // self._stride**2
