"""Asking a service over HTTP, again while it is busy or away: ``serve.py``'s by ``reward``, a vLLM server's by its client."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypedDict, Unpack

import httpx

from saiqa.errors import Failed, InputError, UserError

_LONGEST_PAUSE_SECONDS = 30

_log = logging.getLogger(__name__)


class Body(TypedDict, total=False):
    """What a request brings: an object as ``json``, or a form of values (``data``) and ``files``: (field, (name, content))."""

    json: Mapping[str, object]
    data: Mapping[str, object]
    files: Sequence[tuple[str, tuple[str, bytes]]]


class Connection:
    """The connections of one process to one service.

    Args:
        address: where paths begin.
        token: sent as ``Authorization: Bearer ...``; None for none.
        timeout_seconds: how long a busy service is asked again, and the longest wait for one answer.
        busy: status codes that mean "later".
        starts_with: the command that starts such a service, for the error.
    """

    def __init__(self, address: str, token: str | None, timeout_seconds: float, busy: Collection[int], starts_with: str):
        self.address, self.timeout_seconds, self.busy, self.starts_with = address, timeout_seconds, busy, starts_with
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # trust_env off: a proxy of the environment is for the world outside, not for one's own machines.
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout_seconds, trust_env=False)

    def send(self, method: str, path: str, must_be_there: bool = False, **body: Unpack[Body]) -> httpx.Response:
        """The answer, whatever it says but "later".

        Args:
            must_be_there: do not wait for a service that nobody has started yet.
            body: as httpx takes it; see ``Body``.

        Raises:
            Failed: the service cannot be reached, or is busy for longer than ``timeout_seconds``.
        """
        deadline = time.monotonic() + self.timeout_seconds
        pauses = _pauses()
        while True:
            try:
                answer = self._http.request(method, path, **body)
            except httpx.TransportError as error:
                reason, pause = f"{type(error).__name__}: {error}", next(pauses)
                if must_be_there and isinstance(error, httpx.ConnectError):
                    deadline = 0
            else:
                if answer.status_code not in self.busy:
                    return answer
                reason, pause = "it is busy", _retry_after(answer) or next(pauses)
            if time.monotonic() + pause > deadline:
                raise Failed(f"{self.address} does not score: {reason}", f"Start it with {self.starts_with}, or ask it less")
            _log.warning("%s: %s; trying again in %g s", self.address, reason, pause)
            time.sleep(pause)

    def refusal(self, answer: httpx.Response, token_variable: str, otherwise: str) -> UserError:
        """The error for an answer that does not do what was asked, with what to do about it."""
        error = Failed if answer.is_server_error else InputError
        remedy = f"Set {token_variable}" if answer.status_code == httpx.codes.UNAUTHORIZED else otherwise
        return error(f"{self.address} answers {answer.status_code}: {answer.text[:300]}", remedy)


def _pauses() -> Iterator[float]:
    """Seconds between attempts: doubling from a quarter."""
    pause = 0.25
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None
