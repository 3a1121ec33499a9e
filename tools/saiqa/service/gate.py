"""Checks on every request and headers on every answer: which hosts and sites are allowed, and how long a client may take.

A foreign web page can make a browser send requests to this service: through a host name that resolves here (DNS rebinding), or
with a form posted from another site. Unknown host names and requests caused by other sites are refused.
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

HEADER_SECONDS = 10  # for the request line and headers
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
        hosts: names under which it is reached, besides ``localhost`` and IP addresses.
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
        except asyncio.CancelledError:  # from uvicorn, when its time for shutting down is over
            if not answered:
                ended = JSONResponse({"detail": "The service is being shut down"}, 503, {"Retry-After": "10"})
                await ended(scope, receive, sending)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        for host in hosts:
            if not self._is_ours(_name(host)):
                what = f"{_shown(_name(host))} is not a name of this service. Allow it with --allow_host"
                return JSONResponse({"detail": what}, 421)
        if "\0" in scope["path"]:
            return JSONResponse({"detail": "Not Found"}, 404)
        if scope["method"] not in _SAFE and not _from_own_site(headers, hosts):
            return JSONResponse({"detail": "Requests caused by another site are refused"}, 403)
        return None

    def _is_ours(self, name: str) -> bool:
        # DNS rebinding needs a name, so IP addresses are safe.
        return name in self.hosts or _is_address(name)


def _from_own_site(headers: Headers, hosts: list[str]) -> bool:
    """Whether the request was not caused by another site, according to the headers that browsers send."""
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
    """uvicorn's protocol with limits against slow or too many clients; ``protocol`` sets the limit."""

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
    """uvicorn's HTTP protocol with limits against slow or too many clients.

    A connection that takes longer than ``HEADER_SECONDS`` for the head of a request is closed, and one beyond the limit is
    closed immediately.
    """
    return type("Bounded", (_Bounded,), {"most_connections": most_connections})
