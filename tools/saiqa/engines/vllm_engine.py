"""The model in vLLM: one token per question, with vLLM's scheduler, attention and prefix cache.

For users with vLLM on their GPUs, in a separate environment (``requirements-vllm.txt``). vLLM has its own Ovis2.5
implementation; its input is ours, see ``vllm_inputs``: the checkpoint's view, pictures at their final size, token id prompts.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Read when vLLM is imported. Scheduler and model stay in this process, so that only one has to be ended; vLLM's log is not for
# the user, and no usage statistics are sent.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; on a GPU vLLM takes what is free

import torch
import vllm
from vllm.platforms import current_platform

from saiqa.engines import Failure, Rating, Request, checked_rating
from saiqa.engines.loading import check_weights, describe_torch, resolve_dtype
from saiqa.engines.pass_budget import READERS
from saiqa.engines.vllm_inputs import QUESTIONS_AN_IMAGE, Inputs, Question, by_image
from saiqa.errors import Failed, InputError, first_line
from saiqa.model.checkpoint_view import hub_off, view_of
from saiqa.model.decoding import Decoded
from saiqa.model.ovis2_5 import INDICATOR_IDS
from saiqa.model.pixels import PixelBounds

IMAGE_MARK = "<image>"  # vLLM's placeholder for a picture in a prompt
LEAST_PASS = 8192  # tokens; a vLLM pass may mix parts of several questions

# vLLM's names for the start and end of an image and of a video, in the order of INDICATOR_IDS.
_MARKS = ("image_start", "image_end", "video_start", "video_end")


class VllmEngine:
    """Rates with vLLM, with one generated token per question.

    Args:
        model_path: a checkpoint folder in the released format.
        device: "auto", or the kind that this vLLM was built for ("cuda", "cpu"). CUDA_VISIBLE_DEVICES selects the GPU.
        dtype: as in ``PrefillEngine``.
        batch_size: number of images processed at once.
        system, bounds, upright: as in ``PrefillEngine``.
        compile: let vLLM compile the model and record CUDA graphs; loading takes a minute or more longer.

    Raises:
        InputError: no such device, or the folder does not hold a complete Ovis2.5 checkpoint.
        Failed: vLLM cannot load it.
    """

    name = "vllm"

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
            raise ValueError("vLLM runs its own model only; trust_remote_code needs the swift engine")
        self.device = built_for(device)
        self.dtype = resolve_dtype(dtype, self.device, model_path)
        self.compile = compile
        self.inputs = Inputs(model_path, system, bounds, upright)
        check_weights(model_path)
        mend_processor()
        self.llm = self._load(model_path, batch_size)
        self._image_mark = self.llm.get_tokenizer().encode(IMAGE_MARK, add_special_tokens=False)

    def _load(self, path: str | Path, batch_size: int) -> vllm.LLM:
        most = self.inputs.most_tokens
        with view_of(path) as view, hub_off():
            try:
                return vllm.LLM(
                    model=str(view),
                    hf_overrides={"architectures": ["Ovis2_5"]},  # a view names no class
                    dtype=str(self.dtype).removeprefix("torch."),
                    enforce_eager=not self.compile,
                    enable_prefix_caching=True,
                    max_model_len=most,
                    max_num_batched_tokens=max(LEAST_PASS, most),
                    max_num_seqs=batch_size * QUESTIONS_AN_IMAGE,
                    limit_mm_per_prompt={"image": 1, "video": 0},
                )
            except Exception as error:
                remedy = "Set VLLM_LOGGING_LEVEL=INFO to see its log, or use the prefill engine"
                raise Failed(f"{path}: vLLM cannot load this checkpoint: {first_line(error)[:200]}", remedy) from error

    def describe(self) -> dict:
        return {
            "engine": self.name,
            **describe_torch(self.device, self.dtype),
            "vllm": vllm.__version__,
            "compile": self.compile,
            **self.inputs.describe(),
        }

    def rate(self, requests: Sequence[Request]) -> list[Rating | Failure]:
        answers: list[Any] = [None] * len(requests)
        with ThreadPoolExecutor(max_workers=min(READERS, os.cpu_count() or 1)) as readers:
            for images in by_image(requests):
                pictures = readers.map(self.inputs.picture, (requests[places[0]].image for places in images))
                self._rate_pictures(zip(images, pictures, strict=True), requests, answers)
        return answers

    def _rate_pictures(
        self, pictures: Iterable[tuple[list[int], Decoded | Failure]], requests: Sequence[Request], answers: list
    ) -> None:
        """Answer the questions about pictures, each given with the indices of its questions."""
        asked: list[tuple[int, Question, Decoded]] = []
        for places, picture in pictures:
            for place in places:
                if isinstance(picture, Failure):
                    answers[place] = picture
                    continue
                question = self.inputs.question(requests[place], picture.image)
                if isinstance(question, Failure):
                    answers[place] = question
                else:
                    asked.append((place, question, picture))
        prompts = [self._prompt(question, picture) for _, question, picture in asked]
        outputs = self.llm.generate(prompts, [_one_token(question) for _, question, _ in asked], use_tqdm=False)
        for (place, question, picture), output in zip(asked, outputs, strict=True):
            answers[place] = rating(question, output, picture.notes)

    def _prompt(self, question: Question, picture: Decoded) -> dict:
        ids = [*question.before, *self._image_mark, *question.after]
        return {"prompt_token_ids": ids, "multi_modal_data": {"image": picture.image}}


def _one_token(question: Question) -> vllm.SamplingParams:
    """One token is sampled but never used; the five words' log-probabilities are the model's own, before any sampling."""
    return vllm.SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=question.word_ids, detokenize=False)


def rating(question: Question, output: vllm.RequestOutput, notes: tuple[str, ...]) -> Rating | Failure:
    """The rating in vLLM's output."""
    if reason := question.misread(output.prompt_token_ids):
        return Failure(reason)
    (found,) = output.outputs[0].logprobs
    if missing := [token for token in question.word_ids if token not in found]:
        return Failure(f"vLLM returns no log-probability for {len(missing)} of the five words")
    return checked_rating([found[token].logprob for token in question.word_ids], notes=notes)


def built_for(device: str) -> torch.device:
    """The device of this vLLM, which is built for one kind. Raises ``InputError`` if another is asked for."""
    kind = current_platform.device_type
    if device not in ("auto", kind):
        remedy = "Set CUDA_VISIBLE_DEVICES and leave out the device" if device.startswith(f"{kind}:") else "Leave it out"
        raise InputError(f"device {device}: this vLLM runs on {kind or 'no device of this machine'}", remedy)
    return torch.device(kind)


@functools.cache
def mend_processor() -> None:
    """Patch vLLM's processor to accept a checkpoint with any vocabulary, and to leave the picture's size alone.

    vLLM 0.32 hard-codes the released tokenizer's ids for the image markers and finds none with another tokenizer. It also
    resizes pictures to between 448 * 448 and 1792 * 1792 pixels, whatever bounds ours were resized with. If a later vLLM uses
    other names, the patch has no effect, and ``Question.misread`` detects the consequences.
    """
    from vllm.model_executor.models import ovis2_5 as models
    from vllm.transformers_utils.processors import ovis2_5 as processors

    def marks(self: models.Ovis2_5MultiModalProcessor, indicators: Sequence[int]) -> list[int]:
        known = self.info.get_hf_processor().extra_special_tokens
        ids = [known[name] for name in _MARKS]
        first = self.info.get_hf_config().visual_vocab_size - len(INDICATOR_IDS)
        return [first + ids.index(token) for token in indicators if token in ids]

    models.Ovis2_5MultiModalProcessor.visual_indicators_to_visual_tokens = marks
    processor = processors.Ovis2_5Processor
    processor.preprocess_multidata = functools.partialmethod(processor.preprocess_multidata, min_pixels=1, max_pixels=2**40)
