"""Unusual texts: each gives one line that a terminal can show, and does not affect the scores of other images."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from helpers import SMALL_BUNDLE, TOOLS, write_jsonl

ROOM = str(SMALL_BUNDLE / "images" / "ref_4.png")
MODEL = ["--model_path", SMALL_BUNDLE, "--device", "cpu"]
RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def test_odd_names_fail_alone_and_reach_the_terminal_escaped(run_main, tmp_path):
    odd = ["b" * 5000 + ".jpg", "a\x1b[2J.jpg", "n\x00l.jpg", "\u202egpj.exe.jpg"]
    write_jsonl(tmp_path / "list.jsonl", [{"image": name} for name in [ROOM, *odd]])
    ran = run_main("score_images.py", tmp_path / "list.jsonl", *MODEL, "--output_jsonl", tmp_path / "scores.jsonl")
    assert ran.code == 3 and "4 of 5 images lack a score" in ran.err
    assert not RAW.search(ran.out + ran.err) and "\u202e" not in ran.out + ran.err
    assert max(map(len, ran.err.splitlines())) <= 500


@pytest.mark.parametrize("url", ("http://[", "http://[::1", "nosuch://a/b.jpg"))
def test_a_url_that_is_none_is_said_before_the_model_loads(url, run_main, tmp_path):
    write_jsonl(tmp_path / "list.jsonl", [{"image": ROOM}, {"image": url}])
    ran = run_main("score_images.py", tmp_path / "list.jsonl", "--model_path", SMALL_BUNDLE)
    assert ran.code == 2 and ran.out == "" and len(ran.err.strip().splitlines()) == 1


def test_a_million_columns_are_a_short_line(run_main, tmp_path):
    columns = 1_000_000
    (tmp_path / "wide.csv").write_text(",".join(f"c{n}" for n in range(columns)) + "\n" + "," * (columns - 1) + "\n")
    ran = run_main("score_images.py", tmp_path / "wide.csv", "--model_path", SMALL_BUNDLE)
    assert ran.code == 2 and "c0, c1, c2, c3, c4 and 999995 more" in ran.err and len(ran.err) <= 500


@pytest.mark.parametrize("query", ("\\ud800 <image>", "<image> \\udfff"))
def test_half_a_character_in_a_question_names_its_line(query, make_data_root, run_main):
    root = make_data_root(["lighting"])
    line = f'{{"images": ["a.jpg"], "query": "{query}", "response": "It is good."}}\n'
    with root.jsonl("lighting").open("a") as file:
        file.write(line)
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--mode", "infer")
    assert ran.code == 2 and "half a character" in ran.err and ", line " in ran.err


def test_a_response_of_one_word_is_a_failure_of_its_image(make_data_root, run_main):
    root = make_data_root(["lighting"])
    lines = [json.loads(line) for line in root.jsonl("lighting").read_text().splitlines()]
    write_jsonl(root.jsonl("lighting"), [lines[0] | {"response": "good"}, *lines[1:]])
    ran = run_main("infer.py", *root.flags, "--dimension", "lighting", "--mode", "infer")
    assert ran.code in (0, 3) and "Traceback" not in ran.err
    assert ran.code == 0 or "as one token" in ran.err


def test_a_full_stdout_is_one_line():
    line = [sys.executable, TOOLS / "score_images.py", ROOM, *MODEL]
    with open("/dev/full", "w") as full:
        ran = subprocess.run(list(map(str, line)), stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 1 and "No space left on device" in ran.stderr and "Traceback" not in ran.stderr
