"""Checks that the model is correct: the authors' numbers, independent of the batch that an image is rated in."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence

import torch

import checkpoints
import inputs
import measuring
from gpu_bench import REFERENCE, Bench
from saiqa import facts
from saiqa.engines import Engine, Request, load_engine
from saiqa.errors import Failed
from saiqa.model.pixels import PixelBounds
from saiqa.scoring import score_of

Rated = list[dict[str, float]]
Difference = Callable[[Rated, Rated], float]


def logprob_difference(some: Rated, others: Rated) -> float:
    return max(abs(a[word] - b[word]) for a, b in zip(some, others, strict=True) for word in facts.WORDS)


def score_difference(some: Rated, others: Rated) -> float:
    return max(abs(score_of(a) - score_of(b)) for a, b in zip(some, others, strict=True))


# dtype -> what is compared, its name, and the largest allowed difference
BOUNDS = {
    "float32": (logprob_difference, "log-probability", 1e-4),
    "bfloat16": (score_difference, "score", 0.05),
}


def check_reference(bench: Bench, report: dict) -> None:
    """The authors' numbers, and independence of the batch. Raises ``Failed`` if a difference is beyond its bound."""
    torch.set_float32_matmul_precision("highest")  # some containers enable TF32 for float32, with three digits less
    checks: list[dict] = []
    report["checks"] = checks
    for dtype, (difference, unit, bound) in BOUNDS.items():
        for name, largest in (*reference_cases(bench, dtype, difference), *invariance(bench, dtype, difference)):
            checks.append({"check": name, "dtype": dtype, "of": unit, "largest_difference": largest, "bound": bound})
    beyond = [f"{check['check']} in {check['dtype']}" for check in checks if not check["largest_difference"] <= check["bound"]]
    if beyond:
        raise Failed(f"differs by more than its bound: {', '.join(beyond)}")


def reference_cases(bench: Bench, dtype: str, difference: Difference) -> Iterator[tuple[str, float]]:
    """The cases of the reference bundle, without a system prompt and with the bundle's own."""
    cases = json.loads((REFERENCE / "expected.json").read_text(encoding="utf-8"))["cases"]
    requests = [Request(REFERENCE / case["image"], case["query"], case["answer_prefix"]) for case in cases]
    for name, system, key in (("reference", "", ""), ("reference, with system prompt", None, "_with_system")):
        engine = load_engine("prefill", REFERENCE, device=str(bench.device), dtype=dtype, system=system)
        yield name, difference(rated(engine, requests), [case[f"label_logprobs{key}"] for case in cases])


def invariance(bench: Bench, dtype: str, difference: Difference) -> Iterator[tuple[str, float]]:
    """Two pictures (tiny: one) of each of three sizes, four questions: together against alone, shuffled, in other batches."""
    sizes = ((256, 192), (100, 300), (640, 90))
    images = [image for size in sizes for image in inputs.make_images(bench.folder, size, 1 if bench.tiny else 2)]
    requests = inputs.questions(images, facts.DIMENSIONS)
    order = random.Random(checkpoints.SEED).sample(range(len(requests)), k=len(requests))
    for name, checkpoint in (("random", REFERENCE), ("demo", checkpoints.DEMO_CHECKPOINT)):
        bounds = PixelBounds(128 * 128, 28_000)  # small pictures are fast to rate
        engine = measuring.native(load_engine("prefill", checkpoint, device=str(bench.device), dtype=dtype, bounds=bounds))
        together = rated(engine, requests)
        alone = [rated(engine, [request])[0] for request in requests]
        yield f"{name} weights, alone", difference(alone, together)
        shuffled = rated(engine, [requests[place] for place in order])
        yield f"{name} weights, another order", difference(shuffled, [together[place] for place in order])
        passes = []
        for engine.batch_size, engine.token_budget in ((1, 10**6), (3, 10**6), (64, 10**6), (64, 700)):
            passes.append(difference(rated(engine, requests), together))
        yield f"{name} weights, other batches", max(passes)


def rated(engine: Engine, requests: Sequence[Request]) -> Rated:
    return [rating.logprobs for rating in measuring.rate_all(engine, requests)]
