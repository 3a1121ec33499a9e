"""Serve scores over HTTP: POST /score for programs, a web page, and /health and /metrics for operators."""

from __future__ import annotations

import argparse
import logging
import os
import re
import resource
import signal
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saiqa import prompts
from saiqa.cli import interval_flags, model_flags
from saiqa.cli.console import ArgumentParser, Output, positive_int
from saiqa.errors import InputError, UsageError, lacking
from saiqa.service import TOKEN_VARIABLE

if TYPE_CHECKING:
    from saiqa import Scorer
    from saiqa.service.gate import Gate

_WAITING_CONNECTIONS = 512
_OTHER_FILES = 128  # open files other than connections: libraries, spooled uploads
_LAST_ANSWERS_SECONDS = 6

EXAMPLES = """
python tools/serve.py --demo                                   the small checkpoint, http://127.0.0.1:8000
python tools/serve.py --port 9000 --device cuda:1
SAIQA_TOKEN=... python tools/serve.py --host 0.0.0.0           for other machines, which must send the token
curl -F images=@a.jpg -F images=@b.png http://127.0.0.1:8000/score
"""


def parser() -> ArgumentParser:
    """The flags of the command."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument_group("address and access").add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    add("--port", type=_port, default=8000, metavar="N", help="default: 8000; 0 uses a free port")
    add("--allow_host", action="append", metavar="NAME", help="a name it is reached by, besides localhost and IP addresses")
    add("--allow_frame", action="append", metavar="ORIGIN", help="a site that may show the page in a frame")
    add("--no_token", action="store_true", help="let everybody in who can reach --host")
    add("--token_file", metavar="FILE", help=f"file with the token that clients must send; or set {TOKEN_VARIABLE}")

    model_flags.add_flags(flags, exif=model_flags.ON)
    add = flags.add_argument_group("prompts and scores").add_argument
    add("--demo", action="store_true", help="use the demo's data and model instead of the release's")
    add("--data_root", metavar="DIR", help="folder or URL of the annotations with the prompts; default: ./SA-BENCH")
    add("--weights", metavar="FILE", help="weights of the overall score (default: the mean)")
    interval_flags.add_flags(add)

    add = flags.add_argument_group("limits").add_argument
    add("--max_queue", type=positive_int, default=256, metavar="N", help="images queued or in progress (default: 256)")
    add("--max_images", type=positive_int, default=64, metavar="N", help="images per request (default: 64)")
    add("--max_request_mb", type=positive_int, default=64, metavar="N", help="megabytes per request (default: 64)")
    add("--max_megapixels", type=positive_int, default=50, metavar="N", help="megapixels per image (default: 50)")
    add("--max_connections", type=positive_int, default=1000, metavar="N", help="open connections (default: 1000)")
    add("--request_seconds", type=positive_int, default=60, metavar="N", help="time for a request to arrive (default: 60)")
    add("--batch_wait_ms", type=int, default=5, metavar="N", help="how long an incomplete batch waits for more (default: 5)")
    return flags


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command until it is told to stop. Raises ``errors.UserError``."""
    args = parser().parse_args(argv)
    model_flags.check(args)
    interval_flags.check(args)
    if args.max_images > args.max_queue:
        raise UsageError("--max_images is more than --max_queue", "A full request must fit into the queue")
    out = Output()
    token = read_token(args.token_file)
    with listen(args.host, args.port) as listener:
        host, port = listener.getsockname()[:2]
        if token is None and not is_loopback(host) and not args.no_token:
            what = f"{host} can be reached from other machines, but there is no token"
            raise UsageError(what, f"Set {TOKEN_VARIABLE} or give --token_file; --no_token lets everybody in")
        app = make_app(args, token, out)
        out.result(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        serve(app, listener, args.max_connections)


def read_token(path: str | None) -> str | None:
    """The token from the file, else from the environment; None if neither. Not from the command line, which others can see."""
    text = os.environ.get(TOKEN_VARIABLE)
    source = TOKEN_VARIABLE
    if path is not None:
        try:
            text, source = Path(path).read_text(encoding="utf-8"), path
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--token_file {path} cannot be read: {error}", "Write the token into it") from None
    if text is None:
        return None
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(f"{source}: a token must be one word of ASCII characters", "Make one with `openssl rand -hex 32`")
    return token


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, opened before the model is loaded. Raises ``InputError`` if that fails."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_WAITING_CONNECTIONS)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}:{port}: {error}", "Give another --host or --port") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    import ipaddress

    return ipaddress.ip_address(host).is_loopback


def make_app(args: argparse.Namespace, token: str | None, out: Output) -> Gate:
    """The application with its model loaded. Raises ``UserError`` if there is no model."""
    from saiqa.scorer import DEMO_CAVEAT, Scorer

    names = ("model_path", "demo", "data_root", "prompt_version", "weights", "calibration")
    scorer = Scorer(**{name: getattr(args, name) for name in names}, **model_flags.options(args))
    system = prompts.shown(scorer.model.system)
    out.note(f"{scorer.model_name}: prompts from {scorer.prompt_source}; system prompt: {system}")
    if scorer.demo:
        out.note(DEMO_CAVEAT)
    try:
        from saiqa.service.app import Settings, create_app
        from saiqa.service.intake import MEGA, Limits
    except ModuleNotFoundError as error:
        raise lacking("the service", error.name, "serve") from None

    load(scorer)
    limits = Limits(args.max_request_mb * MEGA, args.max_images, args.max_megapixels * MEGA)
    wait_seconds = max(args.batch_wait_ms, 0) / 1000
    more: dict[str, Any] = {"hosts": tuple(args.allow_host or ()), "frames": tuple(map(origin, args.allow_frame or ()))}
    more |= interval_flags.options(args)
    settings = Settings(limits, args.max_queue, wait_seconds, token, request_seconds=args.request_seconds, **more)
    return create_app(scorer, settings)


def origin(text: str) -> str:
    """An origin as browsers write it, https://host or http://host:port. Raises ``UsageError`` for anything else."""
    if not re.fullmatch(r"https?://[\w.-]+(:\d+)?", text):
        raise UsageError(f"--allow_frame {text!r} is not an origin", "Give one like https://example.org")
    return text


def load(scorer: Scorer) -> None:
    """Load the model now, not at the first request. Raises ``UserError``.

    Loads in a thread that ends afterwards: a thread that has computed keeps its OpenMP helper threads, and if there are more of
    these than cores, those of the model's thread stop spinning. On two cores that cost a third of the throughput.
    """
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: scorer.engine).result()


def serve(app: Gate, listener: socket.socket, most_connections: int) -> None:
    """Serve until SIGTERM or Ctrl-C; then accept no more, finish open requests, and return within ten seconds."""
    import uvicorn

    from saiqa.service.gate import protocol

    allowed = allow_files(most_connections + _OTHER_FILES) - _OTHER_FILES

    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # broken forms are reported to the client
    # uvicorn shuts down gracefully and then raises the signal again for its caller; here this is a normal exit.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    config = uvicorn.Config(
        app,
        http=protocol(min(most_connections, allowed)),
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_LAST_ANSWERS_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])


def allow_files(wanted: int) -> int:
    """Raise this process's limit of open files to ``wanted``, if the system allows; returns the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
