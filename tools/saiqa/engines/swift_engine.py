"""The reference engine: ms-swift's ``TransformersEngine``, greedy generation with log-probabilities, as the release scores.

It generates the whole answer to read one distribution, so it is slow; it is here for comparison. Unlike the release, it finds
the rating token by its text, and reads the exact log-probabilities of all five words there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# ms-swift's log is not for the user.
os.environ.setdefault("LOG_LEVEL", "ERROR")

import swift
from swift import InferRequest, RequestConfig, TransformersEngine, get_model_processor, get_template

from saiqa.engines import Failure, Rating, Request, checked_rating, describe_input
from saiqa.engines.loading import (
    check_finite,
    check_tokenizer,
    check_weights,
    describe_torch,
    model_config,
    read_image,
    refusing,
    resolve_device,
    resolve_dtype,
)
from saiqa.engines.pass_budget import require_memory
from saiqa.facts import WORDS
from saiqa.model.checkpoint_view import view_of
from saiqa.model.decoding import IMAGE_ERRORS, unreadable
from saiqa.model.pixels import PixelBounds, Preprocessing
from saiqa.prompts import system_prompt
from saiqa.scoring import find_rating_token

if TYPE_CHECKING:
    import torch
    from swift.infer_engine import ChatCompletionResponse
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 48  # an answer is a sentence of about thirteen tokens


class _WordEngine(TransformersEngine):
    """ms-swift's engine, but its log-probabilities always include the tokens in ``watched_ids``, however unlikely."""

    watched_ids: tuple[int, ...] = ()

    def preprocess_logits(
        self, batched_logits: list[torch.Tensor] | None, batched_generate_ids: torch.Tensor, top_logprobs: int | None
    ) -> list[list[dict[int, float]]] | None:
        if batched_logits is None:
            return None
        steps = [logits.float().log_softmax(-1) for logits in batched_logits]
        return [
            [
                {i: step[line, i].item() for i in (token, *self.watched_ids)}
                for token, step in zip(generated.tolist(), steps, strict=False)
            ]
            for line, generated in enumerate(batched_generate_ids)
        ]


class SwiftEngine:
    """Rates by generating with ms-swift.

    Args:
        model_path: a checkpoint folder in the released format.
        device, dtype, batch_size, system, bounds, upright: as in ``PrefillEngine``.
        trust_remote_code: run the bundle's own Python files instead of the native model.
    """

    name = "swift"

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
        if compile:
            raise ValueError("the swift engine runs the unmodified model; compile needs the prefill engine")
        if dtype == "int8":
            raise ValueError("the swift engine runs the unmodified model; int8 needs the prefill engine")
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device, model_path)
        self.remote_code = trust_remote_code
        self.upright = upright
        self.system = system_prompt(model_path, system)
        self.bounds = bounds or PixelBounds.of_checkpoint(model_path)
        self.preprocessing = Preprocessing.of_checkpoint(model_path)
        require_memory(model_path, model_config(model_path), self.dtype, self.device, self.bounds)
        model, tokenizer = self._load(Path(model_path))
        template = get_template(tokenizer, default_system=self.system)
        template.min_pixels, template.max_pixels = self.bounds.min_pixels, self.bounds.max_pixels
        self.engine = _WordEngine(model, template=template, max_batch_size=batch_size)
        self.engine.strict = False  # a request that fails comes back as its exception
        self.forms = _single_token_forms(tokenizer)
        self.engine.watched_ids = tuple(i for ids in self.forms.values() for i in ids)

    def _load(self, path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        options = {
            "torch_dtype": self.dtype,
            "model_type": "ovis2_5",
            "device_map": str(self.device),
            "attn_impl": None if self.remote_code else "sdpa",
        }
        if self.remote_code:
            return get_model_processor(str(path), **options)
        check_weights(path)
        with view_of(path) as view, refusing(path):
            model, tokenizer = get_model_processor(str(view), **options)
        check_finite(path, model)
        check_tokenizer(path, tokenizer)
        return model, tokenizer

    def describe(self) -> dict:
        return {
            "engine": self.name,
            **describe_torch(self.device, self.dtype),
            "ms_swift": swift.__version__,
            **describe_input(self.system, self.bounds, self.preprocessing, self.upright),
            "remote_code": self.remote_code,
        }

    def rate(self, requests: Sequence[Request]) -> list[Rating | Failure]:
        answers: list[Any] = [None] * len(requests)
        places, asked, notes = [], [], []
        for place, request in enumerate(requests):
            try:
                decoded = read_image(request.image, self.upright)
            except IMAGE_ERRORS as error:
                answers[place] = Failure(unreadable(error))
                continue
            places.append(place)
            notes.append(decoded.notes)
            asked.append(InferRequest(messages=[{"role": "user", "content": request.prompt}], images=[decoded.image]))
        config = RequestConfig(
            max_tokens=MAX_NEW_TOKENS, temperature=0, logprobs=True, top_logprobs=len(self.engine.watched_ids) + 1
        )
        responses = self.engine.infer(asked, config, use_tqdm=False)
        for place, response, noted in zip(places, responses, notes, strict=True):
            answers[place] = self._rating(response, requests[place].answer_prefix, noted)
        return answers

    def _rating(
        self, response: ChatCompletionResponse | Exception, answer_prefix: str, notes: tuple[str, ...]
    ) -> Rating | Failure:
        if isinstance(response, Exception):
            return Failure(f"ms-swift failed: {response}")
        choice = response.choices[0]
        content = choice.logprobs["content"] if choice.logprobs else []
        at = find_rating_token([step["token"] for step in content], answer_prefix)
        if at is None:
            return Failure(f"no rating word in the answer {choice.message.content!r}")
        form = _form_of(content[at]["token"])
        if form not in self.forms:
            return Failure(f"the rating {content[at]['token']!r} is spelled in a way in which not every word is one token")
        logprobs = {step["token"]: step["logprob"] for step in content[at]["top_logprobs"]}
        return checked_rating([logprobs[_written(word, form)] for word in WORDS], choice.message.content, notes)


def _form_of(token: str) -> tuple[bool, str]:
    """How a rating word is spelled: (leading space, lower / capitalized / upper)."""
    bare = token.strip()
    case = "lower" if bare.islower() else "upper" if bare.isupper() else "capitalized"
    return token.startswith(" "), case


def _written(word: str, form: tuple[bool, str]) -> str:
    blank, case = form
    spelled = {"lower": word, "upper": word.upper(), "capitalized": word.capitalize()}[case]
    return f" {spelled}" if blank else spelled


def _single_token_forms(tokenizer: PreTrainedTokenizerBase) -> dict[tuple[bool, str], list[int]]:
    """The spellings in which each of the five words is a single token, with the five token ids."""
    forms = {}
    for form in ((blank, case) for blank in (True, False) for case in ("lower", "capitalized", "upper")):
        ids = [tokenizer.encode(_written(word, form), add_special_tokens=False) for word in WORDS]
        if all(len(tokens) == 1 for tokens in ids):
            forms[form] = [tokens[0] for tokens in ids]
    return forms
