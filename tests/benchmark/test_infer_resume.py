"""infer.py --resume: what an interrupted run leaves behind, and how the next one continues or refuses to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from helpers import GOOD, IDS, SMALL_BUNDLE, TOOLS, interruptible, rating, read_jsonl, record, write_jsonl
from saiqa import facts
from saiqa.files import folders


def test_failures_are_retried_by_resume_and_nothing_else_is(make_data_root, run_main):
    root = make_data_root(["lighting"])
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer"]
    good = root.image("lighting", "abc").read_bytes()
    run_main("infer.py", *flags)
    whole = read_jsonl(root.ratings("lighting"))
    root.image("lighting", "abc").write_bytes(b"no image")
    assert run_main("infer.py", *flags).code == 3
    assert len(read_jsonl(root.ratings("lighting"))) == 4
    root.image("lighting", "abc").write_bytes(good)
    ran = run_main("infer.py", *flags, "--resume")
    assert (ran.code, "4 of 5 images are rated already" in ran.err) == (0, True)
    again = read_jsonl(root.ratings("lighting"))
    assert [line["images"] for line in again] == [line["images"] for line in whole]
    for line, before in zip(again, whole, strict=True):  # rounding depends on the batch
        assert line["logits"] == pytest.approx(before["logits"], abs=1e-4)


def test_ctrl_c_keeps_what_is_rated_and_resume_goes_on(make_data_root, run_main, stop_after, monkeypatch):
    root = make_data_root(["lighting"])
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer", "--max_batch_size", "1"]
    run_main("infer.py", *flags)
    whole = root.ratings("lighting").read_bytes()
    stop_after(2, KeyboardInterrupt)
    ran = run_main("infer.py", *flags)
    assert ran.code == 130
    assert "2 rated images are kept" in ran.err
    assert "--resume" in ran.err
    assert root.ratings("lighting").read_bytes() == whole  # the old result stays

    partial = folders.partial_path(root.ratings("lighting"))
    with partial.open("ab") as file:
        file.write(b'{"images": ["SA-BENCH/images/li')  # torn by a crash
    stop_after(3, KeyboardInterrupt)  # enough for the rest, not for everything
    ran = run_main("infer.py", *flags, "--resume")
    assert ran.code == 0, ran.err
    assert "2 of 5 images are rated already" in ran.err
    assert root.ratings("lighting").read_bytes() == whole
    assert not partial.exists()


def test_a_partial_result_is_set_aside_once_the_model_has_loaded_and_never_removed(make_data_root, run_main, stop_after):
    root = make_data_root(["lighting"])
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer", "--max_batch_size", "1"]
    stop_after(2, KeyboardInterrupt)
    run_main("infer.py", *flags)
    partial = folders.partial_path(root.ratings("lighting"))
    before = partial.read_bytes()
    assert run_main("infer.py", *flags, "--device", "cuda:99").code == 2  # the model does not load
    assert partial.read_bytes() == before
    stop_after(99, KeyboardInterrupt)
    ran = run_main("infer.py", *flags)
    assert ran.code == 0
    assert not partial.exists()
    kept = partial.with_name(f"{partial.name}.1")
    assert f"{kept.name} keeps 2 lines of an interrupted run" in ran.err
    assert kept.read_bytes() == before
    os.replace(kept, partial)
    assert "2 of 5 images are rated already" in run_main("infer.py", *flags, "--resume").err


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (["--system", "Be brief."], "system was You are a helpful assistant., is Be brief."),
        (["--dtype", "bfloat16"], "dtype was float32, is bfloat16"),
        (["--engine", "swift"], "engine was prefill, is swift"),
    ],
)
def test_resume_refuses_another_run(make_data_root, run_main, changed, what):
    root = make_data_root(["lighting"])
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer"]
    assert run_main("infer.py", *flags).code == 0
    ran = run_main("infer.py", *flags, "--resume", *changed)
    assert ran.code == 2
    assert what in ran.err


def test_resume_refuses_another_model_and_another_prompt(make_data_root, run_main, tmp_path):
    root = make_data_root(["lighting"])
    model = tmp_path / "model" / SMALL_BUNDLE.name
    shutil.copytree(SMALL_BUNDLE, model)
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer", "--model_path", str(model)]
    assert run_main("infer.py", *flags).code == 0

    write_jsonl(root.jsonl("lighting"), [record("lighting", i, query=facts.query("lighting", 1)) for i in IDS])
    ran = run_main("infer.py", *flags, "--resume")
    assert (ran.code, "prompt was" in ran.err) == (2, True)

    write_jsonl(root.jsonl("lighting"), [record("lighting", i) for i in IDS])
    weights = model / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1000:] = bytes(1000)  # trained further: same shapes, other values
    weights.write_bytes(changed)
    ran = run_main("infer.py", *flags, "--resume")
    assert (ran.code, "model was" in ran.err) == (2, True)


def test_resume_of_a_finished_run_loads_no_model(make_data_root, run_main, stop_after):
    root = make_data_root(["lighting"])
    flags = [*root.flags, "--dimension", "lighting"]
    first = run_main("infer.py", *flags)
    stop_after(0, AssertionError)
    ran = run_main("infer.py", *flags, "--resume")
    assert (ran.code, ran.out) == (0, first.out)
    assert "nothing to infer" in ran.err


def test_resume_refuses_a_result_that_nothing_tells_about(make_data_root, run_main):
    root = make_data_root(["lighting"])
    write_jsonl(root.ratings("lighting"), [rating("lighting", i, GOOD) for i in IDS])
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--resume")
    assert ran.code == 2
    assert ".run.json" in ran.err


def test_an_unknown_error_keeps_the_ratings_and_its_traceback(make_data_root, run_main, stop_after):
    root = make_data_root(["lighting"])
    stop_after(1, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        run_main("infer.py", *root.flags, "--dimension", "lighting", "--max_batch_size", "2")
    assert len(read_jsonl(folders.partial_path(root.ratings("lighting")))) == 1 + 2


def test_a_real_interrupt_leaves_130_and_a_partial_file(make_data_root):
    ids = [f"i{n:03}" for n in range(150)]
    root = make_data_root(["lighting"], ids=ids, mos=["3"] * len(ids))
    flags = [*root.flags, "--dimension", "lighting", "--mode", "infer", "--max_batch_size", "1"]
    command = [sys.executable, TOOLS / "infer.py", *flags]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible)
    partial = folders.partial_path(root.ratings("lighting"))
    deadline = time.monotonic() + 120
    while not (partial.exists() and partial.read_bytes().count(b"\n") > 2) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "continue with --resume" in err
    assert "Traceback" not in err
    assert partial.exists()
