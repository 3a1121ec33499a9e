"""The service as clients use it: a real server with a real small model, over HTTP."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from helpers import REPOSITORY, SMALL_BUNDLE
from saiqa import facts
from serving import PICTURES, TOLERANCE, form, picture, served


def assert_same(scores: dict[str, float], wanted: dict[str, float]) -> None:
    assert scores == pytest.approx(wanted, abs=TOLERANCE)


@pytest.fixture
def http(service):
    with httpx.Client(base_url=service, timeout=300, trust_env=False) as client:
        yield client


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_a_form_of_several_pictures_is_answered_in_order(http, expected_scores):
    answer = http.post("/score", files=form(*PICTURES[:4]))
    assert answer.status_code == 200
    body = answer.json()
    assert body["model"] == SMALL_BUNDLE.name
    assert [result["name"] for result in body["results"]] == ["0.png", "1.png", "2.png", "3.png"]
    for result, wanted in zip(body["results"], expected_scores, strict=False):
        assert_same(result["scores"], wanted)
        assert result["overall"] == pytest.approx(sum(wanted.values()) / 4, abs=TOLERANCE)
        assert result["error"] is None
        assert list(result["probabilities"]) == list(facts.DIMENSIONS)
        assert all(sum(words.values()) == pytest.approx(1) for words in result["probabilities"].values())


def test_json_with_base64_and_chosen_dimensions(http, expected_scores):
    images = [{"name": "a.png", "data": base64.b64encode(PICTURES[0]).decode()}, base64.b64encode(PICTURES[1]).decode()]
    answer = http.post("/score", json={"images": images, "dimensions": ["lighting", "distortion"]})
    results = answer.json()["results"]
    assert answer.json()["caveat"] is None and all(isinstance(result["verdict"], str) for result in results)
    assert [result["name"] for result in results] == ["a.png", "image 2"]
    for result, wanted in zip(results, expected_scores, strict=False):
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


def test_a_broken_picture_is_an_error_of_its_own(http, expected_scores):
    icon = io.BytesIO()
    Image.new("RGB", (16, 16)).save(icon, "ICO")
    broken = [PICTURES[0], b"no picture", PICTURES[1][: len(PICTURES[1]) // 2], icon.getvalue()]
    answer = http.post("/score", files=form(*broken))
    assert answer.status_code == 200
    first, *others = answer.json()["results"]
    assert_same(first["scores"], expected_scores[0])
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
    """Twelve clients with four pictures each, room for eight pictures: a refused client can simply retry."""

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


# ---- a token, and the end --------------------------------------------------------------------------------------------


def test_the_command_asks_for_its_token_and_answers_what_it_has_taken_before_it_stops(tmp_path, expected_scores):
    """SIGTERM while clients wait: each gets its complete answer, and the exit code is 0."""
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
            for future, wanted in zip(waiting, expected_scores, strict=False):
                assert_same(future.result().json()["results"][0]["scores"], wanted)
        assert "Traceback" not in service.log.read_text()
