"""Whether the native model is right on a GPU, how fast it is there, and where its time goes.

Needs torch, transformers and what they bring, numpy, scipy and Pillow, and no network. The 9B shape has random weights that are
made on the GPU, in bfloat16: about 25 GB of its memory. Every part has a bound in seconds, and stands in the JSON as soon as it
has ended. Exit codes: 1 where a part failed, 3 where none did but some part was stopped at its bound.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import itertools
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]

import torch
import transformers
from torch.autograd import DeviceType
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity

import shared
from saiqa import facts
from saiqa.cli.console import ArgumentParser, positive_int, run
from saiqa.engines import Request, load_engine
from saiqa.engines.loading import resolve_dtype
from saiqa.engines.prefill_engine import PrefillEngine
from saiqa.errors import Failed, Incomplete
from saiqa.model import packed
from saiqa.model.ovis2_5 import VisionAttention
from saiqa.model.pixels import PixelBounds
from saiqa.scoring import score_of

REPOSITORY = HERE.parent
REFERENCE = REPOSITORY / "tests" / "data" / "ovis2_5-reference"
EXAMPLES = """
bash benchmarks/gpu_check.sh
bash benchmarks/gpu_check.sh --parts reference,throughput --batch_sizes 8 16 --seconds 200
bash benchmarks/gpu_check.sh --device cpu --tiny
"""
PASSED, FAILED, STOPPED, NOT_INSTALLED = "passed", "failed", "stopped", "not installed"


class OverTime(Exception):
    """A part has used up its seconds."""


class NotInstalled(Exception):
    """A part needs a package that is not here."""


@dataclass
class Bench:
    """What the parts share: the device, the sizes, and the model, which is made when a part first asks for it."""

    device: torch.device
    tiny: bool
    size: tuple[int, int]  # width and height of the pictures in pixels
    batch_sizes: Sequence[int]
    repeats: int
    folder: Path
    _engines: dict[bool, PrefillEngine] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """Images a pass where not the batch size is in question."""
        return 2 if self.tiny else 8

    @property
    def least(self) -> int:
        """Pictures that are rated at least, so that a small batch is measured over several passes."""
        return 1 if self.tiny else 8

    @property
    def matmul_side(self) -> int:
        return 256 if self.tiny else 8192

    @cached_property
    def images(self) -> list[Path]:
        return shared.make_images(self.folder, self.size, max(self.least, self.batch_size, *self.batch_sizes))

    @cached_property
    def model_and_tokenizer(self) -> tuple:
        shape = shared.TINY if self.tiny else shared.NINE_B
        return shared.build_model(shape, resolve_dtype("bfloat16", self.device, REFERENCE), self.device)

    def engine(self, compiled: bool = False) -> PrefillEngine:
        """One of the two engines at a time: each holds the language model's weights in its own order."""
        if compiled not in self._engines:
            self._engines.clear()
            self._engines[compiled] = PrefillEngine.of_model(*self.model_and_tokenizer, compile=compiled)
        engine = self._engines[compiled]
        engine.batch_size, engine.token_budget = self.batch_size, sys.maxsize  # the batch size alone decides
        return engine

    def forget_model(self) -> None:
        """Give its memory back; who asks for it next makes it anew."""
        self._engines.clear()
        self.__dict__.pop("model_and_tokenizer", None)
        give_memory_back(self.device)


def give_memory_back(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        with contextlib.suppress(RuntimeError):  # the device may be what has failed
            torch.cuda.empty_cache()


# --- Reference cases, and the same whatever an image is rated with ----------------------------------------------------

Rated = list[dict[str, float]]


def logprob_difference(some: Rated, others: Rated) -> float:
    return max(abs(a[word] - b[word]) for a, b in zip(some, others, strict=True) for word in facts.WORDS)


def score_difference(some: Rated, others: Rated) -> float:
    return max(abs(score_of(a) - score_of(b)) for a, b in zip(some, others, strict=True))


# dtype -> what is compared, its name, and how far apart it may be
BOUNDS = {
    "float32": (logprob_difference, "log-probability", 1e-4),
    "bfloat16": (score_difference, "score", 0.05),
}


def check_reference(bench: Bench, report: dict) -> None:
    """The authors' numbers, and an image's own whatever shares its pass. Raises ``Failed`` where one is out of its bound."""
    torch.set_float32_matmul_precision("highest")  # some containers let float32 be TF32, three digits less
    report["checks"] = checks = []
    for dtype, (difference, unit, bound) in BOUNDS.items():
        for name, largest in (*reference_cases(bench, dtype, difference), *invariance(bench, dtype, difference)):
            checks.append({"check": name, "dtype": dtype, "of": unit, "largest_difference": largest, "bound": bound})
    beyond = [f"{check['check']} in {check['dtype']}" for check in checks if not check["largest_difference"] <= check["bound"]]
    if beyond:
        raise Failed(f"differs by more than its bound: {', '.join(beyond)}")


def reference_cases(bench: Bench, dtype: str, difference: Callable) -> Iterator[tuple[str, float]]:
    """The cases of the reference bundle, asked without a system prompt and with the bundle's own."""
    cases = json.loads((REFERENCE / "expected.json").read_text(encoding="utf-8"))["cases"]
    requests = [Request(REFERENCE / case["image"], case["query"], case["answer_prefix"]) for case in cases]
    for name, system, key in (("reference", "", ""), ("reference, with system prompt", None, "_with_system")):
        engine = load_engine("prefill", REFERENCE, device=str(bench.device), dtype=dtype, system=system)
        yield name, difference(rated(engine, requests), [case[f"label_logprobs{key}"] for case in cases])


def invariance(bench: Bench, dtype: str, difference: Callable) -> Iterator[tuple[str, float]]:
    """Two pictures (tiny: one) of three sizes each, four questions: together, against alone, shuffled, in other passes."""
    sizes = ((256, 192), (100, 300), (640, 90))
    images = [image for size in sizes for image in shared.make_images(bench.folder, size, 1 if bench.tiny else 2)]
    requests = shared.questions(images, facts.DIMENSIONS)
    order = random.Random(shared.SEED).sample(range(len(requests)), k=len(requests))
    for name, checkpoint in (("random", REFERENCE), ("demo", shared.DEMO_CHECKPOINT)):
        bounds = PixelBounds(128 * 128, 28_000)  # small pictures are quickly rated
        engine = load_engine("prefill", checkpoint, device=str(bench.device), dtype=dtype, bounds=bounds)
        together = rated(engine, requests)
        alone = [rated(engine, [request])[0] for request in requests]
        yield f"{name} weights, alone", difference(alone, together)
        shuffled = rated(engine, [requests[place] for place in order])
        yield f"{name} weights, another order", difference(shuffled, [together[place] for place in order])
        passes = []
        for engine.batch_size, engine.token_budget in ((1, 10**6), (3, 10**6), (64, 10**6), (64, 700)):
            passes.append(difference(rated(engine, requests), together))
        yield f"{name} weights, other batches", max(passes)


def rated(engine, requests: Sequence[Request]) -> Rated:
    return [rating.logprobs for rating in shared.rate_all(engine, requests)]


# --- Speed ------------------------------------------------------------------------------------------------------------


def measure_throughput(bench: Bench, report: dict, compiled: bool = False) -> None:
    """Images a second, share of the large product's rate and peak memory, for one and four dimensions and each batch size."""
    engine = bench.engine(compiled)
    parameters = shared.count_parameters(engine.model)
    report |= {"dtype": "bfloat16", "compile": compiled, "parameters": parameters, "weight_bytes": 2 * parameters}
    report["cases"] = []
    cases = shared.cases(bench.images, bench.batch_sizes, bench.least)
    for dimensions, engine.batch_size, requests in itertools.islice(cases, 1 if bench.tiny and compiled else None):
        peak = shared.peak_bytes(engine, requests)
        measured = shared.measure_prefill(engine, requests, bench.repeats, bench.matmul_side)
        halved = engine.token_budget < sys.maxsize  # memory did not suffice for such a pass
        asked = {"dimensions": len(dimensions), "batch_size": engine.batch_size}
        report["cases"].append({**asked, "peak_bytes": peak, "passes_were_halved": halved, **measured})
        engine.token_budget = sys.maxsize


def measure_compiled(bench: Bench, report: dict) -> None:
    """As ``measure_throughput``, compiled; tiny: one case. Raises ``Failed`` where no compiler works."""
    measure_throughput(bench, report, compiled=True)


def measure_stages(bench: Bench, report: dict) -> None:
    """Seconds of each stage of one pass, the best of the repeats."""
    engine, batch_sizes = bench.engine(), sorted({1, bench.batch_size})
    report["cases"] = []
    for dimensions, batch_size, requests in shared.cases(bench.images, batch_sizes, 1):
        seconds = stage_seconds(engine, requests, bench.repeats)
        report["cases"].append({"dimensions": len(dimensions), "images": batch_size, "seconds": seconds})


def stage_seconds(engine: PrefillEngine, requests: Sequence[Request], repeats: int) -> dict[str, float]:
    """Stage -> seconds of one pass over the requests. Pictures are read by one thread here; the engine has several."""
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
        return {name: best_of(repeats + 1, stage, engine.device) for name, stage in stages.items()}  # the first warms up


def best_of(repeats: int, work: Callable[[], object], device: torch.device) -> float:
    return min(shared.timed(work, device) for _ in range(repeats))


# --- Attention --------------------------------------------------------------------------------------------------------

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def compare_attention(bench: Bench, report: dict) -> None:
    """Seconds a call of each back end, and of torch's own choice, for the shapes that one picture with four questions has."""
    report["cases"] = []
    for name, shape, gflop, work in attention_shapes(bench):
        case = {"attention": name, "shape": shape, "gflop": gflop, "seconds": {}, "missing": {}}
        report["cases"].append(case)
        for backend in ("torch's choice", *BACKENDS):
            chosen = sdpa_kernel(BACKENDS[backend]) if backend in BACKENDS else contextlib.nullcontext()
            try:
                with chosen, torch.inference_mode():
                    case["seconds"][backend] = seconds_a_call(work, 2 if bench.tiny else 10, bench.device)
            except RuntimeError as error:  # this back end does not know such a call, or has not enough memory for it
                if backend not in BACKENDS:
                    raise
                case["missing"][backend] = first_line(error)


def seconds_a_call(work: Callable[[], object], calls: int, device: torch.device) -> float:
    """Of ``calls`` in a row, the best of two turns after one that warms up."""
    return best_of(3, lambda: [work() for _ in range(calls)], device) / calls


def attention_shapes(bench: Bench) -> Iterator[tuple[str, str, float, Callable[[], object]]]:
    """(what attends, shape, GFLOP of what is seen, a call of the model's own function)"""
    engine = bench.engine()
    vit, llm = engine.model.config.vit_config, engine.model.config.llm_config
    row = shared.row_shapes(engine, shared.questions(bench.images[:1], facts.DIMENSIONS))[0]
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
    pair = 4 * heads * head_dim / 1e9  # GFLOP of a token that sees another
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
    """The five costliest kernels of one pass, four dimensions; on a CPU the five costliest operators.

    Raises ``Failed`` where the profiler sees none, as it does without rights to the GPU's counters.
    """
    engine, on_gpu = bench.engine(), bench.device.type == "cuda"
    requests = shared.questions(bench.images[: bench.batch_size], facts.DIMENSIONS)
    report["pass_seconds"] = min(shared.model_seconds(engine, requests) for _ in range(1 + bench.repeats))
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=kinds, acc_events=True) as watched:
        shared.model_seconds(engine, requests)
    events = watched.key_averages()
    if on_gpu:
        own = {event: event.self_device_time_total / 1e6 for event in events if event.device_type == DeviceType.CUDA}
    else:
        own = {event: event.self_cpu_time_total / 1e6 for event in events}
    report["kernel_seconds"] = total = sum(own.values())
    if not total:
        raise Failed("the profiler has seen no kernel")
    costliest = sorted(own, key=own.get, reverse=True)[:5]
    named = {event: {"name": event.key[:160], "calls": event.count} for event in costliest}
    report["kernels"] = [{**name, "seconds": own[event], "share": own[event] / total} for event, name in named.items()]


# --- Training ---------------------------------------------------------------------------------------------------------

TRAINING_STEPS = 10


def measure_training(bench: Bench, report: dict) -> None:
    """Peak memory of ten steps of ``train_sft.sh`` on the demo's data: the 2B shape, whose training fits on one GPU; the
    checkpoint it starts from takes 5 GB of disk. A tiny run only has the steps planned. Raises ``NotInstalled``."""
    missing = [package for package in ("swift", "deepspeed") if importlib.util.find_spec(package) is None]
    if missing:
        raise NotInstalled(" and ".join({"swift": "ms-swift"}.get(package, package) for package in missing))
    shape = "tiny" if bench.tiny else "2b"
    base, output = bench.folder / "base", bench.folder / "trained"
    report |= {"shape": shape, "steps": TRAINING_STEPS, "planned_only": bench.tiny}
    report["parameters"] = shared.build_checkpoint(base, shared.SHAPES[shape], torch.bfloat16, str(bench.device))
    command = ["bash", str(REPOSITORY / "tools" / "train_sft.sh"), "--demo", "--device", bench.device.type]
    command += ["--model", str(base), "--output_dir", str(output), "--max_steps", str(TRAINING_STEPS), "--nproc_per_node", "1"]
    command += ["--per_device_train_batch_size", "2", "--eval_strategy", "no", "--logging_steps", "1"]
    bench.forget_model()
    started = time.perf_counter()
    try:
        run_within([*command, *(["--dry_run"] if bench.tiny else [])])
    finally:
        report["seconds_with_start"] = time.perf_counter() - started
        report |= logged(output)


def run_within(command: list[str]) -> None:
    """Run a command; end it and what it started where this is interrupted. Raises ``Failed`` with the end of what it said."""
    environment = {**os.environ, "PYTHON": sys.executable}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as process:
        try:
            said, _ = process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise Failed(f"training ended with {process.returncode}: {said.strip()[-300:]}")


def logged(output: Path) -> dict:
    """Steps and peak memory in bytes as ms-swift has logged them under a folder; None where it has not."""
    lines = [json.loads(line) for path in output.rglob("logging.jsonl") for line in path.read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    peaks = [line["memory(GiB)"] * 2**30 for line in lines if "memory(GiB)" in line]
    return {"steps_done": len(steps), "peak_bytes": max(peaks, default=None)}


# --- Parts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A part of the check: what it does, and the most seconds it may take. They add up to eight minutes."""

    work: Callable[[Bench, dict], None]
    seconds: int


# In this order; compiling comes last, for it changes the model.
PARTS = {
    "reference": Part(check_reference, 60),
    "throughput": Part(measure_throughput, 100),
    "attention": Part(compare_attention, 30),
    "stages": Part(measure_stages, 40),
    "profile": Part(profile_kernels, 40),
    "training": Part(measure_training, 90),
    "compiled": Part(measure_compiled, 130),
}


def run_part(bench: Bench, part: Part, seconds: int) -> dict:
    """Outcome and figures of a part; those that it had when it failed or was stopped are kept."""
    report: dict = {}
    outcome, reason, started = PASSED, None, time.perf_counter()
    try:
        with within(seconds), contextlib.redirect_stdout(sys.stderr):  # some libraries log to the stdout that they find
            part.work(bench, report)
    except NotInstalled as missing:
        outcome, reason = NOT_INSTALLED, str(missing)
    except Exception as error:
        # Libraries make errors of their own of what interrupts them.
        over = isinstance(error, OverTime) or time.perf_counter() - started >= seconds
        outcome, reason = (STOPPED, f"after {seconds} s") if over else (FAILED, first_line(error))
    give_memory_back(bench.device)
    return {"outcome": outcome, "reason": reason, "bound_s": seconds, "wall_s": time.perf_counter() - started, **report}


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise ``OverTime`` in the block after so many seconds, and every ten more should a library have swallowed it."""

    def stop(*_) -> None:
        raise OverTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 10)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def first_line(error: Exception) -> str:
    """The kind of an error and what it says, in one line of at most 300 characters."""
    said = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {said[0]}"[:300]


# --- Tables -----------------------------------------------------------------------------------------------------------


def tables_of(name: str, part: dict) -> tuple[Sequence[str], list[tuple]]:
    """Header and lines of a part's table; no lines where it has no figures."""
    if name == "reference":
        header = ("check", "dtype", "largest difference", "of", "bound")
        return header, [
            (check["check"], check["dtype"], f"{check['largest_difference']:.1e}", check["of"], f"{check['bound']:g}")
            for check in part.get("checks", [])
        ]
    if name in ("throughput", "compiled"):
        header = ("dimensions", "batch", "images/s", "TFLOP/s", "share of matmul", "peak GB beside the weights")
        return header, [_throughput_line(case) for case in part.get("cases", [])]
    if name == "attention":
        backends = ("torch's choice", *BACKENDS)
        header = ("attention", "shape", "GFLOP", *(f"{backend} ms" for backend in backends))
        return header, [
            (case["attention"], case["shape"], f"{case['gflop']:.3g}", *(_ms(case["seconds"].get(b)) for b in backends))
            for case in part.get("cases", [])
        ]
    if name == "stages":
        cases = part.get("cases", [])
        stages = list(cases[0]["seconds"]) if cases else []
        header = ("dimensions", "images", *(f"{stage} ms" for stage in stages))
        return header, [(case["dimensions"], case["images"], *map(_ms, case["seconds"].values())) for case in cases]
    if name == "profile":
        header = ("kernel", "calls", "ms", "share of all kernels")
        kernels = part.get("kernels", [])
        return header, [(k["name"], k["calls"], _ms(k["seconds"]), f"{k['share']:.0%}") for k in kernels]
    peak = part.get("peak_bytes")
    header = ("shape", "steps", "peak GB", "s with start")
    line = (part.get("shape"), part.get("steps_done"), _gb(peak), f"{part.get('seconds_with_start', 0):.0f}")
    return header, [line] if "seconds_with_start" in part else []


def _throughput_line(case: dict) -> tuple:
    halved = ", in halves" if case["passes_were_halved"] else ""
    rates = (f"{case['prefill_images_per_s']:.2f}", f"{case['model_gflops'] / 1e3:.1f}", f"{case['share_of_matmul']:.0%}")
    return (case["dimensions"], f"{case['batch_size']}{halved}", *rates, _gb(case["peak_bytes"]))


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3g}"


def _gb(size_bytes: float | None) -> str:
    return "-" if size_bytes is None else f"{size_bytes / 1e9:.1f}"


def show(name: str, part: dict) -> None:
    """A part's outcome and table on stdout."""
    reason = f": {part['reason']}" if part["reason"] else ""
    print(f"\n## {name}\n\n{part['outcome']}{reason} ({part['wall_s']:.0f} s of {part['bound_s']})\n")
    header, lines = tables_of(name, part)
    if lines:
        shared.print_table(header, lines)
    sys.stdout.flush()


# --- The command ------------------------------------------------------------------------------------------------------


def chosen_parts(text: str) -> list[str]:
    """Names of parts with commas between them, as an argparse type; in the order of ``PARTS``."""
    names = text.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PARTS)}")
    return [name for name in PARTS if name in names]


def parser() -> ArgumentParser:
    """The flags of the script."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES, prog="gpu_check.sh")
    add = flags.add_argument
    add("--device", default="cuda", help="cuda (default), cuda:N or, to try the script, cpu")
    add("--tiny", action="store_true", help="a tiny shape and tiny pictures: smoke test only")
    add("--parts", type=chosen_parts, default=list(PARTS), metavar="A,B", help=f"default: {','.join(PARTS)}")
    bounds = ", ".join(f"{name} {part.seconds}" for name, part in PARTS.items())
    add("--seconds", type=positive_int, metavar="N", help=f"the most that each part may take (default: {bounds})")
    add("--batch_sizes", nargs="+", type=positive_int, metavar="N", help="default: 1 2 4 8 16 32; tiny: 1 2")
    add("--size", default="1024x1024", metavar="WxH", help="of the pictures (default: 1024x1024; tiny: 96x64)")
    add("--repeats", type=positive_int, default=2, metavar="N", help="turns of which the best counts (default: 2)")
    add("--output_json", default="benchmarks/results/gpu_check.json", metavar="FILE")
    return flags


def main(argv=None) -> None:
    """Run the parts. Raises ``InputError`` where there is no such device, ``Failed`` or ``Incomplete`` after the last one."""
    args = parser().parse_args(argv)
    device = shared.device_for_9b(args.device, args.tiny)
    if device.type == "cpu":
        torch.set_num_threads(1)  # threads that share so little work wait for each other most of the time
    size = (96, 64) if args.tiny else tuple(map(int, args.size.split("x")))
    batch_sizes = args.batch_sizes or ([1, 2] if args.tiny else [1, 2, 4, 8, 16, 32])
    figures = {"machine": machine(device), "shape": "tiny" if args.tiny else "9b", "size": f"{size[0]}x{size[1]}", "parts": {}}
    print("# " + ", ".join(str(value) for value in figures["machine"].values()))
    with tempfile.TemporaryDirectory(prefix="saiqa-check-") as folder:
        bench = Bench(device, args.tiny, size, batch_sizes, args.repeats, Path(folder))
        for name in args.parts:
            part = PARTS[name]
            figures["parts"][name] = outcome = run_part(bench, part, args.seconds or part.seconds)
            shared.keep_json(args.output_json, figures)
            show(name, outcome)
    shared.write_json(args.output_json, figures)
    judge(figures["parts"])


def judge(parts: dict) -> None:
    """Raises ``Failed`` where a part failed, else ``Incomplete`` where one was stopped."""
    failed, stopped = ([(name, p["reason"]) for name, p in parts.items() if p["outcome"] == o] for o in (FAILED, STOPPED))
    if failed:
        raise Failed("; ".join(f"{name}: {reason}" for name, reason in failed))
    if stopped:
        raise Incomplete(f"{len(stopped)} of {len(parts)} parts were stopped", stopped, "Give them more --seconds")


def machine(device: torch.device) -> dict:
    """What the figures were measured on and with."""
    found = {**shared.machine(device), "transformers": transformers.__version__, "python": platform.python_version()}
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "memory_bytes": memory}
    return found


if __name__ == "__main__":
    sys.exit(run(main))
