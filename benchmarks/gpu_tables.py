"""The tables of the GPU check: outcome and figures of each part."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import reporting
from gpu_speed import BACKENDS


def tables_of(name: str, part: dict) -> tuple[Sequence[str], list[tuple]]:
    """Header and lines of a part's table; no lines if it has no figures."""
    header: tuple[str, ...]
    if name == "reference":
        header = ("check", "dtype", "largest difference", "of", "bound")
        return header, [
            (check["check"], check["dtype"], f"{check['largest_difference']:.1e}", check["of"], f"{check['bound']:g}")
            for check in part.get("checks", [])
        ]
    if name in ("throughput", "compiled"):
        header = ("dimensions", "batch", "images/s", "TFLOP/s", "share of matmul throughput", "peak GB besides the weights")
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
    header = ("shape", "steps", "peak GB", "s with startup")
    line = (part.get("shape"), part.get("steps_done"), _gb(peak), f"{part.get('seconds_with_start', 0):.0f}")
    return header, [line] if "seconds_with_start" in part else []


def _throughput_line(case: dict) -> tuple:
    halved = ", halved" if case["passes_were_halved"] else ""
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
        reporting.print_table(header, lines)
    sys.stdout.flush()
