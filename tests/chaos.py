"""Runs that are killed at random moments and resumed: ``make chaos KILLS=200``.

Each round starts a run of ``infer.py`` or ``score_images.py`` over a few pictures, ends it (SIGKILL, SIGTERM or SIGINT) after
a random time, and continues with ``--resume``, which may be killed again. In the end the result must be byte for byte that of
an undisturbed run, with no other files next to it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parent / "tools"
SMALL_BUNDLE = HERE / "data" / "ovis2_5-reference"
PICTURES = 24
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def prepare(folder: Path) -> None:
    """Pictures, and questions about them."""
    (folder / "pictures").mkdir(parents=True)
    (folder / "tmp").mkdir()
    names = [folder / "pictures" / f"{number:02d}.jpg" for number in range(PICTURES)]
    for number, name in enumerate(names):
        shutil.copy(SMALL_BUNDLE / "images" / ("ref_3.jpg", "ref_4.png", "ref_5.jpg")[number % 3], name)
    asked = {"query": "<image>\nHow is the lighting?", "response": "The lighting is good."}
    lines = (json.dumps({"images": [str(name)], **asked}) + "\n" for name in names)
    (folder / "lighting_3k_test_prompt4.jsonl").write_text("".join(lines))


def infer(folder: Path, output: Path) -> list[str]:
    flags = ["--dimension", "lighting", "--mode", "infer", "--test_jsonl", folder / "lighting_3k_test_prompt4.jsonl"]
    return command("infer.py", *flags, "--output_jsonl", output, "--max_batch_size", "4")


def score_images(folder: Path, output: Path) -> list[str]:
    return command("score_images.py", folder / "pictures", "--output_jsonl", output)


def command(name: str, *flags: str | Path) -> list[str]:
    model = ["--model_path", SMALL_BUNDLE, "--device", "cpu", "--batch_size", "2"]
    return [sys.executable, *map(str, [TOOLS / name, *flags, *model])]


def start(line: list[str], folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def torment(
    line_of: Callable[[Path, Path], list[str]], folder: Path, whole: bytes, chance: random.Random, kills: int, longest: float
) -> list[str]:
    """One result, from a run that is ended ``kills`` times and resumed; what is wrong with it.

    Args:
        longest: seconds within which a run is ended.
    """
    place = folder / "round"
    place.mkdir()
    output = place / "result.jsonl"
    wrong = []
    for _ in range(kills):
        process = start([*line_of(folder, output), "--resume"], folder)
        time.sleep(chance.uniform(0.0, longest))
        number = chance.choice(SIGNALS)
        process.send_signal(number)
        said = process.communicate(timeout=120)[1]
        if "Traceback" in said and number != signal.SIGKILL:
            wrong.append(f"a traceback after signal {number}: {said[-300:]}")
        if left := [path.name for path in place.iterdir() if path.suffix == ".tmp"]:
            wrong.append(f"{left} left behind")
    last = start([*line_of(folder, output), "--resume"], folder)
    said = last.communicate(timeout=120)[1]
    if last.returncode != 0:
        wrong.append(f"exit code {last.returncode}: {said[-300:]}")
    elif output.read_bytes() != whole:
        wrong.append("the result differs")
    if others := {path.name for path in place.iterdir()} - {"result.jsonl", "result.run.json"}:
        wrong.append(f"{sorted(others)} beside the result")
    shutil.rmtree(place)
    return wrong


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--kills", type=int, default=200)
    flags.add_argument("--seed", type=int, default=int(time.time()))
    args = flags.parse_args()
    chance, totals = random.Random(args.seed), Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder)
        wholes, longest = {}, {}
        for line_of in (infer, score_images):
            started = time.monotonic()
            subprocess.run(line_of(folder, folder / "whole.jsonl"), check=True, capture_output=True)
            longest[line_of] = time.monotonic() - started
            wholes[line_of] = (folder / "whole.jsonl").read_bytes()
            (folder / "whole.jsonl").unlink()
        while totals["kills"] < args.kills:
            line_of, kills = chance.choice((infer, score_images)), min(chance.randint(1, 4), args.kills - totals["kills"])
            wrong = torment(line_of, folder, wholes[line_of], chance, kills, longest[line_of])
            totals.update(kills=kills, results=1, wrong=len(wrong))
            for line in wrong:
                print(f"{line_of.__name__}: {line}", flush=True)
    print(f"seed {args.seed}: {totals['kills']} kills, {totals['results']} results, {totals['wrong']} wrong")
    return 1 if totals["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
