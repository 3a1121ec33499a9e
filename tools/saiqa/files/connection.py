"""HTTP requests to a service, retried while it is busy or unreachable: ``serve.py`` for ``reward``, and vLLM servers."""

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
        address: the base URL.
        token: sent as ``Authorization: Bearer ...``; None for none.
        timeout_seconds: how long to retry while the service is busy, and the longest wait for one answer.
        busy: status codes that mean "try again later".
        starts_with: the command that starts such a service, for the error message.
    """

    def __init__(self, address: str, token: str | None, timeout_seconds: float, busy: Collection[int], starts_with: str):
        self.address, self.timeout_seconds, self.busy, self.starts_with = address, timeout_seconds, busy, starts_with
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # trust_env off: a proxy from the environment is for the outside world, not for one's own machines.
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout_seconds, trust_env=False)

    def send(self, method: str, path: str, must_be_there: bool = False, **body: Unpack[Body]) -> httpx.Response:
        """The first answer that is not "try again later".

        Args:
            must_be_there: fail at once if nothing listens at the address, instead of waiting for it to start.
            body: as httpx takes it; see ``Body``.

        Raises:
            Failed: the service cannot be reached, or stays busy for longer than ``timeout_seconds``.
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
                remedy = f"Start it with {self.starts_with}, or send it fewer requests"
                raise Failed(f"{self.address} does not answer: {reason}", remedy)
            _log.warning("%s: %s; trying again in %g s", self.address, reason, pause)
            time.sleep(pause)

    def refusal(self, answer: httpx.Response, token_variable: str, otherwise: str) -> UserError:
        """The error for an answer other than success, with a remedy."""
        error = Failed if answer.is_server_error else InputError
        remedy = f"Set {token_variable}" if answer.status_code == httpx.codes.UNAUTHORIZED else otherwise
        return error(f"{self.address} answers {answer.status_code}: {answer.text[:300]}", remedy)


def _pauses() -> Iterator[float]:
    """Seconds between attempts: starts at a quarter and doubles."""
    pause = 0.25
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None
