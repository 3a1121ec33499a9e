"""The vLLM engine on the reference bundle, compared with the oracle and with prefill.

vLLM has a separate environment (requirements-vllm.txt); the project's environment only tests the messages without it.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from helpers import NO_ANNOTATIONS, SMALL_BUNDLE, TOOLS, free_port, run_command
from reference_cases import CASES, TOLERANCE, request_of
from saiqa.engines import Failure, Rating, Request, load_engine
from saiqa.engines.vllm_inputs import Inputs, Question, by_image
from saiqa.errors import Failed, InputError
from saiqa.facts import WORDS
from saiqa.model.pixels import PixelBounds
from saiqa.reward import Reward

with_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: requirements-vllm.txt")


def assert_alike(answer, logprobs):
    assert isinstance(answer, Rating), answer
    for word in WORDS:
        assert abs(answer.logprobs[word] - logprobs[word]) < TOLERANCE


@pytest.fixture(scope="module")
def engine():
    return load_engine("vllm", SMALL_BUNDLE, system="", dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def prefill():
    return load_engine("prefill", SMALL_BUNDLE, system="", device="cpu")


@pytest.fixture
def bounds(engine, prefill, monkeypatch):
    """Set the pixel bounds of both engines, which are otherwise the checkpoint's."""

    def give(bounds: PixelBounds) -> None:
        monkeypatch.setattr(engine.inputs, "bounds", bounds)
        monkeypatch.setattr(prefill, "bounds", bounds)

    return give


@with_vllm
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_each_case_alone(engine, case):
    (answer,) = engine.rate([request_of(case)])
    assert_alike(answer, case["label_logprobs"])


@with_vllm
def test_all_cases_in_one_call(engine, prefill):
    """Six pictures of different sizes, one of them with four dimensions; twice, the second time from the cache."""
    requests = [request_of(case) for case in CASES]
    rated = prefill.rate(requests)
    for _ in range(2):
        for answer, case, other in zip(engine.rate(requests), CASES, rated, strict=True):
            assert_alike(answer, case["label_logprobs"])
            assert_alike(answer, other.logprobs)


@with_vllm
def test_order_changes_no_score(engine):
    answers = engine.rate([request_of(case) for case in reversed(CASES)])
    for answer, case in zip(answers, reversed(CASES), strict=True):
        assert_alike(answer, case["label_logprobs"])


@with_vllm
def test_the_system_prompt_is_told(engine, monkeypatch):
    monkeypatch.setattr(engine.inputs, "system", "You are a helpful assistant.")
    for answer, case in zip(engine.rate([request_of(case) for case in CASES]), CASES, strict=True):
        assert_alike(answer, case["label_logprobs_with_system"])


@with_vllm
@pytest.mark.parametrize("size", [(64, 96), (700, 30), (200, 200), (2100, 2000)])
@pytest.mark.parametrize("given", [PixelBounds(64 * 64, 160 * 160), PixelBounds(1024, 2**23)], ids=["demo", "wide"])
def test_pictures_enter_at_the_size_that_the_bounds_say(engine, prefill, bounds, given, size):
    """Also if vLLM would resize them: its own bounds are fixed."""
    bounds(given)
    picture = Image.effect_noise(size, 90).convert("RGB")
    request = Request(picture, CASES[0]["query"], CASES[0]["answer_prefix"])
    (answer,), (other,) = engine.rate([request]), prefill.rate([request])
    if isinstance(answer, Failure):
        assert given.max_pixels == 2**23 and size == (2100, 2000) and "tokens" in answer.reason  # more than configured
    else:
        assert_alike(answer, other.logprobs)


@with_vllm
def test_a_bad_image_fails_alone(engine, tmp_path):
    (tmp_path / "text.jpg").write_text("not a picture")
    bad = [Request(path, CASES[0]["query"], "The lighting is") for path in (tmp_path / "text.jpg", Path("gone.jpg"))]
    long = Request(SMALL_BUNDLE / CASES[0]["image"], "room " * 6000, "The lighting is")
    *failed, answer = engine.rate([*bad, long, request_of(CASES[0])])
    assert all(isinstance(failure, Failure) and failure.reason for failure in failed)
    assert "tokens" in failed[2].reason
    assert_alike(answer, CASES[0]["label_logprobs"])


@with_vllm
def test_marks_in_a_prompt_are_read_as_prefill_reads_them(engine, prefill):
    """A second <image> is text; the special tokens of a turn are special in both."""
    request = Request(SMALL_BUNDLE / CASES[0]["image"], "<image>An <image> <|im_end|> <video> of this room", "The lighting is")
    (answer,), (other,) = engine.rate([request]), prefill.rate([request])
    assert_alike(answer, other.logprobs)


@with_vllm
def test_what_it_says_of_itself(engine):
    described = engine.describe()
    assert described["engine"] == "vllm" and described["vllm"] and described["dtype"] == "float32"
    assert described["min_pixels"] == 448 * 448 and described["compile"] is False


@with_vllm
@pytest.mark.parametrize("device", ["cuda:7", "no such device"])
def test_another_device_is_refused(device):
    with pytest.raises(InputError, match="this vLLM runs on"):
        load_engine("vllm", SMALL_BUNDLE, device=device)


@with_vllm
def test_the_command_scores_the_demo(tmp_path):
    """The demo's checkpoint has small pictures and a separate small vocabulary."""
    flags = ("--demo", "--dimension", "lighting", "--json", "--device", "cpu")
    scored = [run_command("score_images.py", *flags, "--engine", name) for name in ("vllm", "prefill")]
    assert [ran.code for ran in scored] == [0, 0], scored[0].err
    ours, theirs = ([image["overall"] for image in ran.json["images"]] for ran in scored)
    assert ours == pytest.approx(theirs, abs=1e-3) and ours


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_it_is_one_line():
    ran = run_command("score_images.py", "--demo", "--engine", "vllm")
    assert ran.code == 1 and "Traceback" not in ran.err
    assert "the vllm engine needs vllm, which is not installed" in ran.err and "requirements-vllm.txt" in ran.err


def test_flags_of_other_engines_are_refused():
    ran = run_command("score_images.py", "--demo", "--engine", "vllm", "--trust_remote_code")
    assert ran.code == 2 and "--trust_remote_code is for --engine swift" in ran.err


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_questions_are_those_of_the_reference(case):
    inputs = Inputs(SMALL_BUNDLE, "", None, upright=False)
    picture = inputs.picture(SMALL_BUNDLE / case["image"]).image
    question = inputs.question(request_of(case), picture)
    wanted = case["input_ids"] + case["answer_prefix_ids"]
    assert question.before + [-1] * question.visual + question.after == [max(token, -1) for token in wanted]
    assert question.misread(wanted) is None
    assert "resizes" in question.misread(wanted[:10] + wanted[9:])
    assert "another prompt" in question.misread([*wanted[:-1], wanted[-1] + 1])


def test_questions_about_one_image_come_together():
    requests = [Request(f"{n % 3}.png", "", "") for n in range(7)]
    assert list(by_image(requests)) == [[[0, 3, 6], [1, 4], [2, 5]]]
    assert [len(images) for images in by_image([Request(str(n), "", "") for n in range(130)])] == [64, 64, 2]
    assert len(Question([1], [2, 3], 6, [])) == 9


# ---- a server --------------------------------------------------------------------------------------------------------


CLIENT = "saiqa.engines.vllm_client:VllmClient"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a real vLLM server with the reference bundle."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "saiqa.engines.vllm_server", str(SMALL_BUNDLE), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--enforce-eager"]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=TOOLS, stdout=out, stderr=out)
    try:
        for _ in range(300):
            assert process.poll() is None, log.read_text()[-2000:]
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@with_vllm
@pytest.mark.parametrize(("system", "suffix"), [("", ""), (None, "_with_system")])
def test_a_server_answers_as_the_reference(server, system, suffix):
    client = load_engine(CLIENT, SMALL_BUNDLE, system=system, base_url=server)
    for answer, case in zip(client.rate([request_of(case) for case in CASES]), CASES, strict=True):
        assert_alike(answer, case[f"label_logprobs{suffix}"])
    assert client.describe()["served"] == str(SMALL_BUNDLE)


@with_vllm
def test_a_server_fails_one_image_alone(server):
    client = load_engine(CLIENT, SMALL_BUNDLE, system="", base_url=server)
    gone = Request(Path("gone.jpg"), CASES[0]["query"], "The lighting is")
    failed, answer = client.rate([gone, request_of(CASES[0])])
    assert isinstance(failed, Failure)
    assert_alike(answer, CASES[0]["label_logprobs"])


@with_vllm
def test_command_and_reward_ask_a_server(server, prefill):
    image = SMALL_BUNDLE / CASES[0]["image"]
    flags = (image, "--model_path", SMALL_BUNDLE, "--data_root", NO_ANNOTATIONS, "--json")
    asked = run_command("score_images.py", *flags, "--engine", "vllm", "--base_url", server)
    here = run_command("score_images.py", *flags, "--device", "cpu")
    assert asked.code == here.code == 0, asked.err
    overall = here.json["images"][0]["overall"]
    assert asked.json["images"][0]["overall"] == pytest.approx(overall, abs=1e-4)
    reward = Reward(base_url=server, model_path=SMALL_BUNDLE)
    assert reward([Image.open(image)])[0] == pytest.approx([overall], abs=0.5)  # it can be asked with other prompts


class _Vague(BaseHTTPRequestHandler):
    """Another OpenAI-compatible server: it answers with the most likely tokens, as words."""

    def do_GET(self):
        self._send({"data": [{"id": "model"}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        likely = [{"token": " good", "logprob": -0.1}]
        self._send({"choices": [{"logprobs": {"content": [{"token": " good", "logprob": -0.1, "top_logprobs": likely}]}}]})

    def _send(self, answer: dict):
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def test_a_server_that_cannot_say_five_words_is_refused():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Vague) as vague:
        threading.Thread(target=vague.serve_forever, daemon=True).start()
        client = load_engine(CLIENT, SMALL_BUNDLE, base_url=f"http://127.0.0.1:{vague.server_port}/v1")
        with pytest.raises(InputError, match="does not return all five words' log-probabilities"):
            client.rate([request_of(CASES[0])])
        vague.shutdown()


def test_nobody_at_the_address_is_one_line():
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(Failed, match="does not answer: ConnectError"):
        load_engine(CLIENT, SMALL_BUNDLE, base_url=url)
    ran = run_command("score_images.py", "--demo", "--engine", "prefill", "--base_url", url)
    assert ran.code == 2 and "--base_url is for --engine vllm" in ran.err


def test_an_address_without_protocol_is_refused():
    with pytest.raises(InputError, match="is not an address"):
        load_engine(CLIENT, SMALL_BUNDLE, base_url="127.0.0.1:8000")
