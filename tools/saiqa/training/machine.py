"""What a machine contributes: processes, GPUs, ports, and its rank among several machines."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from saiqa import errors
from saiqa.training.options import CPU_PROCESSES, RELEASE_OPTIONS, RELEASE_PROCESSES


@dataclass(frozen=True)
class Nodes:
    """The machines of a run, from the environment variables that ms-swift passes to torchrun."""

    count: int = 1
    rank: int = 0

    @classmethod
    def of_environment(cls) -> Nodes:
        """From NNODES and NODE_RANK. Raises ``UsageError``."""
        values = {name: os.environ.get(name, default) for name, default in (("NNODES", "1"), ("NODE_RANK", "0"))}
        for name, value in values.items():
            if not value.isdecimal():
                raise errors.UsageError(f"{name} is {value!r}", "Give a whole number")
        return cls(int(values["NNODES"]), int(values["NODE_RANK"]))


def is_on_cpu(arguments: argparse.Namespace) -> bool:
    """Whether to train on a CPU: by flag, or for the demo if there is no GPU. Raises ``InputError`` if there is no GPU."""
    if arguments.device == "cpu":
        return True
    if gpu_count() > 0:
        return False
    if arguments.device == "auto" and arguments.demo:
        return True
    raise errors.InputError("no GPU is visible", "Give --device cpu to train on a CPU")


def see_only(visible: str) -> None:
    """Restrict this process and its children to these GPUs (comma-separated ids). Call before torch looks for GPUs."""
    os.environ["CUDA_VISIBLE_DEVICES"] = visible


def gpu_count() -> int:
    """Number of GPUs that this process sees."""
    import torch

    return torch.cuda.device_count()


def process_count(given: int | None, gpus: int, note: Callable[[str], None]) -> int:
    """The number of training processes: as given, else one per GPU but at most the release's number.

    Args:
        gpus: number of visible GPUs; 0 for training on a CPU.

    Raises:
        UsageError: more processes than GPUs.
    """
    if not gpus:
        return given or CPU_PROCESSES
    if given and given > gpus:
        raise errors.UsageError(f"--nproc_per_node {given}: only {gpus} GPUs are visible", "Give at most one process per GPU")
    processes = given or min(gpus, RELEASE_PROCESSES)
    if gpus > processes and not given:
        accumulation = int(RELEASE_OPTIONS["gradient_accumulation_steps"]) * RELEASE_PROCESSES // gpus
        same = f" --gradient_accumulation_steps {accumulation}" if accumulation else ""
        note(f"{processes} of {gpus} GPUs train, as in the release; --nproc_per_node {gpus}{same} uses all")
    return processes


def free_port(preferred: int, note: Callable[[str], None]) -> int:
    """``preferred``, or a free port if it is taken. No other launcher takes the port while this process lives."""
    for port in (preferred, 0):
        held = socket.socket()
        try:
            held.bind(("127.0.0.1", port))
        except OSError:
            held.close()
            continue
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # lets torchrun listen on it from now on
        _held.append(held)
        chosen = held.getsockname()[1]
        if chosen != preferred:
            note(f"port {preferred} is taken; using {chosen}")
        return chosen
    return preferred


_held: list[socket.socket] = []  # closing one would free its port
