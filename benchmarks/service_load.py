"""Load on the service: clients, what they observe, and ``score_images.py`` alone for comparison."""

from __future__ import annotations

import http.client
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

from saiqa.errors import Failed
from saiqa.scorer import CHUNK_IMAGES
from service_requests import BOUNDARY, MAX_IMAGES, MAX_MEGAPIXELS, Known, check, draw

TOOLS = Path(__file__).resolve().parents[1] / "tools"
ANSWER_SECONDS = 300


@dataclass(frozen=True)
class Alone:
    """``score_images.py`` running alone, from its first lines to its last: without startup and loading."""

    images: int
    seconds: float
    processor_seconds: float


def score_images(pool: Sequence[Known], args: Namespace) -> Alone:
    """Run the command on copies of the pool's pictures. Raises ``Failed`` if it fails."""
    with tempfile.TemporaryDirectory(prefix="saiqa-bench-") as folder:
        for place in range(args.alone_images):
            Path(folder, f"{place:06}.jpg").write_bytes(pool[place % len(pool)].data)
        command = [sys.executable, TOOLS / "score_images.py", folder, *model_flags(args)]
        unbuffered = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=unbuffered) as process:
            assert process.stdout is not None and process.stderr is not None
            lines = ((time.perf_counter(), _processor_seconds(process.pid)) for _ in process.stdout)
            times = list(lines)[CHUNK_IMAGES:]  # the table's header, and the first images but one
            problem = process.stderr.read().decode()
    if process.returncode:
        raise Failed(f"score_images.py ended with {process.returncode}: {problem}", "Find out why")
    (started, processor), (ended, processor_then) = times[0], times[-1]
    return Alone(len(times) - 1, ended - started, processor_then - processor)


def _processor_seconds(process: int) -> float:
    """The processor seconds of a process on all cores, from /proc."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def model_flags(args: Namespace) -> list[str]:
    """The commands' flags for the model and its device."""
    return [*(["--model_path", args.model_path] if args.model_path else ["--demo"]), "--device", args.device]


# ---- load ------------------------------------------------------------------------------------------------------------


@dataclass
class Load:
    """What all clients have observed."""

    statuses: Counter = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # for answers with status 200
    finished: list[tuple[float, int]] = field(default_factory=list)  # when, and how many images
    wrong: list[str] = field(default_factory=list)
    metrics_before: str = ""
    metrics: str = ""
    exit_code: int | None = None
    idle_bytes: int = 0  # the service's memory before the clients start
    peak_bytes: int = 0
    stop_seconds: float = 0.0
    started: float = 0.0
    ended: float = 0.0


def under_load(
    pool: Sequence[Known], args: Namespace, beside: Callable[[int], AbstractContextManager] = lambda port: nullcontext()
) -> Load:
    """Start the service, run the clients against it, and stop it.

    Args:
        beside: what else runs meanwhile against the service at a port.
    """
    limits = ["--max_images", MAX_IMAGES, "--max_megapixels", MAX_MEGAPIXELS, "--max_queue", args.max_queue]
    command = [sys.executable, TOOLS / "serve.py", "--port", 0, *model_flags(args), *limits]
    load = Load()
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        try:
            address = urlsplit(service.stdout.readline().strip())
            if not address.port:
                raise Failed("serve.py did not start", "Its error is above")
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


def client(number: int, port: int, pool: Sequence[Known], args: Namespace, load: Load) -> None:
    """One client: sends requests until the time is up, and checks every answer."""
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
            connection.close()  # the service closes idle connections
            time.sleep(max(min(float(headers["Retry-After"]), load.ended - time.perf_counter()), 0))


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, Message, bytes]:
    """Status, headers and body of one answer."""
    connection.request(method, path, body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"} if body else {})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def metrics_of(port: int) -> str:
    """The current text of /metrics."""
    return ask(http.client.HTTPConnection("127.0.0.1", port), "GET", "/metrics")[2].decode()
