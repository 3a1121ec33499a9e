"""Pictures of many clients: they wait, are scored together, and go back to the right client."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from helpers import REPOSITORY, SMALL_BUNDLE
from saiqa.service.batching import Batcher, Closed, QueueFull, ScoringFailed
from serving import PICTURES

# ---- many clients ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_among_64_clients_no_answer_is_lost_or_swapped_and_every_refusal_is_clean(tmp_path):
    """The benchmark's clients, which check every answer, for some seconds with a short queue."""
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
    """A score function that records its calls and can be blocked; it returns its arguments."""

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
