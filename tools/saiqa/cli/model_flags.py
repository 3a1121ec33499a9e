"""The flags that select a checkpoint and how it is run: the same in every command that runs one."""

from __future__ import annotations

import os
from argparse import Namespace

from saiqa import facts
from saiqa.cli.console import ArgumentParser, positive_int
from saiqa.engines import DTYPES, ENGINES
from saiqa.errors import UsageError
from saiqa.files import places
from saiqa.run import views

ON, OFF = "on", "off"

# What ``scorer.Scorer`` and ``spec.Model.of`` take under the same names.
OPTIONS: tuple[str, ...] = ("engine", "device", "dtype", "batch_size", "system", "min_pixels", "max_pixels")
OPTIONS += ("compile", "trust_remote_code", "base_url", "views")


def add_flags(flags: ArgumentParser, *, exif: str) -> None:
    """The group "model" of a command.

    Args:
        exif: the default of ``--exif``: on for users' images, off for reproducing the release's scores.
    """
    add = flags.add_argument_group("model (N is the prompt version)").add_argument
    add("--model_path", metavar="DIR", help="default: ./SA-IQA-model/sa-iqa-promptN")
    add("--prompt_version", type=int, choices=facts.PROMPT_VERSIONS, default=facts.RECOMMENDED, help="default: 4")
    add("--system", metavar="TEXT", help="system prompt; default: the one the checkpoint was trained with; '' for none")
    add("--engine", choices=tuple(ENGINES), default="prefill", help="prefill (default): one exact pass; swift; vllm")
    add("--base_url", metavar="URL", help="vLLM server that runs the checkpoint, with --engine vllm: http://HOST:8000/v1")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    auto = "auto (default): bfloat16 on CUDA, and on a CPU with native bfloat16 if stored so; else float32"
    add("--dtype", choices=DTYPES, default="auto", help=f"{auto}; int8: the language model in 8 bits (prefill engine only)")
    add("--batch_size", type=positive_int, default=8, metavar="N", help="at most N images per pass (default: 8)")
    bounds = "default: the environment's {}, else the checkpoint's"
    add("--min_pixels", type=positive_int, metavar="N", help="smaller images are enlarged; " + bounds.format("MIN_PIXELS"))
    add("--max_pixels", type=positive_int, metavar="N", help="larger images are shrunk; " + bounds.format("MAX_PIXELS"))
    add("--exif", choices=(ON, OFF), default=exif, help=f"turn photographs as their EXIF orientation says (default: {exif})")
    limits = f"size limit for a picture behind a URL (default: {places.MOST_MEGABYTES})"
    add("--url_megabytes", type=positive_int, metavar="N", help=limits)
    add("--url_seconds", type=positive_int, metavar="N", help=f"time limit for its download (default: {places.MOST_SECONDS})")
    seen = "average the word probabilities over N views: as it is, mirrored, zoomed in, both (default: 1)"
    add("--views", type=int, choices=views.CHOICES, default=1, help=seen)
    add("--compile", action="store_true", help="fuse small operations with torch.compile (prefill and vllm engines)")
    add("--trust_remote_code", action="store_true", help="run the bundle's own Python files (swift engine only)")


def check(args: Namespace) -> None:
    """Raise ``UsageError`` for flags of another engine, and pass the URL limits to workers through the environment."""
    for variable, value in ((places.MEGABYTES_VARIABLE, args.url_megabytes), (places.SECONDS_VARIABLE, args.url_seconds)):
        if value:
            os.environ[variable] = str(value)
    if args.base_url and (args.engine != "vllm" or args.compile or args.device != "auto"):
        raise UsageError("--base_url is for --engine vllm", "Set --device and --compile at the server")
    if args.trust_remote_code and args.engine != "swift":
        raise UsageError("--trust_remote_code is for --engine swift", f"The {args.engine} engine runs no code from the bundle")
    if args.compile and args.engine == "swift":
        raise UsageError("--compile is for --engine prefill and vllm", "Leave it out: ms-swift runs the unmodified model")
    if args.dtype == "int8" and args.engine != "prefill":
        raise UsageError("--dtype int8 is for --engine prefill", "Use --dtype bfloat16, or --engine prefill")
    if args.dtype == "int8" and args.compile:
        raise UsageError("--compile is for float32 and bfloat16", "Leave it out, or use --dtype bfloat16")


def options(args: Namespace) -> dict:
    """The values of the flags by the names in ``OPTIONS``, and ``upright``."""
    return {name: getattr(args, name) for name in OPTIONS} | {"upright": args.exif == ON}
