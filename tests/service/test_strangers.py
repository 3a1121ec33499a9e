"""Access for strangers, and resistance to slow clients, hostile bodies and large pictures."""

from __future__ import annotations

import io
import re
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from serving import served, served_here


def answer_to(url: str, *lines: str, body: bytes = b"") -> tuple[int, str]:
    """Status and text of the answer to a hand-written request."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        head = "\r\n".join([*lines, "Connection: close", f"Content-Length: {len(body)}", "", ""])
        connection.sendall(head.encode("latin-1") + body)
        text = b""
        while part := connection.recv(65536):
            text += part
    return int(text.split()[1]), text.decode("utf-8", "replace")


@pytest.mark.parametrize("host", ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"))
def test_a_name_that_is_not_ours_is_refused(service, host):
    status, text = answer_to(service, "GET /health HTTP/1.1", f"Host: {host}")
    assert status == 421 and "--allow_host" in text


@pytest.mark.parametrize("host", ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8000", "10.1.2.3", "scores.example"))
def test_addresses_localhost_and_allowed_names_are_answered(scorer, host):
    with served_here(scorer, hosts=("Scores.example",)) as address:
        assert answer_to(address, "GET /health HTTP/1.1", f"Host: {host}")[0] == 200


@pytest.mark.parametrize(
    "header",
    ("Origin: http://evil.example", "Origin: null", "Origin: http://[")
    + ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"),
)
def test_what_another_site_causes_is_refused(service, header):
    assert answer_to(service, "POST /score HTTP/1.1", "Host: localhost", header)[0] == 403


def test_the_page_itself_may_ask(service):
    host = urlsplit(service).netloc
    lines = ("POST /score HTTP/1.1", f"Host: {host}", f"Origin: http://{host}", "Sec-Fetch-Site: same-origin")
    assert answer_to(service, *lines)[0] == 422  # without a body


PATHS = ("/", "/health", "/metrics", "/score", "/no", "/%00", "/page.js%00", "/" + "a" * 5000, "/%ff%fe")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ("GET", "HEAD", "POST", "DELETE"))
def test_every_answer_says_what_a_browser_may_do_with_it(service, method, path):
    answer = httpx.request(method, service + path, timeout=30)
    assert answer.status_code < 500
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.status_code != 405 or answer.headers["Allow"]


def test_the_page_is_framed_by_whom_the_operator_names_and_nobody_else(service, tmp_path):
    assert httpx.get(service + "/").headers["Content-Security-Policy"].endswith("frame-ancestors 'none'")
    frames = ("--allow_frame", "https://example.org", "--allow_frame", "http://a.b:8080")
    with served(tmp_path / "log", "--demo", "--device", "cpu", *frames) as other:
        policy = httpx.get(other.url + "/").headers["Content-Security-Policy"]
    assert policy.endswith("frame-ancestors https://example.org http://a.b:8080")


def one_field(name: bytes) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n\xff\r\n--x--\r\n'


@pytest.mark.parametrize(
    ("kind", "body"),
    (
        ("application/json", b'{"images": [{"name": "\\ud800", "data": "AAAA"}]}'),
        ("application/json", b'{"images": ["AAAA"], "dimensions": ["\\udfff"]}'),
        ("application/json", b'{"images": ["AAAA"], "\\udfff": 1}'),
        ("application/json", b"[" * 100_000),
        ("application/json", b'{"images": [' + b"[]," * 2_000_000 + b"[]]}"),
        ("application/json", b'{"images": [' + b'"",' * 2_000_000 + b'""]}'),
        ("application/json", b'{"images": ' + b"9" * 100_000 + b"}"),
        ("application/json", b"\xff\xfe"),
        ("application/json", b'{"images": [null]}'),
        ("multipart/form-data; boundary=x; charset=nonsense", one_field(b"a")),
        ("multipart/form-data; boundary=x", one_field(b"\xff")),
        ("multipart/form-data", b"--x--"),
        ("multipart/form-data; boundary=", b"--x--"),
        ("multipart/form-data; boundary=x", b"\x00" * 1000),
    ),
    ids=str,
)
def test_a_hostile_body_is_refused_at_once(service, kind, body):
    started = time.monotonic()
    answer = httpx.post(f"{service}/score", content=body, headers={"Content-Type": kind}, timeout=30)
    assert answer.status_code in (200, 400, 413, 422), answer.text[:200]
    assert time.monotonic() - started < 3
    if answer.status_code == 200:
        assert answer.json()["results"][0]["error"]


@pytest.mark.slow
def test_slow_clients_are_closed_and_do_not_keep_it_from_ending(tmp_path):
    """Half a head, half a body, nothing at all: others are answered meanwhile, and SIGTERM ends it within ten seconds."""
    flags = ["--demo", "--device", "cpu", "--request_seconds", "3"]
    with served(tmp_path / "log", *flags) as service:
        parts = urlsplit(service.url)
        head = b"POST /score HTTP/1.1\r\nHost: localhost\r\n"
        of_json = b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n"
        beginnings = {"nothing": b"", "half a head": head, "half a body": head + of_json + b"{"}
        connections = {}
        for name, beginning in beginnings.items():
            connections[name] = socket.create_connection((parts.hostname, parts.port), timeout=30)
            connections[name].sendall(beginning)
        assert httpx.get(f"{service.url}/health", timeout=10).status_code == 200
        started = time.monotonic()
        assert b" 408 " in connections["half a body"].recv(65536)
        assert connections["nothing"].recv(10) == b"" and connections["half a head"].recv(10) == b""
        assert time.monotonic() - started < 15
        late = socket.create_connection((parts.hostname, parts.port), timeout=30)
        late.sendall(beginnings["half a body"])
        started = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started < 10


def test_connections_beyond_the_limit_are_closed_and_the_service_goes_on(tmp_path):
    with served(tmp_path / "log", "--demo", "--device", "cpu", "--max_connections", "8") as service:
        parts = urlsplit(service.url)
        waiting = [socket.create_connection((parts.hostname, parts.port), timeout=30) for _ in range(50)]
        time.sleep(0.5)
        for connection in waiting:
            connection.close()
        assert httpx.get(f"{service.url}/health", timeout=10).status_code == 200


def test_large_pictures_take_memory_one_after_the_other(tmp_path):
    """Eight of 49 megapixels are 1.2 GB when decoded at once."""
    file = io.BytesIO()
    Image.new("RGB", (7000, 7000)).save(file, "WEBP", lossless=True)
    with served(tmp_path / "log", "--demo", "--device", "cpu") as service:

        def peak():
            return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{service.process.pid}/status").read_text())[1]) * 1024

        before = peak()
        files = [("images", (f"{n}.webp", file.getvalue())) for n in range(8)]
        answer = httpx.post(f"{service.url}/score", files=files, timeout=300)
        assert [result["error"] for result in answer.json()["results"]] == [None] * 8
        assert peak() - before < 1_000_000_000
