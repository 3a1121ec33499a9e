"""What every request passes first, and what every answer carries: who may ask from where, and how long a client may take.

A page of a stranger can make a browser ask this service: by a name that the stranger lets point here (DNS rebinding), or by a
form that is posted from elsewhere. Names that were not said to be ours and requests that other sites cause are refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEADER_SECONDS = 10  # for the lines of a request before its body
_OWN_SITE = ("same-origin", "none")
_SAFE = ("GET", "HEAD", "OPTIONS")

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Gate:
    """ASGI middleware around the whole application.

    Args:
        app: the application.
        hosts: names besides ``localhost`` and addresses under which it is reached.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]):
        self.app = app
        self.hosts = {"localhost", *map(str.lower, hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        answered = False

        async def sending(message: Message) -> None:
            nonlocal answered
            answered = True
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await (self._refusal(scope) or self.app)(scope, receive, sending)
        except asyncio.CancelledError:  # uvicorn, when what is left of its time to end is over
            if not answered:
                ended = JSONResponse({"detail": "The service is being shut down"}, 503, {"Retry-After": "10"})
                await ended(scope, receive, sending)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        for host in hosts:
            if not self._is_ours(_name(host)):
                what = f"No service has the name {_shown(_name(host))} here. It can be given one with --allow_host"
                return JSONResponse({"detail": what}, 421)
        if "\0" in scope["path"]:
            return JSONResponse({"detail": "Not Found"}, 404)
        if scope["method"] not in _SAFE and not _from_own_site(headers, hosts):
            return JSONResponse({"detail": "Another site has caused this request, which is refused"}, 403)
        return None

    def _is_ours(self, name: str) -> bool:
        # Nobody can let an address point elsewhere.
        return name in self.hosts or _is_address(name)


def _from_own_site(headers: Headers, hosts: list[str]) -> bool:
    """Whether a browser, which says it, was not sent here by another site."""
    if headers.get("sec-fetch-site", "none").lower() not in _OWN_SITE:
        return False
    origin = headers.get("origin")
    try:
        return origin is None or (bool(hosts) and urlsplit(origin).netloc.lower() == hosts[0].lower())
    except ValueError:
        return False


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    name, colon, port = host.strip().lower().rpartition(":")
    return name.rstrip(".") if colon and port.isdecimal() else host.strip().lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _shown(text: str) -> str:
    return ascii(text[:100])


class _Bounded(AutoHTTPProtocol):
    """uvicorn's protocol for clients of any kind; ``protocol`` gives it its limit."""

    most_connections: int
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            transport.abort()
        else:
            self._expect_a_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_at_work():
            self._expect_nothing()
        elif self._late is None:
            self._expect_a_head()

    def connection_lost(self, error: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(error)

    def _is_at_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_a_head(self) -> None:
        self._late = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _expect_nothing(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if not self._is_at_work():
            self.transport.abort()


def protocol(most_connections: int) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol for clients of any kind.

    A connection that takes longer than ``HEADER_SECONDS`` over the head of a request is closed, and so is one beyond the limit,
    at once.
    """
    return type("Bounded", (_Bounded,), {"most_connections": most_connections})
