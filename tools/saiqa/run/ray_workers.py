"""Rates batches in this process, or on Ray with one engine per GPU or per share of the cores.

The caller forms the batches; each goes to one engine as a whole, and the answers come back in the order of the batches. So
results do not depend on the number of workers, and only a few batches per worker are in memory. A worker that dies is
restarted and its batches are rated again.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from saiqa.engines import Engine, Failure, Rating, Request
from saiqa.errors import Failed, InputError, UserError, first_line, lacking
from saiqa.run import reaper
from saiqa.run.rate import Answers, rate
from saiqa.stopping import keeping_signals

# A worker has one batch running and one queued, so that it never waits for the process that reads and writes.
_BATCHES_A_WORKER = 2
_MOST_DEATHS_A_BATCH = 3

# The object store passes paths, prompts and ratings, never pictures; Ray's minimum size is plenty.
_OBJECT_STORE_BYTES = 80 * 2**20

_CONNECT_SECONDS = 10


def rate_batches(engine: Engine | Workers, batches: Iterable[Sequence[Request]]) -> Iterator[Answers]:
    """The answers to each batch, in order; ``batches`` is read ahead only as far as workers need."""
    if isinstance(engine, Workers):
        return engine.rate_batches(batches)
    return (rate(engine, batch) for batch in batches)


@dataclass(frozen=True)
class Fleet:
    """How many workers, where, and what each needs.

    Attributes:
        count: number of workers; None for one per GPU or, without GPUs, as many as cores and memory allow.
        address: address of a Ray cluster to join; None for workers on this machine only.
        on_gpu: whether an engine may use a GPU.
        bytes_each: approximate memory of a CPU worker.
    """

    count: int | None
    address: str | None
    on_gpu: bool
    bytes_each: int


class Workers:
    """Engines of one checkpoint, each a Ray actor in its own process. Must be closed.

    Args:
        load: creates the engine in the worker; sent there as a pickle.
        fleet: how many workers, and where.
        note: receives messages, line by line.

    Attributes:
        count: number of workers.

    Raises:
        UserError: whatever ``load`` raises; ``Failed`` if Ray does not start or the cluster cannot be reached;
            ``InputError`` for more workers than GPUs.
    """

    def __init__(self, load: Callable[[], Engine], fleet: Fleet, note: Callable[[str], None]):
        self._reaper = reaper.watch_over() if fleet.address is None else None
        note(f"joining Ray at {fleet.address}" if fleet.address else "starting Ray")
        self._ray = _connect(fleet.address)
        self._note = note
        try:
            self.count, options = self._shares(fleet)
            note(f"loading the model in {self.count} workers")
            actor = self._ray.remote(_Worker).options(**options)
            self._actors = [actor.remote(load) for _ in range(self.count)]
            self._details = _only(self._get([worker.describe.remote() for worker in self._actors]))
        except BaseException:
            self.close()
            raise
        self._processes: dict[int, int] = {}

    def _shares(self, fleet: Fleet) -> tuple[int, dict]:
        """The number of workers, and the Ray options for each."""
        there = self._ray.cluster_resources()
        gpus = int(there.get("GPU", 0)) if fleet.on_gpu else 0
        cores = max(1, int(there.get("CPU", 1)))
        count = fleet.count or gpus or max(1, min(cores, int(there.get("memory", 0) // fleet.bytes_each)))
        if gpus and count > gpus:
            raise InputError(f"{count} workers, but only {gpus} GPUs", "Use at most one worker per GPU, or the CPU")
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // count))
        return count, {
            "num_cpus": 1 if count <= cores else 0,
            "num_gpus": 1 if gpus else 0,
            "scheduling_strategy": "SPREAD",
            "max_restarts": -1,
            "max_task_retries": _MOST_DEATHS_A_BATCH,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": threads, "PYTHONPATH": _python_path()}},
        }

    def describe(self) -> dict:
        """``Engine.describe`` of the first worker's engine."""
        return self._details

    def rate_batches(self, batches: Iterable[Sequence[Request]]) -> Iterator[Answers]:
        """The answers to each batch, in order, while the next ones are being rated.

        Raises:
            Failed: a batch killed its worker at every attempt, or the cluster is gone.
        """
        free = deque(range(self.count)) * _BATCHES_A_WORKER
        waiting: deque[_UnderWay] = deque()
        batches = iter(batches)
        while True:
            while free and len(waiting) < 2 * self.count * _BATCHES_A_WORKER:
                batch = next(batches, None)
                if batch is None:
                    break
                worker = free.popleft()
                waiting.append(_UnderWay(self._actors[worker].rate.remote(_packed(batch)), worker))
            if not waiting:
                return
            self._wait(waiting, free)
            while waiting and waiting[0].done:
                yield self._answers(waiting.popleft())

    def _wait(self, waiting: Iterable[_UnderWay], free: deque[int]) -> None:
        """Wait until a batch is done, and mark all that are."""
        running = {under_way.answers: under_way for under_way in waiting if not under_way.done}
        if not running:
            return
        done, _ = self._ray.wait(list(running), num_returns=len(running), timeout=0)
        done = done or self._ray.wait(list(running), num_returns=1)[0]
        for answers in done:
            running[answers].done = True
            free.append(running[answers].worker)

    def _answers(self, done: _UnderWay) -> Answers:
        process, answers = self._get(done.answers)
        before = self._processes.setdefault(done.worker, process)
        if before != process:
            self._processes[done.worker] = process
            self._note(f"worker {done.worker + 1} of {self.count} died and was restarted; its images are rated again")
        return [Rating(*answer) if isinstance(answer, tuple) else Failure(answer) for answer in answers]

    def _get(self, answers: object) -> Any:
        """``ray.get``, raising the worker's own errors, or ``Failed`` if it died."""
        from ray.exceptions import RayActorError, RayTaskError

        try:
            return self._ray.get(answers)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        except RayActorError as error:
            what = f"a worker died {_MOST_DEATHS_A_BATCH + 1} times on the same batch: {first_line(error)}"
            raise Failed(what, "Try fewer workers, or a smaller batch size") from None

    def close(self) -> None:
        """End the workers, and Ray if it was started for them."""
        self._ray.shutdown()
        if self._reaper:
            self._reaper.kill()
            self._reaper.communicate()


@dataclass
class _UnderWay:
    """A batch given to a worker: the reference to its answers, the worker's number, and whether it is done."""

    answers: object
    worker: int
    done: bool = False


class _Worker:
    """One engine in its own process. A restarted worker has only ``load``, so the engine is loaded at first use."""

    def __init__(self, load: Callable[[], Engine]):
        self._load = load
        self._engine: Engine | None = None

    def _loaded(self) -> Engine:
        self._engine = self._engine or self._load()
        return self._engine

    def describe(self) -> dict:
        return self._loaded().describe()

    def rate(self, packed: Sequence[tuple]) -> tuple[int, list[tuple | str]]:
        """This process's id, and the answers: the parts of a rating, or the reason for a failure."""
        answers = rate(self._loaded(), [Request(*request) for request in packed])
        return os.getpid(), [(a.logprobs, a.text, a.notes) if isinstance(a, Rating) else a.reason for a in answers]


def _only(details: Sequence[dict]) -> dict:
    """The description that all engines share, whatever machines they are on.

    Raises:
        InputError: an engine has other library versions or another input for the model.
    """
    first = details[0]
    for number, other in enumerate(details[1:], 2):
        differing = [name for name in first if name != "device" and other.get(name) != first[name]]
        if differing:
            name = differing[0]
            what = f"worker {number} of {len(details)} has {name} {other.get(name)}, worker 1 has {first[name]}"
            raise InputError(what, "Every machine of the cluster needs the same packages and files")
    return first


def _packed(requests: Sequence[Request]) -> list[tuple]:
    """Requests as plain tuples, which are faster to send than our own classes."""
    return [(request.image, request.prompt, request.answer_prefix) for request in requests]


def _connect(address: str | None) -> ModuleType:
    """Ray, started on this machine's loopback interface only, or joined at ``address``."""
    import secrets

    # These are all read when Ray is imported.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # Ray prints worker deaths to stdout, which is for results
    options = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        # Without "cluster" it listens on loopback only; the token keeps other users of the machine out.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # a process reads it once
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES, "address": "local"}
    else:
        _check_reachable(address)
        options["address"] = address
    try:
        import ray
    except ModuleNotFoundError as error:
        raise lacking("rating in workers", error.name, "cluster") from None
    try:
        with keeping_signals():
            ray.init(**options)
    except Exception as error:  # Ray raises the bare class, for example if starting takes longer than 30 s
        where = "on this machine" if address is None else f"at {address}"
        raise Failed(f"Ray {where}: {first_line(error)}", "Check `ray status`, or run without workers") from error
    return ray


def _check_reachable(address: str) -> None:
    """Raise ``Failed`` if nothing listens at HOST:PORT; Ray itself would wait for minutes."""
    import socket

    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise Failed(f"Ray at {address}: {error}", "Check the address and that the cluster runs") from None


def _python_path() -> str:
    """The import path of this process without Python's own folders, so that workers import the same files."""
    own = tuple({sys.prefix, sys.base_prefix})
    return os.pathsep.join(dict.fromkeys(p or os.getcwd() for p in sys.path if not p.startswith(own)))
