"""Time and memory of the engines, and the device's matmul throughput."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch

from operations import pass_flops, row_shapes
from saiqa.engines import Engine, Failure, Rating, Request
from saiqa.engines.prefill_engine import PrefillEngine


def native(engine: Engine) -> PrefillEngine:
    """The engine as a prefill engine, whose parts can be measured. Raises ``TypeError`` for any other."""
    if not isinstance(engine, PrefillEngine):
        raise TypeError(f"the parts of the {engine.name} engine cannot be measured")
    return engine


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that ``work`` takes, including the device's work."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rate(device: torch.device, dtype: torch.dtype, side: int, repeats: int = 5) -> float:
    """Operations per second of a square matrix product of this side: the best of ``repeats``."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)
    return 2 * side**3 / min(timed(lambda: torch.mm(a, b, out=out), device) for _ in range(repeats))


def model_seconds(engine: PrefillEngine, requests: Sequence[Request]) -> float:
    """Seconds of the prefill engine's passes over the requests, with every image read and cut into patches beforehand."""
    rows = engine.rows(requests)
    batches = [(batch, *map(list, zip(*map(engine.patches, batch), strict=True))) for batch in engine.batches(rows)]

    def passes() -> None:
        with torch.inference_mode():
            for batch, patches, grids in batches:
                engine.forward(batch, list(patches), list(grids))

    return timed(passes, engine.device)


def rate_all(engine: Engine, requests: Sequence[Request]) -> list[Rating]:
    """The ratings of all requests. Raises ``RuntimeError`` if one has none: the benchmark would be meaningless."""
    ratings = []
    for answer in engine.rate(requests):
        if isinstance(answer, Failure):
            raise RuntimeError(f"{engine.name}: {answer.reason}")
        ratings.append(answer)
    return ratings


def peak_bytes(engine: PrefillEngine, requests: Sequence[Request]) -> int | None:
    """Peak memory of rating in addition to what was allocated before, in bytes; None on a CPU, where it is not counted."""
    if engine.device.type != "cuda":
        rate_all(engine, requests)
        return None
    torch.cuda.reset_peak_memory_stats(engine.device)
    before = torch.cuda.memory_allocated(engine.device)
    rate_all(engine, requests)
    return torch.cuda.max_memory_allocated(engine.device) - before


def measure_prefill(
    engine: PrefillEngine,
    requests: Sequence[Request],
    repeats: int,
    matmul_side: int,
    others: Mapping[str, Callable[[], object]] = MappingProxyType({}),
) -> dict:
    """The prefill engine, its passes alone, the large matrix product and ``others``, by name, alternating; the best counts."""
    work = {**others, "prefill": lambda: rate_all(engine, requests)}
    seconds: dict[str, list[float]] = {name: [] for name in (*work, "model")}
    products = []
    for _ in range(repeats):
        for name, call in work.items():
            seconds[name].append(timed(call, engine.device))
        seconds["model"].append(model_seconds(engine, requests))
        products.append(matmul_rate(engine.device, engine.dtype, matmul_side))
    n, rate = len({request.image for request in requests}), max(products)
    flops, best = pass_flops(engine.model.config, row_shapes(engine, requests)), min(seconds["model"])
    return {
        "prefill_images_per_s": n / min(seconds["prefill"]),
        "gflop_per_image": flops / n / 1e9,
        "model_gflops": flops / best / 1e9,
        "matmul_gflops": rate / 1e9,
        "share_of_matmul": flops / best / rate,
        "seconds": seconds,
    }
