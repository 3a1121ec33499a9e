"""``--engine vllm --base_url URL``: the model is in a vLLM server, asked through its OpenAI-compatible interface.

The checkpoint's folder is needed here, too: its tokenizer, bounds and system prompt say what is asked. No weight is loaded. The
server must run the same checkpoint; ``vllm_server`` starts one. It must be a vLLM that knows ``logprob_token_ids`` and
``return_token_ids``: without the first there are no exact log-probabilities of five words, without the second nobody would
notice that it was told something else.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Unpack

import httpx
from PIL import Image

from saiqa.engines import Failure, Rating, Request, checked_rating
from saiqa.engines.vllm_inputs import Inputs, Question, by_image
from saiqa.errors import InputError
from saiqa.files.connection import Body, Connection
from saiqa.model.decoding import Decoded
from saiqa.model.ovis2_5 import around_image
from saiqa.model.pixels import PixelBounds

KEY_VARIABLE = "VLLM_API_KEY"  # vLLM's own name
SERVER = "python -m saiqa.engines.vllm_server"

_BUSY = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)


class VllmClient:
    """Rates through a vLLM server, one generated token a question.

    Args:
        model_path: the checkpoint that the server runs.
        base_url: its address, e.g. ``http://127.0.0.1:8000/v1``. It is sent the environment's ``VLLM_API_KEY``.
        dtype: what the server was started with, to be kept with the results; nothing here depends on it.
        batch_size: images in work at once.
        system, bounds, upright: as in ``PrefillEngine``.
        timeout_seconds: how long a busy server is asked again, and the longest wait for one answer.

    Raises:
        InputError: a file of the checkpoint is broken, or the server refuses what it is asked.
        Failed: the server cannot be reached.
    """

    name = "vllm"

    def __init__(
        self,
        model_path: str | Path,
        *,
        base_url: str,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 8,
        system: str | None = None,
        bounds: PixelBounds | None = None,
        upright: bool = False,
        compile: bool = False,
        trust_remote_code: bool = False,
        timeout_seconds: float = 600,
    ):
        if device != "auto" or compile or trust_remote_code:
            raise ValueError("device, compile and trust_remote_code are the server's, not those of its client")
        if not base_url.startswith(("http://", "https://")):
            raise InputError(f"{base_url!r} is no address", "Give one like http://127.0.0.1:8000/v1")
        self.base_url, self.dtype, self.batch_size = base_url, dtype, batch_size
        self.inputs = Inputs(model_path, system, bounds, upright)
        self._connection = Connection(base_url, os.environ.get(KEY_VARIABLE), timeout_seconds, _BUSY, SERVER)
        self.served = self._served()

    def _served(self) -> str:
        """What the server calls its model. Raises ``InputError`` where the address answers something else."""
        try:
            return self._send("GET", "models").json()["data"][0]["id"]
        except (ValueError, LookupError, TypeError):
            raise InputError(f"{self.base_url} is no OpenAI-compatible server", "The address ends in /v1") from None

    def describe(self) -> dict:
        return {
            "engine": self.name,
            "device": self.base_url,
            "dtype": self.dtype,
            "served": self.served,
            **self.inputs.describe(),
        }

    def rate(self, requests: Sequence[Request]) -> list[Rating | Failure]:
        answers: list[Any] = [None] * len(requests)
        with ThreadPoolExecutor(self.batch_size) as threads:
            for images in by_image(requests):
                rated = threads.map(lambda places: self._rate_image([requests[place] for place in places]), images)
                for places, ratings in zip(images, rated, strict=True):
                    for place, answer in zip(places, ratings, strict=True):
                        answers[place] = answer
        return answers

    def _rate_image(self, requests: Sequence[Request]) -> list[Rating | Failure]:
        """The answers about one image, one after the other: the later ones find it in the server's cache."""
        picture = self.inputs.picture(requests[0].image)
        if isinstance(picture, Failure):
            return [picture] * len(requests)
        url = data_url(picture.image)
        return [self._rate(request, picture, url) for request in requests]

    def _rate(self, request: Request, picture: Decoded, url: str) -> Rating | Failure:
        question = self.inputs.question(request, picture.image)
        if isinstance(question, Failure):
            return question
        answer = self._send("POST", "chat/completions", json=self._body(request, question, url))
        if answer.status_code == httpx.codes.BAD_REQUEST:
            return Failure(f"the vLLM server refuses the question: {answer.text[:200]}")
        return self._rating(question, answer.json(), picture.notes)

    def _body(self, request: Request, question: Question, url: str) -> dict:
        before, after = around_image(request.prompt)
        texts = ({"type": "text", "text": before}, {"type": "text", "text": f"\n{after}"})
        shown = [texts[0], {"type": "image_url", "image_url": {"url": url}}, texts[1]]
        messages = [{"role": "user", "content": shown if before else shown[1:]}]
        if self.inputs.system:
            messages.insert(0, {"role": "system", "content": self.inputs.system})
        if begun := bool(request.answer_prefix):
            messages.append({"role": "assistant", "content": request.answer_prefix})
        return {
            "model": self.served,
            "messages": messages,
            "continue_final_message": begun,
            "add_generation_prompt": not begun,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "logprob_token_ids": question.word_ids,
            "return_tokens_as_token_ids": True,
            "return_token_ids": True,
        }

    def _rating(self, question: Question, answer: dict, notes: tuple[str, ...]) -> Rating | Failure:
        """What an answer says of the five words. Raises ``InputError`` for a server that cannot say it exactly."""
        try:
            read = answer["prompt_token_ids"]
            (step,) = answer["choices"][0]["logprobs"]["content"]
            found = {entry["token"]: entry["logprob"] for entry in step["top_logprobs"]}
            logprobs = [found[f"token_id:{token}"] for token in question.word_ids]
        except (LookupError, TypeError, ValueError):
            what = f"{self.base_url} does not say all five words' log-probabilities and what it has read"
            raise InputError(what, f"It takes a vLLM with logprob_token_ids, 0.32 or later: {SERVER}") from None
        if reason := question.misread(read or ()):
            raise InputError(f"{self.base_url}: {reason}", f"Start the server with this checkpoint by {SERVER}")
        return checked_rating(logprobs, notes=notes)

    def _send(self, method: str, path: str, **body: Unpack[Body]) -> httpx.Response:
        """The answer, good or a refusal of this one question; asks again while the server is busy or away."""
        answer = self._connection.send(method, path, must_be_there=method == "GET", **body)
        if not answer.is_success and answer.status_code != httpx.codes.BAD_REQUEST:
            raise self._connection.refusal(answer, KEY_VARIABLE, "See its log")
        return answer


def data_url(picture: Image.Image) -> str:
    """The picture in PNG, which loses nothing."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
