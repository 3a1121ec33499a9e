"""A small Hugging Face Hub on loopback: the few routes that listing and downloading a repository use."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """The server's files, and how it misbehaves.

    Attributes:
        repositories: ``models/owner/name`` or ``datasets/owner/name`` -> file name -> content.
        gated_files: repositories whose list is public but whose files are not.
        refusals: repository -> (status, X-Error-Code).
        cuts: file name -> bytes after which each of its next transfers breaks off.
        short: file names whose listed size is one byte too large.
        requests: (method, path, Range header) of every request.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    gated_files: set[str] = field(default_factory=set)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    short: set[str] = field(default_factory=set)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def __enter__(self) -> Hub:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def fetched(self) -> list[str]:
        """The names of files whose content was requested."""
        return [path.split("/resolve/")[1].split("/", 1)[1] for method, path, _ in self.requests if self._is_get(method, path)]

    @staticmethod
    def _is_get(method: str, path: str) -> bool:
        return method == "GET" and "/resolve/" in path


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if path.startswith("/api/"):
            kind, owner, name = path.split("/")[2:5]
            repository = f"{kind}/{owner}/{name}"
            if not self._refused(repository):
                self._list(repository)
        else:
            repository, _, rest = path.strip("/").partition("/resolve/")
            repository = repository if repository.startswith("datasets/") else f"models/{repository}"
            if repository in self.hub.gated_files:
                self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
            elif not self._refused(repository):
                self._file(repository, rest.split("/", 1)[1])

    def _refused(self, repository: str) -> bool:
        missing = None if repository in self.hub.repositories else (404, "RepoNotFound")
        status, code = self.hub.refusals.get(repository, missing) or (None, None)
        if status:
            self._send(status, b"{}", {"X-Error-Code": code} if code else {})
        return status is not None

    def _list(self, repository: str):
        files = self.hub.repositories[repository]
        siblings = [{"rfilename": n, "size": len(c) + (n in self.hub.short)} for n, c in files.items()]
        value = {"id": repository.split("/", 1)[1], "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: str, name: str):
        content = self.hub.repositories[repository][name]
        etag = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if not asked:
            self._send(200, content, headers, self._cut(name))
            return
        start = int(asked.removeprefix("bytes=").split("-")[0])
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206, content[start:], headers, self._cut(name))

    def _cut(self, name: str) -> int | None:
        cuts = self.hub.cuts.get(name)
        return cuts.pop(0) if cuts and self.command == "GET" else None

    def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True
