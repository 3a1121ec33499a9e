"""``--engine vllm --base_url URL``: the model runs in a vLLM server and is queried through its OpenAI-compatible API.

The checkpoint's folder is needed locally, too: its tokenizer, bounds and system prompt define the request. No weights are
loaded. The server must run the same checkpoint; ``vllm_server`` starts one. Its vLLM must support ``logprob_token_ids`` and
``return_token_ids``: without the first there are no exact log-probabilities of the five words, and without the second a
different prompt or picture size would go unnoticed.
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
    """Rates through a vLLM server, with one generated token per question.

    Args:
        model_path: the checkpoint that the server runs.
        base_url: its address, e.g. ``http://127.0.0.1:8000/v1``. The environment's ``VLLM_API_KEY`` is sent to it.
        dtype: the dtype that the server was started with, recorded with the results; nothing here depends on it.
        batch_size: number of images processed at once.
        system, bounds, upright: as in ``PrefillEngine``.
        timeout_seconds: how long to retry while the server is busy, and the longest wait for one answer.

    Raises:
        InputError: a file of the checkpoint is broken, or the server rejects the requests.
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
            raise ValueError("with base_url, device, compile and trust_remote_code are set at the server")
        if not base_url.startswith(("http://", "https://")):
            raise InputError(f"{base_url!r} is not an address", "Give one like http://127.0.0.1:8000/v1")
        self.base_url, self.dtype, self.batch_size = base_url, dtype, batch_size
        self.inputs = Inputs(model_path, system, bounds, upright)
        self._connection = Connection(base_url, os.environ.get(KEY_VARIABLE), timeout_seconds, _BUSY, SERVER)
        self.served = self._served()

    def _served(self) -> str:
        """The server's name for its model. Raises ``InputError`` if the answer is not that of such a server."""
        try:
            return self._send("GET", "models").json()["data"][0]["id"]
        except (ValueError, LookupError, TypeError):
            raise InputError(f"{self.base_url} is not an OpenAI-compatible server", "The address must end in /v1") from None

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
        """The answers about one image, one after the other, so that the later ones find it in the server's cache."""
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
            return Failure(f"the vLLM server rejects the question: {answer.text[:200]}")
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
        """The rating in an answer. Raises ``InputError`` if the server does not give exact log-probabilities."""
        try:
            read = answer["prompt_token_ids"]
            (step,) = answer["choices"][0]["logprobs"]["content"]
            found = {entry["token"]: entry["logprob"] for entry in step["top_logprobs"]}
            logprobs = [found[f"token_id:{token}"] for token in question.word_ids]
        except (LookupError, TypeError, ValueError):
            what = f"{self.base_url} does not return all five words' log-probabilities and the prompt's token ids"
            raise InputError(what, f"It must be vLLM 0.32 or later, with logprob_token_ids: {SERVER}") from None
        if reason := question.misread(read or ()):
            raise InputError(f"{self.base_url}: {reason}", f"Start the server for this checkpoint with {SERVER}")
        return checked_rating(logprobs, notes=notes)

    def _send(self, method: str, path: str, **body: Unpack[Body]) -> httpx.Response:
        """The answer: a success, or a rejection of this one question. Retries while the server is busy or unreachable."""
        answer = self._connection.send(method, path, must_be_there=method == "GET", **body)
        if not answer.is_success and answer.status_code != httpx.codes.BAD_REQUEST:
            raise self._connection.refusal(answer, KEY_VARIABLE, "See its log")
        return answer


def data_url(picture: Image.Image) -> str:
    """A data URL of the picture as PNG, which is lossless."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
