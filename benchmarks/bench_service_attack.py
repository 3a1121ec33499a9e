#!/usr/bin/env python3
"""The clients of bench_service.py, alone and together with 32 attackers: eight that send slowly, eight that stop half-way,
eight that send too much, eight with hostile bodies. Over loopback, with the attackers in a separate process.

Requirements: no answer to a good client is lost or wrong, memory stays within 2 GB of that of the idle service, good clients
get at least 80% of the images per second, and SIGTERM ends the service within ten seconds during the attack.
"""

from __future__ import annotations

import io
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import bench_service
import service_load
import service_requests
from saiqa.cli.console import Output, run
from saiqa.errors import Failed

EACH = 8
MOST_BYTES, LEAST_SHARE, MOST_STOP_SECONDS = 2_000_000_000, 0.8, 10
PAUSE_SECONDS = 1.0
MEGABYTE_SECONDS = 0.1  # per megabyte of a body that is too large: faster only tests the network

EXAMPLES = """
python benchmarks/bench_service_attack.py
python benchmarks/bench_service_attack.py --seconds 10 --clients 8
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark. Raises ``Failed`` if a requirement is not met."""
    from saiqa import Scorer
    from saiqa.files.text_files import write_text

    flags = bench_service.parser()
    flags.description, flags.epilog = __doc__, EXAMPLES
    flags.set_defaults(output_json="benchmarks/results/service_attack.json")
    args = flags.parse_args(argv)
    out = Output()
    pool = service_requests.make_pool(Scorer(args.model_path, demo=args.model_path is None, device=args.device), args)
    before = service_load.under_load(pool, args)
    attacked = service_load.under_load(pool, args, beside=attack)
    after = service_load.under_load(pool, args)
    alone = (rate(before) + rate(after)) / 2
    share, above_idle = rate(attacked) / alone, attacked.peak_bytes - attacked.idle_bytes
    figures = {
        "images_per_second_alone": alone,
        "images_per_second_attacked": rate(attacked),
        "share": share,
        "answers": sum(attacked.statuses.values()),
        "images": sum(images for _, images in attacked.finished),
        "wrong": len(attacked.wrong),
        "peak_bytes_above_idle": above_idle,
        "stop_seconds": attacked.stop_seconds,
        "exit_code": attacked.exit_code,
    }
    for name, value in figures.items():
        out.result(f"{name:<28} {value:.3f}" if isinstance(value, float) else f"{name:<28} {value}")
    output = Path(args.output_json)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(figures, indent=2) + "\n")
    broken = [
        (attacked.wrong, f"{len(attacked.wrong)} answers were lost or wrong, the first: {attacked.wrong[:1]}"),
        (share < LEAST_SHARE, f"good clients got only {share:.0%} of the images per second"),
        (above_idle > MOST_BYTES, "the service took too much memory"),
        (attacked.stop_seconds > MOST_STOP_SECONDS or attacked.exit_code, "the service did not end in time, or failed"),
    ]
    if reasons := [reason for fails, reason in broken if fails]:
        raise Failed("; ".join(reasons), "Find out why")


def rate(load: service_load.Load) -> float:
    """Images per second of the good clients."""
    return sum(images for _, images in load.finished) / (load.finished[-1][0] - load.started)


# ---- the attackers ---------------------------------------------------------------------------------------------------


@contextmanager
def attack(port: int) -> Iterator[None]:
    """The attackers run during the block."""
    with subprocess.Popen([sys.executable, __file__, "--attack", str(port)]) as attackers:
        try:
            yield
        finally:
            attackers.kill()


def attack_for_ever(port: int) -> None:
    """Every attacker in a thread, repeatedly."""
    for kind in (slow, half, oversized, hostile):
        for number in range(EACH):
            threading.Thread(target=repeat, args=(kind, port, number), daemon=True).start()
    threading.Event().wait()


def repeat(kind: Callable[[socket.socket, int], None], port: int, number: int) -> None:
    for turn in itertools.count(number):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            kind(connection, turn)
        time.sleep(PAUSE_SECONDS)


def head(length: int, kind: str = "application/json", host: str = "localhost") -> bytes:
    lines = ("POST /score HTTP/1.1", f"Host: {host}", f"Content-Type: {kind}", f"Content-Length: {length}", "", "")
    return "\r\n".join(lines).encode()


def slow(connection: socket.socket, turn: int) -> None:
    connection.sendall(head(1000))
    while True:
        connection.sendall(b"{")
        time.sleep(0.5)


def half(connection: socket.socket, turn: int) -> None:
    connection.sendall(head(1000)[: 20 + 20 * (turn % 3)])
    connection.recv(1)


def oversized(connection: socket.socket, turn: int) -> None:
    if turn % 2:
        connection.sendall(head(10**10))
    else:
        connection.sendall(head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
    for _ in range(80):
        connection.sendall(b"100000\r\n" + b"x" * 2**20 + b"\r\n")
        time.sleep(MEGABYTE_SECONDS)
    connection.recv(1)


def hostile(connection: socket.socket, turn: int) -> None:
    connection.sendall(HOSTILE[turn % len(HOSTILE)])
    connection.recv(1)


def _hostile() -> list[bytes]:
    from PIL import Image

    def picture(image: Image.Image, kind: str, **options: bool) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    def posted(body: bytes, kind: str = "application/json", host: str = "localhost") -> bytes:
        return head(len(body), kind, host) + body

    def form(file: bytes) -> bytes:
        return posted(service_requests.form([file]), f"multipart/form-data; boundary={service_requests.BOUNDARY}")

    scans = picture(Image.new("RGB", (1900, 1900)), "JPEG", progressive=True)
    return [
        posted(b'{"images": [' + b"[]," * 8_000_000 + b"[]]}"),
        form(picture(Image.new("RGB", (7000, 7000)), "WEBP", lossless=True)),
        form(picture(Image.new("RGB", (1900, 1900)), "WEBP", lossless=True)),
        form(scans[:-2] + scans[scans.rfind(b"\xff\xda") : -2] * 3000 + b"\xff\xd9"),
        posted(b"[" * 1_000_000),
        posted(b'{"images": ["AAAA"]}', host="evil.example"),
        b"\x16\x03\x01" + bytes(range(256)) * 100,
        b"GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--attack"]:
        HOSTILE = _hostile()
        attack_for_ever(int(sys.argv[2]))
    sys.exit(run(main))
