"""serve.py as clients meet it: a real server with a real small model, asked over HTTP."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from helpers import REPOSITORY, SMALL_BUNDLE, run_command
from saiqa import Scorer, facts
from saiqa.errors import InputError
from saiqa.service.batching import Batcher, Closed, QueueFull, ScoringFailed
from serving import PICTURES, picture, served, served_here

LIMITS = {"images": 4, "max_queue": 8, "request_mb": 1, "megapixels": 1}
TOLERANCE = 1e-5  # of a score in float32, in whatever batch it was computed


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(SMALL_BUNDLE, device="cpu")


@pytest.fixture(scope="module")
def expected(scorer) -> list[dict[str, float]]:
    """What the scorer says of ``PICTURES``, dimension -> score."""
    scores = [result.scores for result in scorer.score(PICTURES)]
    apart = min(max(abs(a[name] - b[name]) for name in a) for i, a in enumerate(scores) for b in scores[:i])
    assert apart > 10 * TOLERANCE, "the pictures must be told apart by their scores"
    return scores


@pytest.fixture(scope="module")
def service(scorer, expected):  # expected first: the scorer is the service's from then on
    with served_here(scorer, **LIMITS) as url:
        yield url


@pytest.fixture
def http(service):
    with httpx.Client(base_url=service, timeout=300, trust_env=False) as client:
        yield client


def form(*files: bytes) -> list:
    return [("images", (f"{n}.png", data)) for n, data in enumerate(files)]


def assert_same(scores: dict[str, float], wanted: dict[str, float]) -> None:
    assert scores == pytest.approx(wanted, abs=TOLERANCE)


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_a_form_of_several_pictures_is_answered_in_order(http, expected):
    answer = http.post("/score", files=form(*PICTURES[:4]))
    assert answer.status_code == 200
    body = answer.json()
    assert body["model"] == SMALL_BUNDLE.name
    assert [result["name"] for result in body["results"]] == ["0.png", "1.png", "2.png", "3.png"]
    for result, wanted in zip(body["results"], expected, strict=False):
        assert_same(result["scores"], wanted)
        assert result["overall"] == pytest.approx(sum(wanted.values()) / 4, abs=TOLERANCE)
        assert result["error"] is None
        assert list(result["probabilities"]) == list(facts.DIMENSIONS)
        assert all(sum(words.values()) == pytest.approx(1) for words in result["probabilities"].values())


def test_json_with_base64_and_chosen_dimensions(http, expected):
    images = [{"name": "a.png", "data": base64.b64encode(PICTURES[0]).decode()}, base64.b64encode(PICTURES[1]).decode()]
    answer = http.post("/score", json={"images": images, "dimensions": ["lighting", "distortion"]})
    results = answer.json()["results"]
    assert answer.json()["caveat"] is None and all(isinstance(result["verdict"], str) for result in results)
    assert [result["name"] for result in results] == ["a.png", "image 2"]
    for result, wanted in zip(results, expected, strict=False):
        assert_same(result["scores"], {name: wanted[name] for name in ("distortion", "lighting")})


def test_dimensions_of_a_form_may_be_repeated_or_listed(http):
    answers = [
        http.post("/score", files=form(PICTURES[0]), data={"dimensions": text}).json()["results"][0]["scores"]
        for text in (["layout", "harmony"], "harmony, layout")
    ]
    assert [list(scores) for scores in answers] == [["harmony", "layout"]] * 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_formats(http, kind):
    result = http.post("/score", files=form(picture(1, kind=kind))).json()["results"][0]
    assert result["error"] is None and len(result["scores"]) == 4


def test_a_broken_picture_is_an_error_of_its_own(http, expected):
    icon = io.BytesIO()
    Image.new("RGB", (16, 16)).save(icon, "ICO")
    broken = [PICTURES[0], b"no picture", PICTURES[1][: len(PICTURES[1]) // 2], icon.getvalue()]
    answer = http.post("/score", files=form(*broken))
    assert answer.status_code == 200
    first, *others = answer.json()["results"]
    assert_same(first["scores"], expected[0])
    for result in others:
        assert result["error"].startswith("cannot read the image: ")
        assert (result["scores"], result["overall"]) == ({}, None)


def test_a_picture_that_is_no_base64_is_an_error_of_its_own(http):
    results = http.post("/score", json={"images": ["#", base64.b64encode(PICTURES[0]).decode()]}).json()["results"]
    assert "base64" in results[0]["error"] and results[1]["error"] is None


# ---- refusals --------------------------------------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises many pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    packed = [struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("size", [(1001, 1000), (40_000, 40_000)])
def test_too_many_pixels_are_refused_by_the_header(http, size):
    answer = http.post("/score", files=form(PICTURES[0], bomb(*size)))
    assert answer.status_code == 413
    assert "1.png" in answer.json()["detail"] and "1 megapixels" in answer.json()["detail"]


@pytest.mark.parametrize("count", [5, 6, 40])
def test_too_many_pictures_are_refused(http, count):
    tiny = picture(0, (4, 3))
    encoded = base64.b64encode(tiny).decode()
    for answer in (
        http.post("/score", files=form(*[tiny] * count)),
        http.post("/score", json={"images": [encoded] * count}),
    ):
        assert answer.status_code == 413
        assert "4 images" in answer.json()["detail"]


def test_too_many_bytes_are_refused_announced_or_not(http):
    large = b"x" * 1_000_001
    for answer in (
        http.post("/score", files=form(large)),
        http.post("/score", content=iter([large]), headers={"Content-Type": "application/json"}),
    ):
        assert answer.status_code == 413
        assert "1 MB" in answer.json()["detail"]
    assert http.get("/health").status_code == 200  # on the same connection


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, "not JSON"),
        ({"content": b"[" * 50_000, "headers": {"Content-Type": "application/json"}}, "too many parts"),
        ({"json": []}, "images"),
        ({"json": {"images": "x"}}, "images"),
        ({"json": {"images": []}}, "no images"),
        ({"json": {"images": [3]}}, "base64"),
        ({"json": {"images": ["eA=="], "dimensions": ["beauty"]}}, "beauty"),
        ({"json": {"images": ["eA=="], "dimensions": "layout"}}, "list"),
        ({"json": {"images": ["eA=="], "model": "x"}}, "model"),
        ({"files": [("images", ("a.png", PICTURES[0]))], "data": {"dimensions": "beauty"}}, "beauty"),
        ({"files": [("pictures", ("a.png", PICTURES[0]))]}, "pictures"),
        ({"data": {"images": "a.png"}}, "multipart/form-data"),
        ({"content": b"raw", "headers": {"Content-Type": "image/png"}}, "multipart/form-data"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, "boundary"),
        ({"content": b"garbage", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, "cannot be read"),
        ({"files": [("images", (None, "text"))]}, "files"),
    ],
)
def test_what_cannot_be_understood_is_refused(http, body, said):
    answer = http.post("/score", **body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_a_form_that_is_cut_off_is_refused_and_no_picture_of_it_dropped(http):
    whole = httpx.Request("POST", "http://x/", files=form(*PICTURES[:2]))
    body = whole.read()
    answer = http.post("/score", content=body[:-40], headers={"Content-Type": whole.headers["Content-Type"]})
    assert answer.status_code == 422 and "cut off" in answer.json()["detail"]


def test_a_client_that_leaves_harms_nobody(service, http, caplog):
    connection = socket.create_connection(("127.0.0.1", httpx.URL(service).port))
    connection.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{")
    connection.close()
    assert http.post("/score", files=form(PICTURES[0])).status_code == 200
    assert not caplog.records


def test_a_full_queue_is_a_503_that_says_when_to_come_again(service, http):
    """Twelve clients with four pictures each, room for eight pictures: whoever is refused may simply come again."""

    def ask(_):
        return httpx.post(f"{service}/score", files=form(*PICTURES[:4]), timeout=300, trust_env=False)

    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(ask, range(24)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 503}
    for refused in (answer for answer in answers if answer.status_code == 503):
        assert int(refused.headers["Retry-After"]) >= 1 and "queue" in refused.json()["detail"]
    text = http.get("/metrics").text
    assert int(float(re.search(r'saiqa_requests_total\{status="503"\} (\S+)', text)[1])) > 0


# ---- operators -------------------------------------------------------------------------------------------------------


def test_health_tells_the_limits(http):
    health = http.get("/health").json()
    wanted = {"max_images": 4, "max_queue": 8, "max_request_bytes": 1_000_000, "max_pixels": 1_000_000}
    assert {name: health[name] for name in wanted} == wanted
    assert health["status"] == "ok" and health["model"] == SMALL_BUNDLE.name
    assert health["meanings"] == facts.MEANINGS and len(health["examples"]) == 8
    for name in health["examples"]:
        assert http.get(f"/examples/{name}").headers["Content-Type"] == "image/jpeg"
    assert http.get("/examples/page.js").status_code == http.get("/examples/..%2f..%2fapp.py").status_code == 404
    assert health["caveat"] is None  # only the demo's model needs one
    assert str(REPOSITORY) not in json.dumps(health)


def test_metrics_count_images_and_answers(http):
    def value(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", http.get("/metrics").text, re.M)
        return float(found[1]) if found else 0.0

    names = (
        'saiqa_images_total{outcome="scored"}',
        'saiqa_images_total{outcome="failed"}',
        'saiqa_requests_total{status="200"}',
    )
    before = [value(name) for name in names]
    http.post("/score", files=form(PICTURES[0], b"broken", PICTURES[1]))
    assert [value(name) - old for name, old in zip(names, before, strict=True)] == [2, 1, 1]
    assert value("saiqa_pending_images") == 0


def test_the_description_loads_nothing_from_elsewhere(http):
    assert http.get("/docs").status_code == 404
    refused = http.get("/score")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    description = http.get("/openapi.json").json()
    assert set(description["paths"]["/score"]["post"]["requestBody"]["content"]) == {"multipart/form-data", "application/json"}


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_asks_for_its_token_and_answers_what_it_has_taken_before_it_stops(tmp_path, expected):
    """SIGTERM while clients wait: each gets its whole answer, and the exit code is 0."""
    file = tmp_path / "token"
    file.write_text("secret-1\n")
    flags = ["--model_path", SMALL_BUNDLE, "--device", "cpu", "--batch_wait_ms", 1500, "--token_file", file]
    with served(tmp_path / "log", *flags) as service:
        for path, status in (("/health", 200), ("/", 200), ("/metrics", 401)):
            assert httpx.get(service.url + path, trust_env=False).status_code == status
        for sent in (None, "Bearer wrong", "Basic secret-1"):
            headers = {"Authorization": sent} if sent else {}
            answer = httpx.post(f"{service.url}/score", files=form(PICTURES[0]), headers=headers, trust_env=False)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")

        def ask(data: bytes) -> httpx.Response:
            headers = {"Authorization": "Bearer secret-1"}
            return httpx.post(f"{service.url}/score", files=form(data), headers=headers, timeout=300, trust_env=False)

        with ThreadPoolExecutor(6) as clients:
            waiting = [clients.submit(ask, data) for data in PICTURES[:6]]
            while httpx.get(f"{service.url}/health", trust_env=False).json()["pending_images"] < 6:
                time.sleep(0.02)
            assert service.stop() == 0
            for future, wanted in zip(waiting, expected, strict=False):
                assert_same(future.result().json()["results"][0]["scores"], wanted)
        assert "Traceback" not in service.log.read_text()


def test_the_token_may_come_from_the_environment(monkeypatch):
    from saiqa.cli import serve

    monkeypatch.setenv("SAIQA_TOKEN", " secret-2\n")
    assert serve.read_token(None) == "secret-2"
    monkeypatch.delenv("SAIQA_TOKEN")
    assert serve.read_token(None) is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "70000"], "not a port"),
        (["--model_path", "nowhere"], "checkpoint nowhere"),
        (["--token_file", "nowhere"], "--token_file nowhere"),
        (["--max_images", "9", "--max_queue", "8"], "--max_queue"),
        (["--host", "192.0.2.1"], "cannot listen"),
        (["--host", "no.such.host.invalid"], "cannot listen"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(flags, said, tmp_path):
    ran = run_command("serve.py", "--port", "0", *flags, cwd=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err and len(ran.err.strip().splitlines()) == 1


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = run_command("serve.py", "--demo", "--port", taken.getsockname()[1])
    assert ran.code == 2 and "cannot listen" in ran.err


@pytest.mark.parametrize("token", ["", "two words", "späť"])
def test_a_token_that_clients_could_not_send_is_refused(monkeypatch, token):
    from saiqa.cli import serve

    monkeypatch.setenv("SAIQA_TOKEN", token)
    with pytest.raises(InputError, match="SAIQA_TOKEN"):
        serve.read_token(None)


def test_help_loads_no_server():
    said = "serve.parser().format_help(); print({'fastapi', 'torch', 'uvicorn'} & set(sys.modules))"
    code = f"import sys; from saiqa.cli import serve; {said}"
    ran = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY / "tools", capture_output=True, text=True)
    assert ran.stdout.strip() == "set()", ran.stderr


# ---- many clients ----------------------------------------------------------------------------------------------------


def test_among_64_clients_no_answer_is_lost_or_swapped_and_every_refusal_is_clean(tmp_path):
    """The benchmark's clients, who check every answer, for some seconds and with little room in the queue."""
    for number, data in enumerate(PICTURES):
        (tmp_path / f"{number}.png").write_bytes(data)
    output = tmp_path / "figures.json"
    flags = ["--model_path", SMALL_BUNDLE, "--device", "cpu", "--images", tmp_path, "--output_json", output]
    load = ["--clients", 64, "--seconds", 4, "--alone_images", 128, "--max_queue", 48]
    command = [sys.executable, REPOSITORY / "benchmarks" / "bench_service.py", *flags, *load]
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    figures = json.loads(output.read_text())
    assert (figures["wrong"], figures["exit_code"]) == (0, 0)
    assert {"200", "503"} <= set(figures["answers"]) <= {"200", "413", "422", "503"}
    assert figures["images_checked"] >= 4 and figures["images_a_batch"] > 4


# ---- the queue -------------------------------------------------------------------------------------------------------


class Recorder:
    """A score function that notes its calls and can be held up: what it returns are its own arguments."""

    def __init__(self):
        self.calls: list[tuple[list, tuple]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, images, dimensions):
        self.calls.append((list(images), dimensions))
        self.gate.wait(10)
        if "raise" in images:
            raise RuntimeError("unforeseen")
        return [(image, dimensions) for image in images]


@pytest.fixture
def queue():
    recorder = Recorder()
    batcher = Batcher(recorder, max_queue=10, max_batch=4, wait_seconds=0.05)
    yield recorder, batcher
    recorder.gate.set()
    batcher.close(10)


def test_images_of_several_orders_are_scored_together_and_go_back_to_their_own(queue):
    recorder, batcher = queue
    futures = [batcher.submit([f"{n}a", f"{n}b"], ("layout",)) for n in range(3)]
    for n, future in enumerate(futures):
        assert future.result(10) == [(f"{n}a", ("layout",)), (f"{n}b", ("layout",))]
    assert len(recorder.calls[0][0]) == 4


def test_a_batch_asks_for_the_same_dimensions_and_order_is_kept(queue):
    recorder, batcher = queue
    recorder.gate.clear()
    first = batcher.submit(["first"], ("layout",))
    while not recorder.calls:
        time.sleep(0.001)
    futures = [batcher.submit([n], ("layout",) if n % 2 else ("lighting",)) for n in range(4)]
    recorder.gate.set()
    assert [future.result(10)[0][0] for future in [first, *futures]] == ["first", 0, 1, 2, 3]
    assert recorder.calls[1:] == [([0, 2], ("lighting",)), ([1, 3], ("layout",))]


def test_the_bound_counts_what_waits_and_what_is_at_work(queue):
    recorder, batcher = queue
    recorder.gate.clear()
    futures = [batcher.submit(list(range(6)), ()), batcher.submit(list(range(4)), ())]
    with pytest.raises(QueueFull) as refused:
        batcher.submit(["one more"], ())
    assert refused.value.retry_after_seconds >= 1
    recorder.gate.set()
    assert [len(future.result(10)) for future in futures] == [6, 4]
    assert batcher.submit(["now"], ()).result(10) == [("now", ())]


def test_an_unforeseen_error_fails_its_batch_and_the_thread_lives(queue, caplog):
    _, batcher = queue
    with pytest.raises(ScoringFailed):
        batcher.submit(["raise"], ()).result(10)
    assert "unforeseen" in caplog.text
    assert batcher.submit(["next"], ()).result(10) == [("next", ())]
    assert batcher.pending == 0


def test_closing_finishes_what_is_queued_and_takes_no_more():
    recorder = Recorder()
    batcher = Batcher(recorder, max_queue=10, max_batch=2, wait_seconds=10)
    future = batcher.submit(["a"], ())
    batcher.close(10)
    assert future.result(0) == [("a", ())]
    with pytest.raises(Closed):
        batcher.submit(["b"], ())


# ---- strangers, slow clients, hostile bodies -------------------------------------------------------------------------


def answer_to(url: str, *lines: str, body: bytes = b"") -> tuple[int, str]:
    """Status and text of the answer to a request written by hand."""
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


@pytest.mark.parametrize("name", ("example.org", "https://a.b/page", "https://a.b; script-src *", "'self'"))
def test_only_an_origin_may_frame(run_main, name):
    ran = run_main("serve.py", "--demo", "--allow_frame", name)
    assert ran.code == 2 and "is no origin. Give one like https://example.org" in ran.err


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


def test_a_service_that_others_reach_needs_a_token_or_a_word(run_main):
    ran = run_main("serve.py", "--demo", "--host", "0.0.0.0", "--port", "0")
    assert ran.code == 2 and "--no_token" in ran.err


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
