"""What the benchmarks share: pictures, random-weight checkpoints, counted operations, the machine's own matrix product."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

TOOLS = Path(__file__).resolve().parents[1] / "tools"
sys.path.insert(0, str(TOOLS))

import numpy as np
import torch
from PIL import Image
from transformers import LogitsProcessor, LogitsProcessorList, Qwen2TokenizerFast

from saiqa import facts
from saiqa.engines import Engine, Request, load_engine
from saiqa.engines.loading import load_tokenizer, resolve_device
from saiqa.errors import InputError
from saiqa.files import folders
from saiqa.files.jsonl import to_json
from saiqa.model.ovis2_5 import Ovis2_5, Ovis2_5Config
from saiqa.model.pixels import Preprocessing
from saiqa.scoring import score_of

ANSWER_TOKENS = 13  # of the release's answers, the end included
SEED = 42
DEMO_CHECKPOINT = folders.roots(demo=True).models / facts.tuned_model()


# --- Checkpoints ------------------------------------------------------------------------------------------------------

# Ovis2.5-9B as its config.json has it.
NINE_B = {
    "llm_config": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
    },
    "vit_config": {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16},
    "visual_vocab_size": 65536,
}

# Ovis2.5-2B: the same tower, another language model.
TWO_B = {
    **NINE_B,
    "llm_config": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
}

# About 40 million parameters: every width an eighth of the 9B's (in sixteens), with heads of the 9B's size; so many layers,
# and so large vocabularies, that each part has nearly the share of the parameters that it has there.
FORTY_M = {
    "llm_config": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 10,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 128,
        "vocab_size": 5376,
    },
    "vit_config": {"hidden_size": 144, "intermediate_size": 544, "num_hidden_layers": 7, "num_attention_heads": 2},
    "visual_vocab_size": 2304,
}

# For a look whether a benchmark runs at all.
TINY = {
    "llm_config": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "vocab_size": 768,
    },
    "vit_config": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2},
    "visual_vocab_size": 260,
    "min_pixels": 64 * 64,
}

SHAPES = {"9b": NINE_B, "2b": TWO_B, "40m": FORTY_M, "tiny": TINY}


def config_of(shape: dict) -> Ovis2_5Config:
    """The configuration of a shape in this module."""
    text = {"rope_theta": 1000000, "rms_norm_eps": 1e-6, "max_position_embeddings": 40960, "tie_word_embeddings": False}
    return Ovis2_5Config(
        llm_config={**text, **shape["llm_config"]},
        vit_config=dict(shape["vit_config"]),
        visual_vocab_size=shape["visual_vocab_size"],
        min_pixels=shape.get("min_pixels"),
    )


def build_model(shape: dict, dtype: torch.dtype, device: str | torch.device = "cpu") -> tuple[Ovis2_5, Qwen2TokenizerFast]:
    """A model with random weights, made on the device and in the dtype, with the demo's preprocessing; the demo's tokenizer."""
    torch.manual_seed(SEED)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Ovis2_5(config_of(shape))
    finally:
        torch.set_default_dtype(before)
    model.visual_tokenizer.preprocessing = Preprocessing.of_checkpoint(DEMO_CHECKPOINT)
    return model, load_tokenizer(DEMO_CHECKPOINT)


def build_checkpoint(folder: Path, shape: dict, dtype: torch.dtype, device: str = "cpu") -> int:
    """Write what ``build_model`` makes as a checkpoint; its number of parameters."""
    model, tokenizer = build_model(shape, dtype, device)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return count_parameters(model)


def count_parameters(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


# --- Pictures and questions -------------------------------------------------------------------------------------------


def make_images(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """``count`` different JPEGs of ``size`` (width, height) pixels: smooth colour with some noise, as photographs have."""
    width, height = size
    paths = []
    for number in range(count):
        rng = np.random.default_rng([SEED, width, height, number])
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(smooth + rng.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)
        paths.append(folder / f"{width}x{height}_{number}.jpg")
        Image.fromarray(noisy).save(paths[-1], quality=92)
    return paths


def questions(images: Sequence[Path], dimensions: Sequence[str]) -> list[Request]:
    """Prompt 4, in this project's words, about every image; dimension after dimension, as the release asks."""
    return [Request(image, facts.query(d), facts.answer_prefix(d)) for d in dimensions for image in images]


def cases(images: Sequence[Path], batch_sizes: Sequence[int], least: int) -> Iterator[tuple[list[str], int, list[Request]]]:
    """(dimensions, batch size, requests) for one and for all dimensions; about ``least`` images or a batch, if that is more."""
    for dimensions in (["lighting"], list(facts.DIMENSIONS)):
        for batch_size in batch_sizes:
            yield dimensions, batch_size, questions(images[: max(least, batch_size)], dimensions)


# --- Operations -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowShape:
    """One image's tokens in a pass of the prefill engine: patches, shared prefix, and each question's suffix."""

    patches: int
    prefix: int
    suffixes: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return self.prefix + sum(self.suffixes)


def row_shapes(engine, requests: Sequence[Request]) -> list[RowShape]:
    """The rows that the prefill engine makes of the requests."""
    stride = engine.model.config.vit_config.hidden_stride
    visual = [(row, sum(token < 0 for token in row.prefix) - 2) for row in engine.rows(requests)]
    return [RowShape(n * stride**2, len(row.prefix), tuple(len(q.suffix) for q in row.questions)) for row, n in visual]


def pass_flops(config: Ovis2_5Config, rows: Sequence[RowShape]) -> float:
    """Operations of the matrix products of one pass over the rows, two a multiplication with its addition.

    Causal attention counts the pairs that see each other, and the last layer what is computed there: keys and values of all
    tokens, the rest at the rating positions.
    """
    return sum(tower_flops(config, row.patches) + text_flops(config, row) for row in rows)


def tower_flops(config: Ovis2_5Config, patches: int) -> float:
    vit = config.vit_config
    group, words = vit.hidden_stride**2, config.visual_vocab_size - 4
    per_patch = vit.num_channels * vit.patch_size**2 * vit.hidden_size
    per_patch += vit.num_hidden_layers * (4 * vit.hidden_size**2 + 2 * vit.hidden_size * vit.intermediate_size)
    pairs = vit.num_hidden_layers * 2 * patches**2 * vit.hidden_size
    head = patches / group * words * (group * vit.hidden_size + config.hidden_size)
    return 2 * (patches * per_patch + pairs + head)


def text_flops(config: Ovis2_5Config, row: RowShape) -> float:
    llm = config.llm_config
    heads, kv = llm.num_attention_heads * llm.head_dim, llm.num_key_value_heads * llm.head_dim
    keys = 2 * llm.hidden_size * kv
    rest = 2 * llm.hidden_size * heads + 3 * llm.hidden_size * llm.intermediate_size
    seen = row.prefix * (row.prefix + 1) / 2 + sum(n * row.prefix + n * (n + 1) / 2 for n in row.suffixes)
    inner = (llm.num_hidden_layers - 1) * (row.tokens * (keys + rest) + 2 * seen * heads)
    last = row.tokens * keys + sum(rest + 2 * (row.prefix + n) * heads for n in row.suffixes)
    return 2 * (inner + last + len(row.suffixes) * llm.hidden_size * llm.vocab_size)


def matmul_rate(device: torch.device, dtype: torch.dtype, side: int, repeats: int = 5) -> float:
    """Operations a second of a square matrix product of this side: the best of ``repeats``."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)
    return 2 * side**3 / min(timed(lambda: torch.mm(a, b, out=out), device) for _ in range(repeats))


# --- Timing and reporting ---------------------------------------------------------------------------------------------


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that ``work`` takes, the device's work included."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def model_seconds(engine, requests: Sequence[Request]) -> float:
    """Seconds that the prefill engine's passes over the requests take when every image has been read and cut beforehand."""
    rows = engine.rows(requests)
    batches = [(batch, *zip(*map(engine.patches, batch), strict=True)) for batch in engine.batches(rows)]

    def passes() -> None:
        with torch.inference_mode():
            for batch, patches, grids in batches:
                engine.forward(batch, list(patches), list(grids))

    return timed(passes, engine.device)


def rate_all(engine: Engine, requests: Sequence[Request]) -> list:
    """The ratings of all requests. Raises ``RuntimeError`` where one has none: a benchmark measures nothing then."""
    answers = engine.rate(requests)
    for answer in answers:
        if not hasattr(answer, "logprobs"):
            raise RuntimeError(f"{engine.name}: {answer.reason}")
    return answers


def peak_bytes(engine, requests: Sequence[Request]) -> int | None:
    """The most memory that rating takes beside what was taken before, in bytes; None on a CPU, where nobody counts it."""
    if engine.device.type != "cuda":
        rate_all(engine, requests)
        return None
    torch.cuda.reset_peak_memory_stats(engine.device)
    before = torch.cuda.memory_allocated(engine.device)
    rate_all(engine, requests)
    return torch.cuda.max_memory_allocated(engine.device) - before


def measure_prefill(
    engine,
    requests: Sequence[Request],
    repeats: int,
    matmul_side: int,
    others: Mapping[str, Callable[[], object]] = MappingProxyType({}),
) -> dict:
    """The prefill engine, its passes alone, the large matrix product and ``others``, by name, in turns; the best counts."""
    work = {**others, "prefill": lambda: rate_all(engine, requests)}
    seconds, products = {name: [] for name in (*work, "model")}, []
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


def device_for_9b(name: str, tiny: bool) -> torch.device:
    """The device. Raises ``InputError`` where it is not there, or is a CPU and the shape not ``tiny``."""
    device = resolve_device(name)
    if device.type == "cpu" and not tiny:
        raise InputError("the 9B shape is for a GPU", "Try the script with --device cpu --tiny")
    return device


def machine(device: torch.device) -> dict:
    """What the figures were measured on."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor
    return {"device": name, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A markdown table on stdout."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def write_json(path: str | Path, figures: dict) -> None:
    """The figures as strict JSON."""
    keep_json(path, figures)
    print(f"written: {path}", file=sys.stderr)


def keep_json(path: str | Path, figures: dict) -> None:
    """As ``write_json``, without a word; the file is whole at any time."""
    path, part = Path(path), Path(f"{path}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(to_json(figures) + "\n", encoding="utf-8")
    part.replace(path)


# --- The release's way of scoring -------------------------------------------------------------------------------------


class _GivenAnswer(LogitsProcessor):
    """Lets only the tokens of ``steps[i]`` be written at the i-th place of an answer."""

    def __init__(self, steps: Sequence[Sequence[int]]):
        self.steps, self.start = steps, None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.start = input_ids.shape[1] if self.start is None else self.start
        allowed = self.steps[input_ids.shape[1] - self.start]
        forced = torch.full_like(scores, -torch.inf)
        forced[:, allowed] = scores[:, allowed]
        return forced


class GivenAnswers:
    """Rates with the swift engine while the answer's wording is given and its rating word free, ``ANSWER_TOKENS`` in all.

    Random weights would write gibberish of any length. The log-probabilities that are read are the model's own: ms-swift
    takes them in front of the logits processors.
    """

    def __init__(self, engine, tokenizer):
        self.engine, self.tokenizer = engine, tokenizer
        self.model = engine.engine.model
        self.generate = self.model.generate

    def rate(self, requests: Sequence[Request]) -> list:
        """The ratings, one dimension at a time as the release asks."""
        answers = []
        for prefix in dict.fromkeys(request.answer_prefix for request in requests):
            steps = self._steps(prefix)
            self.model.generate = lambda *args, _steps=steps, **kwargs: self.generate(
                *args, logits_processor=LogitsProcessorList([_GivenAnswer(_steps)]), **kwargs
            )
            answers += rate_all(self.engine, [request for request in requests if request.answer_prefix == prefix])
        return answers

    def _steps(self, prefix: str) -> list[list[int]]:
        written = [[token] for token in self.tokenizer.encode(prefix)]
        words = [self.tokenizer.encode(f" {word}")[0] for word in facts.WORDS]
        (stop,) = self.tokenizer.encode(".")
        filler = ANSWER_TOKENS - len(written) - 2
        return [*written, words, *[[stop]] * filler, [self.tokenizer.eos_token_id]]


# --- Both ways on the same requests -----------------------------------------------------------------------------------


@dataclass
class Engines:
    """Another way and ours, on one checkpoint: ``other`` is the release's (``swift``) or vLLM's (``vllm``)."""

    other: GivenAnswers | Engine
    prefill: Engine
    name: str = "swift"

    @classmethod
    def load(cls, checkpoint: Path, device: str, dtype: str, batch_size: int, compiled: bool, name: str = "swift") -> Engines:
        options = {"device": device, "dtype": dtype, "batch_size": batch_size}
        prefill = load_engine("prefill", checkpoint, compile=compiled, **options)
        other = load_engine(name, checkpoint, **options)
        return cls(GivenAnswers(other, prefill.tokenizer) if name == "swift" else other, prefill, name)

    def compare(self, requests: Sequence[Request], repeats: int, matmul_side: int) -> dict:
        """Both engines, prefill's passes alone, and the large matrix product, in turns; the best of each counts."""
        rated = {self.name: self._rate_other(requests), "prefill": rate_all(self.prefill, requests)}  # this warms up, too
        other = {self.name: lambda: self._rate_other(requests)}
        measured = measure_prefill(self.prefill, requests, repeats, matmul_side, other)
        n, best = len({request.image for request in requests}), min(measured["seconds"][self.name])
        scores = [[score_of(rating.logprobs) for rating in rated[name]] for name in (self.name, "prefill")]
        return {
            f"{self.name}_images_per_s": n / best,
            "ratio": best / min(measured["seconds"]["prefill"]),
            "largest_score_difference": max(abs(a - b) for a, b in zip(*scores, strict=True)),
            **measured,
        }

    def _rate_other(self, requests: Sequence[Request]) -> list:
        """vLLM keeps what it has read; a turn that found it there would measure nothing."""
        if self.name != "vllm":
            return self.other.rate(requests)
        self.other.llm.reset_prefix_cache()
        self.other.llm.llm_engine.reset_mm_cache()
        self.other.llm.llm_engine.reset_encoder_cache()
        return rate_all(self.other, requests)
