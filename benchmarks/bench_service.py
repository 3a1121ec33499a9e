#!/usr/bin/env python3
"""Many clients at once against serve.py: is every answer that of the client's own images, is every refusal clean, and how
far does the service stay behind ``score_images.py`` on the same images? Everything runs on this machine, over loopback.

Each client keeps one connection and sends pictures it draws at random. Now and then it sends what must be refused (too many
images, too many pixels, no form) or a broken picture among good ones, and the queue is shorter than what the clients could
fill, so that some are told to come again. Every score is compared with what ``Scorer`` has said of that image.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

TOOLS = Path(__file__).resolve().parents[1] / "tools"
sys.path.insert(0, str(TOOLS))

from saiqa.cli.console import ArgumentParser, Output, positive_int, run
from saiqa.errors import Failed, InputError, UsageError
from saiqa.files import folders
from saiqa.scorer import CHUNK_IMAGES

APART = 10  # tolerances that two images of the pool differ by at least, in one dimension
ODD_SHARE = 0.04  # of the requests, those that must be refused or have a broken picture
MAX_IMAGES, MAX_MEGAPIXELS = 8, 4
PROCESSOR = "process_cpu_seconds_total"
BOUNDARY = "saiqa-benchmark"
ANSWER_SECONDS = 300

EXAMPLES = """
python benchmarks/bench_service.py
python benchmarks/bench_service.py --clients 8 --seconds 10
python benchmarks/bench_service.py --model_path SA-IQA-model/sa-iqa-prompt4 --images renders/
"""


def parser() -> ArgumentParser:
    """The flags of the script."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument
    add("--model_path", metavar="DIR", help="default: the demo's checkpoint")
    add("--images", metavar="DIR", help="folder with pictures (default: those of the demo)")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add("--clients", type=positive_int, default=64, metavar="N", help="default: 64")
    add("--seconds", type=positive_int, default=60, metavar="N", help="of load (default: 60)")
    add("--alone_images", type=positive_int, default=1280, metavar="N", help="for score_images.py, twice (default: 1280)")
    add("--images_per_request", type=positive_int, default=4, metavar="N", help="default: 4")
    add("--max_queue", type=positive_int, default=128, metavar="N", help="images that may wait (default: 128)")
    add("--pool", type=positive_int, default=48, metavar="N", help="different images (default: 48)")
    tolerance = "of a score, for batches of another composition round otherwise (default: 1e-5; bfloat16 needs 0.005)"
    add("--tolerance", type=float, default=1e-5, metavar="X", help=tolerance)
    add("--output_json", default="benchmarks/results/service.json", metavar="FILE")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark. Raises ``Failed`` where an answer was wrong."""
    from saiqa import Scorer
    from saiqa.files.text_files import write_text

    args = parser().parse_args(argv)
    if args.alone_images < 2 * CHUNK_IMAGES:
        raise UsageError(f"--alone_images {args.alone_images} is too few to tell a rate", f"At least {2 * CHUNK_IMAGES}")
    out = Output()
    pool = make_pool(Scorer(args.model_path, demo=args.model_path is None, device=args.device), args)
    out.note(f"{len(pool)} images, {args.clients} clients, {args.seconds} s")
    alone = [score_images(pool, args)]
    load = under_load(pool, args)
    alone.append(score_images(pool, args))
    figures = summary(load, alone, args)
    for name, value in figures.items():
        out.result(f"{name:<28} {value:.3f}" if isinstance(value, float) else f"{name:<28} {value}")
    output = Path(args.output_json)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(figures, indent=2) + "\n")
    if load.wrong:
        raise Failed(f"{len(load.wrong)} answers were wrong, the first: {load.wrong[0]}", "Find out why")


# ---- images and what is true of them ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """A picture's file and its scores by ``Scorer``."""

    data: bytes
    scores: dict[str, float]


def make_pool(scorer, args) -> list[Known]:
    """Pictures that can be told apart by their scores. Raises ``InputError`` where there are too few."""
    folder = Path(args.images) if args.images else folders.roots(demo=True).data / "images"
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    random.Random(0).shuffle(paths)
    files = [path.read_bytes() for path in paths[: 2 * args.pool]]
    pool: list[Known] = []
    for data, result in zip(files, scorer.score(files), strict=True):
        if result.error is None and all(_distance(result.scores, known.scores) > APART * args.tolerance for known in pool):
            pool.append(Known(data, result.scores))
    if len(pool) < MAX_IMAGES:
        raise InputError(f"{folder} has only {len(pool)} pictures with different scores", "Give --images with more")
    return pool[: args.pool]


def _distance(a: dict[str, float], b: dict[str, float]) -> float:
    """The largest difference of a score."""
    return max(abs(a[name] - b[name]) for name in a)


@dataclass(frozen=True)
class Alone:
    """``score_images.py`` with nobody else at work, from its first lines to its last: no start, no loading."""

    images: int
    seconds: float
    processor_seconds: float


def score_images(pool: Sequence[Known], args) -> Alone:
    """Let the command score copies of the pool's pictures. Raises ``Failed`` where it does not."""
    with tempfile.TemporaryDirectory(prefix="saiqa-bench-") as folder:
        for place in range(args.alone_images):
            Path(folder, f"{place:06}.jpg").write_bytes(pool[place % len(pool)].data)
        command = [sys.executable, TOOLS / "score_images.py", folder, *model_flags(args)]
        unbuffered = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=unbuffered) as process:
            lines = ((time.perf_counter(), _processor_seconds(process.pid)) for _ in process.stdout)
            times = list(lines)[CHUNK_IMAGES:]  # the table's head, and the first images but one
            problem = process.stderr.read().decode()
    if process.returncode:
        raise Failed(f"score_images.py ended with {process.returncode}: {problem}", "Find out why")
    (started, processor), (ended, processor_then) = times[0], times[-1]
    return Alone(len(times) - 1, ended - started, processor_then - processor)


def _processor_seconds(process: int) -> float:
    """What a process has used of all cores, from /proc."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def model_flags(args) -> list[str]:
    """Which model, and where it runs, for the commands."""
    return [*(["--model_path", args.model_path] if args.model_path else ["--demo"]), "--device", args.device]


# ---- load ------------------------------------------------------------------------------------------------------------


@dataclass
class Load:
    """What the clients have seen, together."""

    statuses: Counter = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # of answers with status 200
    finished: list[tuple[float, int]] = field(default_factory=list)  # when, and how many images
    wrong: list[str] = field(default_factory=list)
    metrics_before: str = ""
    metrics: str = ""
    exit_code: int | None = None
    idle_bytes: int = 0  # of the service's memory before the clients come
    peak_bytes: int = 0
    stop_seconds: float = 0.0
    started: float = 0.0
    ended: float = 0.0


def under_load(
    pool: Sequence[Known], args, beside: Callable[[int], AbstractContextManager] = lambda port: nullcontext()
) -> Load:
    """Start the service, let the clients loose on it, and stop it.

    Args:
        beside: what else is to happen meanwhile to the service at a port.
    """
    limits = ["--max_images", MAX_IMAGES, "--max_megapixels", MAX_MEGAPIXELS, "--max_queue", args.max_queue]
    command = [sys.executable, TOOLS / "serve.py", "--port", 0, *model_flags(args), *limits]
    load = Load()
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as service:
        try:
            address = urlsplit(service.stdout.readline().strip())
            if not address.port:
                raise Failed("serve.py has not started", "Its error is above")
            load.metrics_before = metrics_of(address.port)
            load.idle_bytes = _memory(service.pid, "VmRSS")
            with beside(address.port):
                load.started = time.perf_counter()
                load.ended = load.started + args.seconds
                every = ((n, address.port, pool, args, load) for n in range(args.clients))
                threads = [threading.Thread(target=client, args=one) for one in every]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                load.metrics = metrics_of(address.port)
                load.peak_bytes = _memory(service.pid, "VmHWM")
                stopped = time.perf_counter()
                service.send_signal(signal.SIGTERM)
                service.wait()
                load.stop_seconds = time.perf_counter() - stopped
        finally:
            service.send_signal(signal.SIGTERM)
    load.exit_code = service.returncode
    return load


def _memory(process: int, field: str) -> int:
    """A figure of a process's memory in bytes, from /proc."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def client(number: int, port: int, pool: Sequence[Known], args, load: Load) -> None:
    """One client: asks until the time is over, and checks every answer."""
    generator = random.Random(number)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    while time.perf_counter() < load.ended:
        request = draw(generator, pool, args.images_per_request)
        started = time.perf_counter()
        try:
            status, headers, body = ask(connection, "POST", "/score", request.body)
        except (OSError, http.client.HTTPException) as error:
            load.wrong.append(f"client {number}: {type(error).__name__}: {error}")
            connection.close()
            continue
        load.statuses[status] += 1
        problem = check(request, status, headers, body, args.tolerance)
        if problem:
            load.wrong.append(f"client {number}: {problem}")
        elif status == 200:
            load.seconds.append(time.perf_counter() - started)
            load.finished.append((time.perf_counter(), len(request.wanted)))
        elif status == 503:
            connection.close()  # the service closes what is idle
            time.sleep(max(min(float(headers["Retry-After"]), load.ended - time.perf_counter()), 0))


def ask(connection, method: str, path: str, body: bytes | None = None) -> tuple[int, Message, bytes]:
    """Status, headers and body of one answer."""
    connection.request(method, path, body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"} if body else {})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def metrics_of(port: int) -> str:
    """What /metrics tells now."""
    return ask(http.client.HTTPConnection("127.0.0.1", port), "GET", "/metrics")[2].decode()


# ---- requests and their answers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """A request, and what must come of it: a refusal's status, or the scores of each image (None for a broken one)."""

    body: bytes
    status: int
    wanted: list[dict[str, float] | None]


def draw(generator: random.Random, pool: Sequence[Known], count: int) -> Sent:
    """A request of some images of the pool; at times one that must be refused, or has a broken picture."""
    chosen = generator.choices(pool, k=count)
    files, wanted = [known.data for known in chosen], [known.scores for known in chosen]
    if generator.random() > ODD_SHARE:
        return Sent(form(files), 200, wanted)
    kind = generator.choice(("images", "pixels", "form", "broken"))
    if kind == "images":
        return Sent(form([pool[0].data] * (MAX_IMAGES + 1)), 413, [])
    if kind == "pixels":
        return Sent(form([*files, _large_picture()]), 413, [])
    if kind == "form":
        return Sent(b"no form", 422, [])
    place = generator.randrange(count)
    files[place], wanted[place] = files[place][: len(files[place]) // 2], None
    return Sent(form(files), 200, wanted)


def form(files: Sequence[bytes]) -> bytes:
    """A multipart body; the file names say the place."""
    head = '--{}\r\nContent-Disposition: form-data; name="images"; filename="{}"\r\n\r\n'
    parts = [head.format(BOUNDARY, place).encode() + data + b"\r\n" for place, data in enumerate(files)]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def _large_picture() -> bytes:
    """A small file of more pixels than the service takes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("1", (2001, 1000 * MAX_MEGAPIXELS // 2)).save(buffer, "PNG")
    return buffer.getvalue()


def check(sent: Sent, status: int, headers: Message, body: bytes, tolerance: float) -> str | None:
    """What is wrong with an answer; None where it is as it must be."""
    if status == 503:
        clean = headers.get("Retry-After", "").isdecimal() and "detail" in json.loads(body)
        return None if clean else f"503 without Retry-After or detail: {body[:200]!r}"
    if status != sent.status:
        return f"status {status} instead of {sent.status}: {body[:200]!r}"
    if status != 200:
        return None if json.loads(body).get("detail") else f"{status} without detail"
    results = json.loads(body)["results"]
    if [result["name"] for result in results] != [str(place) for place in range(len(sent.wanted))]:
        return f"results of {[result['name'] for result in results]} for {len(sent.wanted)} images"
    problems = (_problem(result, wanted, tolerance) for result, wanted in zip(results, sent.wanted, strict=True))
    return next(filter(None, problems), None)


def _problem(result: dict, wanted: dict[str, float] | None, tolerance: float) -> str | None:
    if wanted is None:
        return None if result["error"] and not result["scores"] else "a broken picture has a score"
    if result["error"] or result["scores"].keys() != wanted.keys():
        return f"no scores: {result['error']}"
    far = _distance(result["scores"], wanted)
    return f"scores that are {far:.2g} from the image's own" if far > tolerance else None


# ---- figures ---------------------------------------------------------------------------------------------------------


def summary(load: Load, alone: Sequence[Alone], args) -> dict:
    """The figures of one run. Processor seconds count all cores, and other programs on the machine disturb them least."""
    images = sum(count for _, count in load.finished)
    # Up to the last answer: the queue is never empty before.
    rate = images / (max((when for when, _ in load.finished), default=load.ended) - load.started)
    alone_rate = sum(run.images for run in alone) / sum(run.seconds for run in alone)
    alone_processor = sum(run.processor_seconds for run in alone) / sum(run.images for run in alone)
    processor = metric(load.metrics, PROCESSOR) - metric(load.metrics_before, PROCESSOR)
    latencies = statistics.quantiles(load.seconds, n=100) if len(load.seconds) > 1 else [0.0] * 99
    return {
        "clients": args.clients,
        "seconds": args.seconds,
        "images_per_request": args.images_per_request,
        "answers": {str(status): count for status, count in sorted(load.statuses.items())},
        "wrong": len(load.wrong),
        "images_checked": images,
        "service_images_per_second": rate,
        "alone_images_per_second": alone_rate,
        "ratio": rate / alone_rate,
        "service_processor_ms_an_image": 1000 * processor / max(images, 1),
        "alone_processor_ms_an_image": 1000 * alone_processor,
        "seconds_p50": latencies[49],
        "seconds_p95": latencies[94],
        "images_a_batch": metric(load.metrics, "saiqa_batch_images_sum") / metric(load.metrics, "saiqa_batch_images_count"),
        "exit_code": load.exit_code,
    }


def metric(text: str, name: str) -> float:
    """A value of /metrics."""
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


if __name__ == "__main__":
    sys.exit(run(main))
