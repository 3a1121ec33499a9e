"""Thousands of damaged inputs, made from valid ones by a seeded generator: ``make fuzz SECONDS=1800``.

Each target takes a case and must end cleanly: with a result, or an error that a command reports in one line. Anything else is a
finding, whose case is written to a folder so that it can be examined and become a test.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]

import httpx  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from saiqa import overall  # noqa: E402
from saiqa.benchmark import score_stage  # noqa: E402
from saiqa.errors import UserError  # noqa: E402
from saiqa.evaluate import scored_table  # noqa: E402
from saiqa.files import jsonl, question_files  # noqa: E402
from saiqa.model.decoding import IMAGE_ERRORS, decode, open_image, size_of  # noqa: E402
from saiqa.pictures import scored_files  # noqa: E402
from saiqa.preferences import pairs  # noqa: E402
from saiqa.run import log, record  # noqa: E402
from saiqa.scorer import Scorer  # noqa: E402

SMALL_BUNDLE = HERE / "data" / "ovis2_5-reference"
LONGEST_SECONDS = 20  # time limit of one case

# Texts that have broken parsers.
TOKENS = (
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"[" * 3000, b"]", b'"', b"\\ud800", b"\\u0000", b"9" * 400, b"-", b"1e999"),
    *(b"NaN", b"Infinity", b"null", b"true", b"\n", b"\r", b",", b",,,,", b'""', b"\xe2\x80\xa8", b"../", b"x" * 5000),
    *(b"http://[", b"file://", b"s3://", b"good", b"5.1", b"-1", b"0", b"\x7f", b"\x1b[2J", b"\xff\xd9", b"\xff\xda"),
)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A copy with one to six changes: bytes, cuts, repetitions, tokens, numbers at their limits."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(7)
        if kind == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del data[at : at + chance.choice((1, 2, 8, 64, 10**9))]
        elif kind == 2:
            data[at:at] = data[max(0, at - chance.randint(1, 200)) : at] * chance.choice((1, 2, 50))
        elif kind == 3:
            data[at:at] = chance.choice(TOKENS)
        elif kind == 4:
            token = chance.choice(TOKENS)
            data[at : at + len(token)] = token
        elif kind == 5:
            data[at : at + 4] = chance.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0"))
        else:
            data[at : at + 1] = bytes([data[at] ^ 1 << chance.randrange(8)]) if at < len(data) else b""
    return bytes(data)


@dataclass(frozen=True)
class Target:
    """Something that takes damaged input.

    Attributes:
        seeds: valid inputs, by name.
        run: takes the name of the seed and the damaged input; raises one of ``allowed``, or returns.
        allowed: what it may raise.
    """

    seeds: dict[str, bytes]
    run: Callable[[str, bytes], object]
    allowed: tuple[type[BaseException], ...] = (UserError,)


# ---- pictures --------------------------------------------------------------------------------------------------------


def pictures() -> Target:
    """Files of every format and mode, decoded as they are for scoring."""
    noise = np.random.default_rng(0).integers(0, 255, (37, 53, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    rgb = rgba.convert("RGB")
    seeds = {}

    def add(name: str, image: Image.Image, kind: str, **options) -> None:
        file = io.BytesIO()
        image.save(file, kind, **options)
        seeds[name] = file.getvalue()

    add("jpeg", rgb, "JPEG")
    add("progressive", rgb, "JPEG", progressive=True)
    add("grey jpeg", rgb.convert("L"), "JPEG")
    add("cmyk jpeg", rgb.convert("CMYK"), "JPEG")
    add("png", rgba, "PNG")
    add("palette png", rgb.quantize(16), "PNG", transparency=3)
    add("deep png", Image.fromarray(noise[..., 0].astype(np.uint16) * 200), "PNG")
    add("webp", rgba, "WEBP")
    add("lossless webp", rgb, "WEBP", lossless=True)
    add("gif", rgb.quantize(16), "GIF", save_all=True, append_images=[rgb.quantize(8)])
    add("tiff", rgb, "TIFF", compression="tiff_lzw")
    add("float tiff", Image.fromarray(noise[..., 0] / np.float32(255)), "TIFF")
    add("bmp", rgb, "BMP")
    exif = Image.Exif()
    exif[0x0112] = 6
    add("turned jpeg", rgb, "JPEG", exif=exif)

    def run(name: str, content: bytes) -> None:
        image = open_image(io.BytesIO(content))
        if image.width * image.height > 10**7:  # the service refuses more, and here they would only be slow
            return
        height, width = size_of(image, upright=True)
        assert decode(image, upright=True).image.size == (width, height)

    return Target(seeds, run, (*IMAGE_ERRORS, MemoryError))


# ---- tables and lines ------------------------------------------------------------------------------------------------


def readers(folder: Path) -> Target:
    """Every file that a command reads, through the function that reads it."""
    words = {"excellent": -1.0, "good": -1.5, "fair": -2.0, "poor": -2.5, "bad": -3.0}
    asked = {"query": "<image>\nHow?", "response": "The lighting is good."}
    questions = [{"images": [f"SA-BENCH/images/{n}.jpg"], **asked} for n in range(3)]
    ratings = [{"images": [f"{n}.jpg"], "logits": words, "picture": {"bytes": 1, "modified_ns": 2}} for n in range(3)]
    scores = [{"images": [f"{n}.jpg"], "scores": {"layout": 3.5}, "overall": 3.5, "probabilities": {}} for n in range(3)]
    header = {"identity": {"model": "a" * 64}, "engine": {}}
    weights = {"weights": {"distortion": 0.25, "harmony": 0.25, "layout": 0.25, "lighting": 0.25}}

    def lines(values: list[dict]) -> bytes:
        return "".join(json.dumps(value) + "\n" for value in values).encode()

    seeds = {
        "questions.jsonl": lines(questions),
        "ratings.jsonl": lines(ratings),
        "log.partial": lines([header, *ratings]),
        "scores.jsonl": lines(scores),
        "scores.csv": b"image,layout,overall,error\na.jpg,3.5,3.5,\nb.jpg,,,cannot read\n",
        "scored.csv": b"id,layout_score_mos,score_pred\n007,3.5,3.2\n8,1.5,1.25\n9,2.5,4.75\n",
        "weights.json": json.dumps(weights).encode(),
        "made.run.json": json.dumps(header).encode(),
    }
    read = {
        "questions.jsonl": question_files.read_records,
        "ratings.jsonl": lambda path: score_stage.scored_ratings(jsonl.stream_images(path), path.name),
        "log.partial": log.Partial.read,
        "scores.jsonl": pairs.read_scored,
        "scores.csv": scored_files.read_table,
        "scored.csv": lambda path: scored_table.read_scored(path, "layout_score_mos"),
        "weights.json": overall.read_weights,
        "made.run.json": lambda path: record.read_run_record(path.with_name("made.csv")),
    }

    def run(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        read[name](folder / name)

    return Target(seeds, run)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def checkpoints(folder: Path) -> Target:
    """The files of a checkpoint, one of them damaged: it is refused, or rates a picture."""
    names = ("config.json", "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json", "args.json")
    names += ("model.safetensors", "generation_config.json", "special_tokens_map.json", "added_tokens.json")
    seeds = {name: (SMALL_BUNDLE / name).read_bytes() for name in names}
    bundle = folder / "bundle"
    shutil.copytree(SMALL_BUNDLE, bundle, ignore=shutil.ignore_patterns("images", "expected*"))
    grey = Image.new("RGB", (64, 64), "grey")

    def run(name: str, content: bytes) -> None:
        try:
            (bundle / name).write_bytes(content)
            result = Scorer(bundle, device="cpu", max_pixels=4096, min_pixels=1024).score([grey], ["layout"])[0]
            assert result.error or all(1 <= score <= 5 for score in result.scores.values())
        finally:
            (bundle / name).write_bytes(seeds[name])

    return Target(seeds, run)


# ---- requests --------------------------------------------------------------------------------------------------------


@contextmanager
def requests() -> Iterator[Target]:
    """Requests to a real service: the head, or the body, damaged."""
    from serving import served_here

    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "PNG")
    files = [("images", ("a.png", file.getvalue()))]
    scorer = Scorer(SMALL_BUNDLE, device="cpu")
    with served_here(scorer, request_mb=1, megapixels=1) as url, httpx.Client(timeout=60, trust_env=False) as client:
        form = client.build_request("POST", f"{url}/score", files=files, data={"dimensions": "layout"})
        form.read()
        kind = form.headers["content-type"].encode()
        text = json.dumps({"images": [{"name": "a", "data": "iVBORw0KGgo="}], "dimensions": ["layout"]}).encode()
        url_of_file = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        seeds = {"form": form.content, "json": text, "kind": kind, "path": b"/score", "host": b"localhost:8000"}
        seeds["decision"] = json.dumps(decision(scorer.model_name, url_of_file)).encode()

        def run(name: str, content: bytes) -> None:
            headers = {"Content-Type": "application/json" if name in ("json", "decision") else kind}
            body = content if name in ("form", "json", "decision") else form.content
            if name in ("kind", "host"):
                headers["Content-Type" if name == "kind" else "Host"] = content.translate(None, b"\r\n\0")[:2000]
            path = "/v1/decisions" if name == "decision" else "/score"
            path = "/" + content.decode("latin-1")[:2000] if name == "path" else path
            answer = client.post(httpx.URL(url, path=path), content=body, headers=headers)
            assert answer.status_code < 500, answer.text

        yield Target(seeds, run, (httpx.InvalidURL, httpx.LocalProtocolError, httpx.RemoteProtocolError, UnicodeError))


def decision(model: str, image_url: str) -> dict:
    """A request to /v1/decisions."""
    levels = [{"label": word, "description": ""} for word in ("bad", "poor", "fair", "good", "excellent")]
    question = {
        "type": "score",
        "name": "layout",
        "instructions": [{"type": "input_text", "text": "Layout?"}],
        "levels": levels,
    }
    message = {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": image_url}]}
    return {"model": model, "input": [message], "questions": [question]}


# ---- the fuzzer ------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """The outcome of the cases of one target."""

    cases: int = 0
    refused: int = 0
    findings: int = 0
    longest_seconds: float = 0


def attack(
    target: Target, seed: int, cases: int | None = None, until: float | None = None, keep: Path | None = None
) -> Outcome:
    """Damage and run until the number of cases or the time is reached.

    Args:
        seed: seed of the generator: the same seed gives the same cases.
        keep: the folder for findings.
    """
    chance, outcome, names = random.Random(seed), Outcome(), sorted(target.seeds)
    while (cases is None or outcome.cases < cases) and (until is None or time.monotonic() < until):
        name = chance.choice(names)
        content = damaged(target.seeds[name], chance)
        outcome.cases += 1
        started = time.monotonic()
        try:
            target.run(name, content)
        except target.allowed as error:
            outcome.refused += 1
            found = "\n" in str(error).strip() and isinstance(error, UserError)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            traceback.print_exc()
            found = True
        else:
            found = False
        seconds = time.monotonic() - started
        outcome.longest_seconds = max(outcome.longest_seconds, seconds)
        if found or seconds > LONGEST_SECONDS:
            outcome.findings += 1
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{outcome.cases}-{name.replace(' ', '-')}").write_bytes(content)
    return outcome


@contextmanager
def targets() -> Iterator[dict[str, Target]]:
    """All targets by name."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, requests() as asked:
        place = Path(folder)
        yield {"pictures": pictures(), "readers": readers(place), "checkpoints": checkpoints(place), "requests": asked}


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--seconds", type=float, default=300)
    flags.add_argument("--seed", type=int, default=int(time.time()))
    flags.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    args = flags.parse_args()
    totals: Counter[str] = Counter()
    with targets() as all_targets:
        for number, (name, target) in enumerate(all_targets.items()):
            until = time.monotonic() + args.seconds / len(all_targets)
            outcome = attack(target, args.seed + number, until=until, keep=args.keep)
            totals.update(cases=outcome.cases, findings=outcome.findings)
            said = f"{outcome.cases} cases, {outcome.refused} refused, {outcome.findings} findings"
            print(f"{name}: {said}, the longest {outcome.longest_seconds:.2f} s", flush=True)
    print(f"seed {args.seed}: {totals['cases']} cases, {totals['findings']} findings")
    return 1 if totals["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
