"""The flags of a command that can run several engines in parallel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from saiqa.cli.console import positive_int
from saiqa.errors import UsageError
from saiqa.run.ray_workers import Workers

if TYPE_CHECKING:
    from argparse import Namespace

    from saiqa.run.spec import Model

AUTO = "auto"


def add_flags(add: Callable[..., object]) -> None:
    """Add the flags with ``add``, the ``add_argument`` of a group."""
    add("--workers", type=_count, metavar="N", help="parallel engines, on Ray; auto: one per GPU, else by CPU cores")
    add("--ray_address", metavar="ADDRESS", help="join this Ray cluster and use its workers (default: this machine)")


def _count(text: str) -> int | str:
    return AUTO if text == AUTO else positive_int(text)


def wanted(args: Namespace) -> bool:
    """Whether the model runs in workers rather than in this process."""
    return args.workers not in (None, 1) or args.ray_address is not None


def check(args: Namespace) -> None:
    """Raise ``UsageError`` if one GPU is given for several workers."""
    if wanted(args) and args.device.startswith("cuda:"):
        raise UsageError(f"--device {args.device} is one GPU, but --workers needs one per worker", "Use --device cuda")


def start(model: Model, args: Namespace, note: Callable[[str], None]) -> Workers:
    """The workers asked for, with their models loaded. Raises what ``Workers`` does."""
    fleet = model.fleet(None if args.workers == AUTO else args.workers, args.ray_address)
    workers = Workers(model.load, fleet, note)
    note(f"{workers.count} workers on {workers.describe()['device']}")
    return workers
