"""Scoring on several Ray workers: the same bytes as one process, even if a worker or the command itself is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from helpers import NO_ANNOTATIONS, SMALL_BUNDLE, TOOLS, read_jsonl
from saiqa.engines import Rating, Request, load_engine
from saiqa.files import folders
from saiqa.run import ray_workers, reaper
from saiqa.scorer import CHUNK_IMAGES

MANY = [f"i{n:03}" for n in range(120)]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def infer_flags(root, *flags) -> list[str]:
    return [*root.flags, "--dimension", "lighting", "--mode", "infer", "--max_batch_size", "2", *map(str, flags)]


def start(root, *flags) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(TOOLS / "infer.py"), *infer_flags(root, *flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_lines(path: Path, count: int, running: subprocess.Popen) -> None:
    """Wait until a growing file has ``count`` lines."""
    deadline = time.monotonic() + 240
    while not (path.exists() and path.read_bytes().count(b"\n") >= count):
        assert running.poll() is None and time.monotonic() < deadline, running.communicate()
        time.sleep(0.002)


def worker_processes(command: int) -> list[int]:
    """Process ids of the workers among the descendants of a process."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # has ended since
            continue
    return [pid for pid in parents if is_below(pid, command, parents) and "_Worker" in name_of(pid)]


def is_below(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid in parents and pid != ancestor:
        pid = parents[pid]
    return pid == ancestor


def name_of(pid: int) -> str:
    try:
        return Path("/proc", str(pid), "cmdline").read_text()
    except OSError:
        return ""


@pytest.fixture
def undisturbed(make_data_root, run_main):
    """A data root of many images, one truncated and one missing, and the result of an undisturbed single process."""
    root = make_data_root(["lighting"], ids=MANY, mos=["3"] * len(MANY))
    root.image("lighting", "i050").write_bytes(b"no image")
    root.image("lighting", "i070").unlink()
    ran = run_main("infer.py", *infer_flags(root))
    assert ran.code == 3, ran.err
    result = root.ratings("lighting")
    whole = result.read_bytes()
    assert whole.count(b"\n") == len(MANY) - 2
    shutil.rmtree(root.results)
    return root, result, whole


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_the_bytes_are_those_of_one_process(undisturbed):
    root, result, whole = undisturbed
    running = start(root, "--workers", "2")
    wait_for_lines(folders.partial_path(result), 12, running)
    os.kill(worker_processes(running.pid)[0], signal.SIGKILL)
    out, err = running.communicate(timeout=300)
    assert (running.returncode, out) == (3, ""), err
    assert "died and was restarted" in err
    assert "lighting i050: cannot read the image" in err and "lighting i070: " in err
    assert "2 images have no score" in err
    assert result.read_bytes() == whole
    record = json.loads(folders.run_record_path(result).read_text())
    assert (record["workers"], record["n"]) == (2, len(MANY) - 2)


@pytest.mark.slow
def test_a_killed_command_is_resumed_by_another_number_of_workers(undisturbed, run_main):
    root, result, whole = undisturbed
    partial = folders.partial_path(result)
    running = start(root, "--workers", "2")
    wait_for_lines(partial, 12, running)
    left = worker_processes(running.pid)
    running.kill()
    running.communicate(timeout=60)
    assert not result.exists()
    lines = partial.read_bytes().splitlines(keepends=True)
    partial.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])  # as if killed while writing a batch's lines
    ran = run_main("infer.py", *infer_flags(root, "--resume"))
    assert ran.code == 3, ran.err
    assert f"{len(lines) - 2} of {len(MANY)} images are rated already" in ran.err
    assert result.read_bytes() == whole
    deadline = time.monotonic() + 60
    while any("_Worker" in name_of(pid) for pid in left) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any("_Worker" in name_of(pid) for pid in left)  # the workers have ended with the command


def test_a_model_that_does_not_load_is_the_same_error(make_data_root, run_main, tmp_path):
    root = make_data_root(["lighting"])
    model = tmp_path / SMALL_BUNDLE.name
    shutil.copytree(SMALL_BUNDLE, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "ovis3"}))
    alone = run_main("infer.py", *infer_flags(root, "--model_path", model))
    many = run_main("infer.py", *infer_flags(root, "--model_path", model, "--workers", "2"))
    assert (alone.code, many.code) == (2, 2)
    assert "model_type is 'ovis3'" in alone.err
    assert many.err == alone.err
    assert not root.results.exists()


@pytest.mark.slow
def test_dimensions_of_an_image_stay_in_the_batch_that_they_came_in():
    """A batch goes as a whole to one worker, which uses one pass over an image for all questions about it."""
    cases = json.loads((SMALL_BUNDLE / "expected.json").read_text())["cases"]
    batches = [
        [Request(str(SMALL_BUNDLE / case["image"]), case["query"], case["answer_prefix"]) for case in cases[i : i + 4]]
        for i in range(0, len(cases), 4)
    ]
    alone = load_engine("prefill", SMALL_BUNDLE, device="cpu")
    fleet = ray_workers.Fleet(2, None, on_gpu=False, bytes_each=2**30)
    several = ray_workers.Workers(load_small, fleet, note=print)
    try:
        assert several.describe() == alone.describe()
        answers = list(ray_workers.rate_batches(several, batches))
    finally:
        several.close()
    assert answers == [alone.rate(batch) for batch in batches]
    assert all(isinstance(answer, Rating) for batch in answers for answer in batch)


def load_small():
    return load_engine("prefill", SMALL_BUNDLE, device="cpu")


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--workers", "0"], 2, "'0' is not a whole number of at least 1"),
        (["--workers", "2", "--device", "cuda:1"], 2, "--device cuda:1 is one GPU"),
        (["--ray_address", "127.0.0.1:1"], 1, "Ray at 127.0.0.1:1: "),
    ],
)
def test_flags_that_cannot_be_met_are_one_line(make_data_root, run_main, flags, code, says):
    ran = run_main("infer.py", *infer_flags(make_data_root(["lighting"]), *flags))
    assert (ran.code, ran.out) == (code, "")
    assert says in ran.err.splitlines()[-1]


def test_batches_are_read_no_further_ahead_than_there_is_work_for():
    """In one process, a batch is read after the previous one is answered."""
    engine = load_small()
    case = json.loads((SMALL_BUNDLE / "expected.json").read_text())["cases"][0]
    read = []

    def batches():
        for number in range(5):
            read.append(number)
            yield [Request(str(SMALL_BUNDLE / case["image"]), case["query"], case["answer_prefix"])]

    answers = ray_workers.rate_batches(engine, batches())
    next(answers)
    assert read == [0]
    assert len(list(answers)) == 4


def test_resume_asks_a_torn_batch_again_and_tried_images_by_themselves(make_data_root, run_main):
    """Reproducing the bytes of an undisturbed run needs the original batches; retrying a failure does not."""
    root = make_data_root(["lighting"], ids=MANY[:8], mos=["3"] * 8)
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer", "--max_batch_size", "4"]
    assert run_main("infer.py", *flags).code == 0
    result = root.ratings("lighting")
    whole, record = result.read_bytes(), json.loads(folders.run_record_path(result).read_text())
    lines = whole.decode().splitlines(keepends=True)
    header = json.dumps({"identity": record["identity"], "engine": record["engine"]}) + "\n"
    result.unlink()
    folders.partial_path(result).write_text(header + "".join(lines[:5]))
    ran = run_main("infer.py", *flags, "--resume")
    assert (ran.code, "5 of 8 images are rated already" in ran.err) == (0, True)
    assert result.read_bytes() == whole
    assert [line["images"] for line in read_jsonl(result)] == [json.loads(line)["images"] for line in lines]


@pytest.mark.slow
def test_pictures_of_any_folder_are_scored_by_workers_as_by_one_process(run_main, tmp_path):
    count = CHUNK_IMAGES + 2  # two batches
    for number in range(count):
        Image.new("RGB", (28, 28), (number, 90, 255 - number)).save(tmp_path / f"{number:03}.png")
    (tmp_path / "001.png").write_bytes(b"no picture")
    results = []
    for flags in ([], ["--workers", "2"]):
        model = ["--model_path", SMALL_BUNDLE, "--data_root", NO_ANNOTATIONS, "--device", "cpu"]
        output = tmp_path / f"scores{len(results)}.jsonl"
        ran = run_main("score_images.py", tmp_path, "--dimension", "layout", "--output_jsonl", output, *model, *flags)
        assert ran.code == 3, ran.err
        record = json.loads(folders.run_record_path(output).read_text())
        results.append((output.read_bytes(), ran.out, record["workers"], record["n"]))
    assert results[0] == (*results[1][:2], 1, count - 1)
    assert results[1][2:] == (2, count - 1)


def test_a_killed_command_leaves_no_process_of_ray(make_data_root, tmp_path):
    root = make_data_root(["lighting"])
    command = start(root, "--workers", "2")
    try:
        started = {}
        until = time.monotonic() + 60
        while len(started) < 4 and time.monotonic() < until and command.poll() is None:
            started |= reaper.descendants(command.pid)
            time.sleep(0.2)
        time.sleep(2)
        started |= reaper.descendants(command.pid)
        time.sleep(2)  # the reaper checks twice per second
    finally:
        command.kill()
        command.wait()
    assert len(started) >= 4
    until = time.monotonic() + 30
    while time.monotonic() < until and (left := alive(started)):
        time.sleep(0.5)
    assert not left


def alive(processes: reaper.Started) -> list[int]:
    now = reaper._all()
    return [number for number, begun in processes.items() if number in now and now[number][1] == begun]
