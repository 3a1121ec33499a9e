"""Download the released model, benchmark or annotations from the Hugging Face Hub."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from saiqa import facts
from saiqa.cli.console import ArgumentParser, Output, add_output
from saiqa.errors import spoken
from saiqa.files import folders, hub
from saiqa.progress import Progress

EXAMPLES = """
python tools/download.py model annotations       enough to score any picture
python tools/download.py annotations
python tools/download.py model data              enough for the benchmark
python tools/download.py model data --dry_run    show the download size
"""


def parser() -> ArgumentParser:
    """The flags of the command."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    add = flags.add_argument
    known = hub.parts()
    titles = "; ".join(f"{name}: {part.title}" for name, part in known.items())
    add("parts", nargs="+", choices=tuple(known), metavar="PART", help=titles)
    add("--owner", metavar="NAME", help=f"owner on the Hub; default: {', else '.join(facts.HUB_OWNERS)}")
    add("--output_dir", metavar="DIR", help="folder for SA-IQA-model/ and SA-BENCH/; default: this repository")
    add("--prompt_version", type=int, choices=facts.PROMPT_VERSIONS, default=facts.RECOMMENDED, help="default: 4")
    add("--with_code", action="store_true", help="also download the Python files that --trust_remote_code runs")
    add("--dry_run", action="store_true", help="show what would be downloaded, and its size")
    add_output(add)
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises ``errors.UserError``."""
    args = parser().parse_args(argv)
    out = Output(args.json, args.quiet)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    root = folders.output_path(args.output_dir) if args.output_dir else folders.home()
    owners = [args.owner] if args.owner else facts.HUB_OWNERS
    plans = {}
    for name in wanted(args.parts):
        part = hub.parts(args.prompt_version)[name]
        plans[name] = hub.plan(hub.find(part, owners, args.with_code), root / part.repository)
        say(name, plans[name], out)
    hub.check_space(list(plans.values()))
    if not args.dry_run:
        for name, plan in plans.items():
            fetch(name, plan, out)
    command = spoken(next_command(args, root, list(plans)))
    out.result(f"next: {command}" if not args.dry_run else "nothing was downloaded: --dry_run")
    done = {name: outcome(plan) for name, plan in plans.items()}
    out.finish({"dry_run": args.dry_run, "parts": done, "next": command})


def wanted(typed: Sequence[str]) -> list[str]:
    """The parts, each once; ``data`` includes the annotations."""
    return [name for name in dict.fromkeys(typed) if name != "annotations" or "data" not in typed]


def say(name: str, plan: hub.Plan, out: Output) -> None:
    """Report the size of a part, before anything is downloaded."""
    total = sum(file.bytes for file in plan.remote.files)
    what = f"{name}: {_files(plan.remote.files)}, {hub.shown_bytes(total)}, from {plan.remote.repo_id}"
    rest = f"{_files(plan.todo)} to download, {hub.shown_bytes(plan.bytes_needed)}" if plan.todo else "already complete"
    out.note(f"{what} to {folders.shown(plan.folder)}; {rest}")
    if plan.remote.left_out:
        first = ", ".join(plan.remote.left_out[:3])
        out.note(f"{name}: code and weights other than safetensors are left out, {_files(plan.remote.left_out)}: {first}")


def _files(names: Sequence[object]) -> str:
    return "1 file" if len(names) == 1 else f"{len(names)} files"


def fetch(name: str, plan: hub.Plan, out: Output) -> None:
    """Download one part. Raises ``Failed``; after Ctrl-C it says how to resume."""
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        with Progress(len(plan.todo), name, unit="files") as progress:
            hub.download(plan, progress.advance)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command resumes where this one stopped") from None
    out.note(f"{name}: complete, sizes checked")


def outcome(plan: hub.Plan) -> dict:
    """A part as JSON values."""
    remote = plan.remote
    return {
        "repository": remote.repo_id,
        "commit": remote.commit,
        "folder": plan.folder,
        "files": len(remote.files),
        "bytes": sum(file.bytes for file in remote.files),
        "files_fetched": len(plan.todo),
        "left_out": remote.left_out,
    }


def next_command(args: argparse.Namespace, root: Path, parts: Sequence[str]) -> str:
    """The command to run next, with the flags that it needs after this download."""
    model = root / facts.MODELS_FOLDER / facts.tuned_model(args.prompt_version)
    data = root / facts.DATA_FOLDER
    version = [] if args.prompt_version == facts.RECOMMENDED else ["--prompt_version", str(args.prompt_version)]
    elsewhere = ["--output_dir", args.output_dir] if args.output_dir else []
    places = ["--model_path", str(model), "--data_root", str(data)] if args.output_dir else []
    if parts == ["base_model"]:
        base = ["--model", str(root / facts.MODELS_FOLDER / facts.BASE_MODEL_FOLDER)] if args.output_dir else []
        return shlex.join(["bash", "tools/train_sft.sh", "--prompt_version", str(args.prompt_version), *base])
    if not (model / "config.json").is_file():
        return shlex.join(["python", "tools/download.py", "model", *version, *elsewhere])
    if not (data / facts.ANNOTATIONS_FOLDER).is_dir():
        return shlex.join(["python", "tools/download.py", "annotations", *elsewhere])
    if "data" in parts:
        return shlex.join(["python", "tools/infer.py", *places, *version])
    return shlex.join(["python", "tools/score_images.py", "my_room.jpg", *places, *version])
