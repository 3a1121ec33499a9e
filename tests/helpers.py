"""Shared by the tests: running a command, and a small data root with real images."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TOOLS = REPOSITORY / "tools"
if str(TOOLS) not in sys.path:
    sys.path.insert(0, str(TOOLS))

from saiqa import facts  # noqa: E402

# Some virtual machines report AMX but trap on it. An engine detects this (engines/loading.py), but too late for a process in
# which another test has already used torch.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

# In the background of a shell the tests ignore Ctrl-C, and so would every command that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A small Ovis2.5 bundle in the released format, with random weights: real files, real tokenizer, meaningless scores.
SMALL_BUNDLE = REPOSITORY / "tests" / "data" / "ovis2_5-reference"

# The README and the pages of docs/ that people write, as one text.
DOCS = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
MANUAL = "\n".join(page.read_text(encoding="utf-8") for page in DOCS if page.name != "cli.md")

# A data root without annotations: prompts are in this project's own wording.
NO_ANNOTATIONS = REPOSITORY / "tests" / "data"

# Every command: scripts that contain sys.exit(run(main)).
COMMANDS = sorted(path.name for path in TOOLS.glob("*.py") if "sys.exit(run(main))" in path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Ran:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)


def run_command(*args: str | Path, cwd: Path | None = None, env: dict | None = None) -> Ran:
    """Run ``tools/ARGS[0]`` as a user does, in a separate process."""
    script, *rest = map(str, args)
    done = subprocess.run(
        [sys.executable, str(TOOLS / script), *rest], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def calibrated_demo(folder: Path, *flags: str) -> Ran:
    """The demo's calibration on its validation split, ``calibration.json`` in a folder, as in the docs."""
    rated = run_command("infer.py", "--demo", "--split", "val", "--dtype", "float32", "--results_dir", folder, "--json")
    assert rated.code == 0, rated.err
    made = run_command("calibrate.py", folder, "--demo", *flags, "--output", folder / "calibration.json", "--json")
    assert made.code == 0, made.err
    return made


def interruptible() -> None:
    """For ``preexec_fn``: lets Ctrl-C reach the process even if a shell runs the tests in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class DataRoot:
    """A benchmark folder in the released layout, with the flags for using it in a command."""

    path: Path
    results: Path
    ids: list[str] = field(default_factory=list)

    @property
    def flags(self) -> list[str]:
        data = ["--data_root", self.path, "--results_dir", self.results]
        return [*map(str, data), "--model_path", str(SMALL_BUNDLE), "--device", "cpu"]

    def image(self, dimension: str, image_id: str, suffix: str = ".png") -> Path:
        return self.path / facts.IMAGES_FOLDER.format(dimension=dimension) / f"{image_id}{suffix}"

    def csv(self, dimension: str, split: str = "test") -> Path:
        return self.path / facts.ANNOTATIONS_FOLDER / facts.annotation_csv(dimension, split)

    def jsonl(self, dimension: str, split: str = "test", version: int = 4) -> Path:
        return self.path / facts.ANNOTATIONS_FOLDER / facts.annotation_jsonl(dimension, split, version)

    def ratings(self, dimension: str, name: str = SMALL_BUNDLE.name) -> Path:
        return self.results / facts.result_name(dimension, 4, name, ".jsonl")

    def scores(self, dimension: str, name: str = SMALL_BUNDLE.name) -> Path:
        return self.results / facts.result_name(dimension, 4, name, ".csv")


IDS = ["007", "abc", "1e5", "0010", "nan"]  # a reader that guesses types would change or drop each of them
MOS = ["3.5", "1.2", "4.75", "2.0", "2.9"]


def write_annotations(root: DataRoot, dimension: str, ids: Sequence[str], mos: Sequence[str]) -> None:
    """The test CSV and JSONL of one dimension."""
    rater, mean = f"{dimension}_score_a", facts.mos_column(dimension)
    rows = [{"id": i, "model": "m,1", rater: "3", mean: m} for i, m in zip(ids, mos, strict=True)]
    write_csv(root.csv(dimension), rows)
    write_jsonl(root.jsonl(dimension), [record(dimension, image_id) for image_id in ids])


def record(dimension: str, image_id: str, **changed) -> dict:
    """A line of a test JSONL, in this project's wording."""
    image = f"SA-BENCH/images/{dimension}/images/{image_id}.png"
    line = {"query": facts.query(dimension, 4), "response": facts.response(dimension, "good"), "images": [image]}
    return {**line, **changed}


# Log-probabilities of the five words for a good room.
GOOD = {"excellent": -2.0, "good": -0.3, "fair": -3.0, "poor": -5.0, "bad": -7.0}


def rating(dimension: str, image_id: str, logits: dict) -> dict:
    """A line of a result."""
    return {"images": [f"SA-BENCH/images/{dimension}/images/{image_id}.png"], "logits": logits}


def write_csv(path: Path, rows: Sequence[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_jsonl(path: Path, lines: Sequence[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def paint(path: Path, seed: int = 0) -> Path:
    """A small picture, different for every seed."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64 + seed % 3, 48), (37 * seed % 256, 91 * seed % 256, 200 - seed % 200)).save(path)
    return path


# ---- runs that are cut short -----------------------------------------------------------------------------------------


def stopping_engine(after: int, error: type[BaseException]):
    """The real engine, which stops after answering ``after`` calls."""
    from saiqa.engines.prefill_engine import PrefillEngine

    class Stopping(PrefillEngine):
        calls = 0

        def rate(self, requests):
            self.calls += 1
            if self.calls > after:
                raise error
            return super().rate(requests)

    return Stopping


# ---- addresses -------------------------------------------------------------------------------------------------------


def free_port() -> int:
    """A free port on loopback."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


# ---- files behind a URL ----------------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass
