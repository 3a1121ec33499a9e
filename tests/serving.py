"""Real services on a free port of this machine: ``serve.py`` in a separate process, or its application in a thread."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import interruptible
from saiqa.calibration import Calibration, Fit, prompt_digest
from saiqa.files.checkpoint_folders import fingerprint

TOOLS = Path(__file__).resolve().parents[1] / "tools"
STOP_SECONDS = 120
MEGA = 1_000_000
TOLERANCE = 1e-5  # of a score in float32, in any batch


@dataclass
class Served:
    """A running service."""

    url: str
    process: subprocess.Popen
    log: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


@contextlib.contextmanager
def served(log: Path, *flags: str | Path, env: dict[str, str] | None = None) -> Iterator[Served]:
    """Run ``serve.py`` with these flags until the block is left; its stderr goes to ``log``."""
    command = [sys.executable, TOOLS / "serve.py", "--port", "0", *flags]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*map(str, command)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **(env or {})},
            preexec_fn=interruptible,
        )
    try:
        url = process.stdout.readline().strip()
        if not url:
            process.wait(STOP_SECONDS)
            raise RuntimeError(log.read_text())
        yield Served(url, process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def served_here(
    scorer,
    *,
    images: int = 64,
    request_mb: int = 64,
    megapixels: int = 50,
    max_queue: int = 256,
    token: str | None = None,
    hosts: tuple[str, ...] = (),
    port: int = 0,
    max_width: float | None = None,
) -> Iterator[str]:
    """Serve a scorer from a thread of this process, where its libraries are already loaded; the address."""
    import uvicorn

    from saiqa.cli import serve
    from saiqa.service.app import Settings, create_app
    from saiqa.service.intake import Limits

    limits = Limits(request_mb * MEGA, images, megapixels * MEGA)
    settings = Settings(limits, max_queue, wait_seconds=0.005, token=token, hosts=hosts, max_width=max_width)
    with serve.listen("127.0.0.1", port) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(scorer, settings), access_log=False, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(STOP_SECONDS)


def write_calibration(scorer, path: Path) -> Path:
    """A synthetic calibration of a scorer: intervals of half a point around layout, of two around the others."""
    fits = {}
    for name, asked in scorer.sentences.items():
        half = 0.25 if name == "layout" else 1.0
        fits[name] = Fit(20, 1.0, 0.0, 0.0, 1.0, (), ((-half,) * 10 + (half,) * 10,), prompt_digest(asked.query, asked.before))
    made = Calibration(fingerprint(scorer.model.checkpoint), scorer.model.engine, fits)
    path.write_text(json.dumps(made.to_json()))
    return path


def picture(seed: int, size: tuple[int, int] = (64, 48), kind: str = "PNG") -> bytes:
    """A picture file that is different for every seed."""
    generator = random.Random(seed)
    small = Image.frombytes("RGB", (4, 3), generator.randbytes(36))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BILINEAR).save(buffer, kind)
    return buffer.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """A PNG of pixels [height, width, 3] uint8."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [picture(seed) for seed in range(16)]


def form(*pictures: bytes, kind: str = "png") -> list:
    """Pictures as the files of a form, named 0.png, 1.png, ..."""
    return [("images", (f"{n}.{kind}", data)) for n, data in enumerate(pictures)]
