"""Another engine against the prefill engine, on the same requests: the release's, with forced answers, or vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from transformers import LogitsProcessor, LogitsProcessorList, Qwen2TokenizerFast

from measuring import measure_prefill, native, rate_all
from saiqa import facts
from saiqa.engines import Rating, Request, load_engine
from saiqa.engines.prefill_engine import PrefillEngine
from saiqa.scoring import score_of

if TYPE_CHECKING:
    from saiqa.engines.swift_engine import SwiftEngine
    from saiqa.engines.vllm_engine import VllmEngine

ANSWER_TOKENS = 13  # of the release's answers, including the end token


class _GivenAnswer(LogitsProcessor):
    """Allows only the tokens of ``steps[i]`` at position i of an answer."""

    def __init__(self, steps: Sequence[Sequence[int]]):
        self.steps = steps
        self.start: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.start is None:
            self.start = input_ids.shape[1]
        allowed = self.steps[input_ids.shape[1] - self.start]
        forced = torch.full_like(scores, -torch.inf)
        forced[:, allowed] = scores[:, allowed]
        return forced


class GivenAnswers:
    """Rates with the swift engine with the answer's wording forced and its rating word free, ``ANSWER_TOKENS`` in all.

    Random weights would generate gibberish of any length. The log-probabilities are still the model's own: ms-swift takes
    them before the logits processors.
    """

    def __init__(self, engine: SwiftEngine, tokenizer: Qwen2TokenizerFast):
        self.engine, self.tokenizer = engine, tokenizer
        self.model = engine.engine.model
        self.generate = self.model.generate

    def rate(self, requests: Sequence[Request]) -> list[Rating]:
        """The ratings, one dimension at a time as in the release."""
        answers: list[Rating] = []
        for prefix in dict.fromkeys(request.answer_prefix for request in requests):
            steps = self._steps(prefix)
            self.model.generate = lambda *args, _steps=steps, **kwargs: self.generate(
                *args, logits_processor=LogitsProcessorList([_GivenAnswer(_steps)]), **kwargs
            )
            answers += rate_all(self.engine, [request for request in requests if request.answer_prefix == prefix])
        return answers

    def _steps(self, prefix: str) -> list[list[int]]:
        written = [[token] for token in self.tokenizer.encode(prefix)]
        words = [self.tokenizer.encode(f" {word}")[0] for word in facts.WORDS]
        (stop,) = self.tokenizer.encode(".")
        filler = ANSWER_TOKENS - len(written) - 2
        return [*written, words, *[[stop]] * filler, [self.tokenizer.eos_token_id]]


@dataclass
class Engines:
    """Two engines on one checkpoint: ``other`` is the release's (``swift``) or vLLM (``vllm``)."""

    other: GivenAnswers | VllmEngine
    prefill: PrefillEngine
    name: str = "swift"

    @classmethod
    def load(cls, checkpoint: Path, device: str, dtype: str, batch_size: int, compiled: bool, name: str = "swift") -> Engines:
        options = {"device": device, "dtype": dtype, "batch_size": batch_size}
        prefill = native(load_engine("prefill", checkpoint, compile=compiled, **options))
        other = load_engine(name, checkpoint, **options)
        if name == "swift":
            return cls(GivenAnswers(cast("SwiftEngine", other), prefill.tokenizer), prefill, name)
        return cls(cast("VllmEngine", other), prefill, name)

    def compare(self, requests: Sequence[Request], repeats: int, matmul_side: int) -> dict:
        """Both engines, prefill's passes alone, and the large matrix product, alternating; the best of each counts."""
        rated = {self.name: self._rate_other(requests), "prefill": rate_all(self.prefill, requests)}  # also the warm-up
        other = {self.name: lambda: self._rate_other(requests)}
        measured = measure_prefill(self.prefill, requests, repeats, matmul_side, other)
        n, best = len({request.image for request in requests}), min(measured["seconds"][self.name])
        scores = [[score_of(rating.logprobs) for rating in rated[name]] for name in (self.name, "prefill")]
        return {
            f"{self.name}_images_per_s": n / best,
            "ratio": best / min(measured["seconds"]["prefill"]),
            "largest_score_difference": max(abs(a - b) for a, b in zip(*scores, strict=True)),
            **measured,
        }

    def _rate_other(self, requests: Sequence[Request]) -> list[Rating]:
        """vLLM caches what it has read; a run that hits the caches would measure nothing."""
        if isinstance(self.other, GivenAnswers):
            return self.other.rate(requests)
        self.other.llm.reset_prefix_cache()
        self.other.llm.llm_engine.reset_mm_cache()
        self.other.llm.llm_engine.reset_encoder_cache()
        return rate_all(self.other, requests)
