"""Shared by the parts of the GPU check: the device, the sizes and the model."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

import checkpoints
import inputs
from saiqa.engines.loading import resolve_dtype
from saiqa.engines.prefill_engine import PrefillEngine

REPOSITORY = Path(__file__).resolve().parents[1]
REFERENCE = REPOSITORY / "tests" / "data" / "ovis2_5-reference"


class NotInstalled(Exception):
    """A part needs a package that is not installed."""


@dataclass
class Bench:
    """Shared by the parts: the device, the sizes, and the model, which is built when a part first needs it."""

    device: torch.device
    tiny: bool
    size: tuple[int, int]  # width and height of the pictures in pixels
    batch_sizes: Sequence[int]
    repeats: int
    folder: Path
    _engines: dict[bool, PrefillEngine] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """Images per pass in parts that do not vary the batch size."""
        return 2 if self.tiny else 8

    @property
    def least(self) -> int:
        """The minimum number of pictures, so that a small batch is measured over several passes."""
        return 1 if self.tiny else 8

    @property
    def matmul_side(self) -> int:
        return 256 if self.tiny else 8192

    @cached_property
    def images(self) -> list[Path]:
        return inputs.make_images(self.folder, self.size, max(self.least, self.batch_size, *self.batch_sizes))

    @cached_property
    def model_and_tokenizer(self) -> tuple:
        shape = checkpoints.TINY if self.tiny else checkpoints.NINE_B
        return checkpoints.build_model(shape, resolve_dtype("bfloat16", self.device, REFERENCE), self.device)

    def engine(self, compiled: bool = False) -> PrefillEngine:
        """One of the two engines at a time: each stores the language model's weights in its own layout."""
        if compiled not in self._engines:
            self._engines.clear()
            self._engines[compiled] = PrefillEngine.of_model(*self.model_and_tokenizer, compile=compiled)
        engine = self._engines[compiled]
        engine.batch_size, engine.token_budget = self.batch_size, sys.maxsize  # only the batch size limits a pass
        return engine

    def forget_model(self) -> None:
        """Free the model's memory; the next use builds it again."""
        self._engines.clear()
        self.__dict__.pop("model_and_tokenizer", None)
        give_memory_back(self.device)


def give_memory_back(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        with contextlib.suppress(RuntimeError):  # the failure may be the device's
            torch.cuda.empty_cache()


def first_line(error: Exception) -> str:
    """An error's type and message, in one line of at most 300 characters."""
    said = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {said[0]}"[:300]
