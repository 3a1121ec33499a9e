"""Speed of the model on a GPU and where the time goes: passes, their stages, attention, kernels."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.autograd import DeviceType
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity

import checkpoints
import inputs
import measuring
import operations
from gpu_bench import Bench, first_line
from saiqa import facts
from saiqa.engines import Request
from saiqa.engines.prefill_engine import PrefillEngine
from saiqa.errors import Failed
from saiqa.model import packed
from saiqa.model.ovis2_5 import VisionAttention

# --- Speed ------------------------------------------------------------------------------------------------------------


def measure_throughput(bench: Bench, report: dict, compiled: bool = False) -> None:
    """Images per second, share of matmul throughput and peak memory, for one and four dimensions and each batch size."""
    engine = bench.engine(compiled)
    parameters = checkpoints.count_parameters(engine.model)
    report |= {"dtype": "bfloat16", "compile": compiled, "parameters": parameters, "weight_bytes": 2 * parameters}
    report["cases"] = []
    cases = inputs.cases(bench.images, bench.batch_sizes, bench.least)
    for dimensions, engine.batch_size, requests in itertools.islice(cases, 1 if bench.tiny and compiled else None):
        peak = measuring.peak_bytes(engine, requests)
        measured = measuring.measure_prefill(engine, requests, bench.repeats, bench.matmul_side)
        halved = engine.token_budget < sys.maxsize  # there was not enough memory for such a pass
        asked = {"dimensions": len(dimensions), "batch_size": engine.batch_size}
        report["cases"].append({**asked, "peak_bytes": peak, "passes_were_halved": halved, **measured})
        engine.token_budget = sys.maxsize


def measure_compiled(bench: Bench, report: dict) -> None:
    """As ``measure_throughput``, compiled; tiny: one case. Raises ``Failed`` if no compiler works."""
    measure_throughput(bench, report, compiled=True)


def measure_stages(bench: Bench, report: dict) -> None:
    """Seconds of each stage of one pass, the best of the repeats."""
    engine, batch_sizes = bench.engine(), sorted({1, bench.batch_size})
    report["cases"] = []
    for dimensions, batch_size, requests in inputs.cases(bench.images, batch_sizes, 1):
        seconds = stage_seconds(engine, requests, bench.repeats)
        report["cases"].append({"dimensions": len(dimensions), "images": batch_size, "seconds": seconds})


def stage_seconds(engine: PrefillEngine, requests: Sequence[Request], repeats: int) -> dict[str, float]:
    """Stage -> seconds of one pass over the requests. Pictures are read by one thread here; the engine uses several."""
    rows = engine.rows(requests)
    patches, grids = map(list, zip(*map(engine.patches, rows), strict=True))
    with torch.inference_mode():
        moved = [part.to(engine.device) for part in patches]
        visual = engine.see(moved, grids)
        stages = {
            "decode and cut": lambda: [engine.patches(row) for row in rows],
            "copy to the device": lambda: torch.cat(patches).to(engine.device),
            "tower and head": lambda: engine.see(moved, grids),
            "language model": lambda: engine.answer(rows, visual),
        }
        return {name: best_of(repeats + 1, stage, engine.device) for name, stage in stages.items()}  # the first is the warm-up


def best_of(repeats: int, work: Callable[[], object], device: torch.device) -> float:
    return min(measuring.timed(work, device) for _ in range(repeats))


# --- Attention --------------------------------------------------------------------------------------------------------

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def compare_attention(bench: Bench, report: dict) -> None:
    """Seconds per call of each back end, and of torch's own choice, for the shapes of one picture with four questions."""
    report["cases"] = []
    for name, shape, gflop, work in attention_shapes(bench):
        seconds: dict[str, float] = {}
        missing: dict[str, str] = {}
        case = {"attention": name, "shape": shape, "gflop": gflop, "seconds": seconds, "missing": missing}
        report["cases"].append(case)
        for backend in ("torch's choice", *BACKENDS):
            chosen = sdpa_kernel(BACKENDS[backend]) if backend in BACKENDS else contextlib.nullcontext()
            try:
                with chosen, torch.inference_mode():
                    seconds[backend] = seconds_a_call(work, 2 if bench.tiny else 10, bench.device)
            except RuntimeError as error:  # this back end does not support the call, or lacks the memory for it
                if backend not in BACKENDS:
                    raise
                missing[backend] = first_line(error)


def seconds_a_call(work: Callable[[], object], calls: int, device: torch.device) -> float:
    """For ``calls`` in a row, the best of two runs after a warm-up."""
    return best_of(3, lambda: [work() for _ in range(calls)], device) / calls


def attention_shapes(bench: Bench) -> Iterator[tuple[str, str, float, Callable[[], object]]]:
    """(what attends, shape, GFLOP of the unmasked pairs, a call of the model's own function)"""
    engine = bench.engine()
    vit, llm = engine.model.config.vit_config, engine.model.config.llm_config
    row = operations.row_shapes(engine, inputs.questions(bench.images[:1], facts.DIMENSIONS))[0]
    prefix, suffix, images = row.prefix, row.suffixes[0], bench.batch_size
    heads, kv, head_dim = llm.num_attention_heads, llm.num_key_value_heads, llm.head_dim

    def random_of(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=engine.device, dtype=engine.dtype)

    patches = [random_of(images, row.patches, vit.num_attention_heads, vit.hidden_size // vit.num_attention_heads)] * 3
    gflop = 4 * images * row.patches**2 * vit.hidden_size / 1e9
    yield "tower", f"{images} images of {row.patches} patches", gflop, lambda: VisionAttention._attend(*patches)

    before, own, few = (random_of(tokens, heads, head_dim) for tokens in (prefix, suffix, packed.FEW))
    keys, values = (random_of(prefix + suffix, kv, head_dim) for _ in range(2))
    mask = packed.pack([([0], [[0]])], engine.device).mask(prefix, suffix, keys)
    pair = 4 * heads * head_dim / 1e9  # GFLOP per pair of a token and one that it attends to
    causal = lambda: packed._attention(before, keys[:prefix], values[:prefix], is_causal=True)
    yield "language model, picture", f"{prefix} tokens, causal", pair * prefix * (prefix + 1) / 2, causal
    masked = lambda: packed._attention(own, keys, values, attn_mask=mask)
    seen = suffix * prefix + suffix * (suffix + 1) / 2
    yield "language model, question", f"{suffix} tokens behind {prefix}, masked", pair * seen, masked
    last = lambda: packed._attention(few, keys, values)
    shape = f"{packed.FEW} times one token, {len(keys)} seen"
    yield "language model, last layer", shape, pair * packed.FEW * len(keys), last


# --- Kernels ----------------------------------------------------------------------------------------------------------


def profile_kernels(bench: Bench, report: dict) -> None:
    """The five most expensive kernels of one pass, four dimensions; on a CPU the five most expensive operators.

    Raises ``Failed`` if the profiler sees none, which happens without access to the GPU's counters.
    """
    engine, on_gpu = bench.engine(), bench.device.type == "cuda"
    requests = inputs.questions(bench.images[: bench.batch_size], facts.DIMENSIONS)
    report["pass_seconds"] = min(measuring.model_seconds(engine, requests) for _ in range(1 + bench.repeats))
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=kinds, acc_events=True) as watched:
        measuring.model_seconds(engine, requests)
    events = watched.key_averages()
    if on_gpu:
        own = {event: event.self_device_time_total / 1e6 for event in events if event.device_type == DeviceType.CUDA}
    else:
        own = {event: event.self_cpu_time_total / 1e6 for event in events}
    report["kernel_seconds"] = total = sum(own.values())
    if not total:
        raise Failed("the profiler saw no kernel")
    costliest = sorted(own, key=own.__getitem__, reverse=True)[:5]
    named = {event: {"name": event.key[:160], "calls": event.count} for event in costliest}
    report["kernels"] = [{**name, "seconds": own[event], "share": own[event] / total} for event, name in named.items()]
