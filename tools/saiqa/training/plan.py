"""The plan of a training run: the release's options, the user's over them, and what the machine has."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from saiqa import errors, facts
from saiqa.files import checkpoint_folders, folders
from saiqa.files.checkpoint_files import read_config
from saiqa.files.places import Place

# The release's run, word for word, but for options that ms-swift has renamed since.
RELEASE_OPTIONS = {
    "model_type": "ovis2_5",
    "tuner_type": "full",
    "freeze_llm": "false",
    "freeze_vit": "true",
    "freeze_aligner": "true",
    "torch_dtype": "bfloat16",
    "deepspeed": "zero2",
    "num_train_epochs": "3",
    "per_device_train_batch_size": "2",
    "per_device_eval_batch_size": "1",
    "gradient_accumulation_steps": "32",
    "learning_rate": "2e-5",
    "warmup_ratio": "0.03",
    "max_length": "2048",
    "eval_steps": "10",
    "save_steps": "1000",
    "save_total_limit": "1",
    "logging_steps": "1",
    "dataloader_num_workers": "4",
    "system": "You are a helpful assistant.",
}
RELEASE_PROCESSES = 4

# Options of ms-swift 3, which the release uses, that version 4 knows by another name only.
RENAMED_OPTIONS = {"train_type": "tuner_type"}

# The demo's base model has answered these questions before, about other rooms: one epoch will do, and more would learn the
# pictures by heart. It has never seen a system prompt, so that the demo's checkpoint is trained and asked without.
DEMO_OPTIONS = {
    "num_train_epochs": "1",
    "per_device_train_batch_size": "16",
    "per_device_eval_batch_size": "32",
    "gradient_accumulation_steps": "1",
    "learning_rate": "1e-4",
    "eval_steps": "200",
    "logging_steps": "10",
    "dataloader_num_workers": "1",
    "system": "",
    "save_only_model": "true",
    "seed": "42",
}

# --use_cpu makes the process group. With ACCELERATE_USE_CPU beside it accelerate would drop DeepSpeed without a word and
# train with plain data parallelism.
CPU_OPTIONS = {
    "use_cpu": "true",
    "ddp_backend": "gloo",
    "torch_dtype": "float32",
    "fp16": "false",  # ms-swift reads float32 as mixed precision with float16
    "bf16": "false",
    "attn_impl": "sdpa",
}
CPU_ENVIRONMENT = {"DS_ACCELERATOR": "cpu", "ACCELERATE_USE_CPU": "false", "CUDA_VISIBLE_DEVICES": ""}
CPU_PROCESSES = 2


@dataclass(frozen=True)
class Plan:
    """Everything that decides a run, before anything is written.

    Attributes:
        base: the checkpoint training starts from.
        data: the files of questions and answers, by split.
        output: the folder of the checkpoint, with the folder of every run in it.
        run: the folder of this run, which becomes a checkpoint in any case.
        takes_output: whether ``output`` itself becomes the checkpoint, too.
        options: ``swift sft`` option -> values.
        environment: what is set for the run on top of the user's environment.
    """

    base: Path
    data_root: Path
    data: dict[str, list[Place]]
    output: Path
    run: Path
    takes_output: bool
    options: dict[str, list[str]]
    environment: dict[str, str]

    @property
    def inputs(self) -> Path:
        """The folder that ``swift sft`` reads, made for the run and removed after it."""
        return self.run / ".inputs"

    @property
    def view(self) -> Path:
        """The base model as ``swift sft`` sees it."""
        return self.inputs / "model"

    def command(self) -> list[str]:
        """The command line, with the interpreter that runs this."""
        flags = [token for name, values in self.options.items() for token in (f"--{name}", *values)]
        return [sys.executable, "-m", "swift.cli.main", "sft", *flags]


def forwarded_options(tokens: Sequence[str], note: Callable[[str], None]) -> dict[str, list[str]]:
    """``--name value ...`` as given for ``swift sft``: name -> values. ``note`` is told of names that are the release's."""
    options: dict[str, list[str]] = {}
    values: list[str] | None = None
    for token in tokens:
        if token.startswith("--"):
            name, equals, value = token[2:].partition("=")
            name = name.replace("-", "_")
            if name in RENAMED_OPTIONS:
                note(f"--{name} is --{RENAMED_OPTIONS[name]} in ms-swift 4, and passed on as that")
            values = options.setdefault(RENAMED_OPTIONS.get(name, name), [])
            values[:] = [value] if equals else []
        elif values is None:
            raise errors.UsageError(f"{token!r} belongs to no option", "See --help")
        else:
            values.append(token)
    return options


# --- The plan --------------------------------------------------------------------------------------------------------


def make_plan(arguments: argparse.Namespace, forwarded: dict[str, list[str]], note) -> Plan:
    """Look at files and machine, and decide everything."""
    version = arguments.prompt_version or (facts.RECOMMENDED if arguments.demo else None)
    if version is None:
        raise errors.UsageError("--prompt_version is missing", "Give 1, 2, 3 or 4; 4 is the recommended one")
    roots = folders.roots(arguments.demo)
    base_name = facts.DEMO_BASE_MODEL_FOLDER if arguments.demo else facts.BASE_MODEL_FOLDER
    base = checkpoint_folders.find_checkpoint(folders.input_path(arguments.model or roots.models / base_name), note).resolve()
    data_root = folders.input_path(arguments.data_root) if arguments.data_root else roots.data
    output = folders.output_path(arguments.output_dir or roots.models / facts.tuned_model(version)).resolve()
    if base in (output, *output.parents):
        raise errors.UsageError("--output_dir is in the base model's folder", "Give another folder")

    cpu = _on_cpu(arguments)
    gpus = 0 if cpu else _gpu_count(arguments.cuda_visible_devices)
    processes = process_count(arguments.nproc_per_node, gpus, note)
    holds = checkpoint_folders.newest_checkpoint(output) is not None
    run = output / f"v{checkpoint_folders.next_run(output)}-{time.strftime('%Y%m%d-%H%M%S')}"
    plan = Plan(
        base=base,
        data_root=data_root,
        data={split: _annotation_files(data_root, split, version) for split in ("train", "test")},
        output=output,
        run=run,
        takes_output=arguments.overwrite or not holds,
        options={},
        environment=_environment(arguments, base, cpu, processes, version, note),
    )
    plan.options.update(_options(plan, arguments.demo, cpu, forwarded))
    if not cpu and not arguments.demo:
        _note_batch(plan.options, processes, note)
    if not plan.takes_output:
        note(f"{folders.shown(output)} holds a checkpoint and keeps it; the new one goes to {folders.shown(run)}")
    return plan


def _options(plan: Plan, demo: bool, cpu: bool, forwarded: dict[str, list[str]]) -> dict[str, list[str]]:
    """All options of ``swift sft``; later layers win."""
    layers = {**RELEASE_OPTIONS, **(DEMO_OPTIONS if demo else {}), **(CPU_OPTIONS if cpu else _gpu_attention())}
    options = {name: [value] for name, value in layers.items()}
    options |= {
        "model": [str(plan.view)],
        "dataset": [str(plan.inputs / file.name) for file in plan.data["train"]],
        "val_dataset": [str(plan.inputs / file.name) for file in plan.data["test"]],
        "output_dir": [str(plan.run)],
        "add_version": ["false"],  # the folder of the run is ours
        "check_model": ["false"],  # ask no hub whether the local model is its newest
        "custom_register_path": [str(Path(__file__).with_name("register_native_model.py"))],
    }
    return options | forwarded


def _annotation_files(data_root: Place, split: str, version: int) -> list[Place]:
    files = [folders.annotation_jsonl(data_root, dimension, split, version) for dimension in facts.DIMENSIONS]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise folders.missing_data(f"{folders.shown(missing[0])} is not there, one of {len(missing)} missing files")
    return files


def _on_cpu(arguments: argparse.Namespace) -> bool:
    if arguments.device == "cpu":
        return True
    if _gpu_count(arguments.cuda_visible_devices) > 0:
        return False
    if arguments.device == "auto" and arguments.demo:
        return True
    raise errors.InputError("no GPU is visible", "Give --device cpu to train on a CPU all the same")


def _gpu_count(visible: str | None) -> int:
    """GPUs that the run may use."""
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    import torch

    return torch.cuda.device_count()


def _gpu_attention() -> dict[str, str]:
    """Flash attention with padding-free batches where flash-attn is installed, else SDPA."""
    if importlib.util.find_spec("flash_attn"):
        return {"attn_impl": "flash_attn", "padding_free": "true"}
    return {"attn_impl": "sdpa"}


def _environment(arguments: argparse.Namespace, base: Path, cpu: bool, processes: int, version: int, note) -> dict[str, str]:
    environment = {
        "NPROC_PER_NODE": str(processes),
        "MASTER_PORT": str(arguments.master_port or _free_port(29500 + version, note)),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(facts.__file__).parents[1]), os.environ.get("PYTHONPATH")])),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),  # nothing in the base model can ask for more
    }
    if cpu:
        threads = max(1, (os.cpu_count() or 1) // processes)
        environment |= CPU_ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}
    elif arguments.cuda_visible_devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = arguments.cuda_visible_devices
    config = read_config(base)
    for name in ("min_pixels", "max_pixels"):  # the bounds travel with a checkpoint; ms-swift takes them from here
        if config.get(name) and name.upper() not in os.environ:
            environment[name.upper()] = str(config[name])
    return environment


def process_count(given: int | None, gpus: int, note: Callable[[str], None]) -> int:
    """How many processes train: as given, else one per GPU and no more than the release's.

    Args:
        gpus: visible GPUs; 0 where training is on a CPU.

    Raises:
        UsageError: more than there are GPUs.
    """
    if not gpus:
        return given or CPU_PROCESSES
    if given and given > gpus:
        raise errors.UsageError(f"--nproc_per_node {given}: {gpus} GPUs are visible", "Give at most one process per GPU")
    processes = given or min(gpus, RELEASE_PROCESSES)
    if gpus > processes and not given:
        accumulation = int(RELEASE_OPTIONS["gradient_accumulation_steps"]) * RELEASE_PROCESSES // gpus
        same = f" --gradient_accumulation_steps {accumulation}" if accumulation else ""
        note(f"{processes} of {gpus} GPUs train, as in the release; --nproc_per_node {gpus}{same} uses all")
    return processes


def _free_port(preferred: int, note) -> int:
    """``preferred``, or a free port where another program has it."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            chosen = probe.getsockname()[1]
        if chosen != preferred:
            note(f"port {preferred} is taken; using {chosen}")
        return chosen
    return preferred


def _note_batch(options: dict[str, list[str]], processes: int, note) -> None:
    """Say it where the batch of a step is not the release's: the learning rate was chosen for that one."""
    per_step = processes * int(options["per_device_train_batch_size"][0])
    batch = per_step * int(options["gradient_accumulation_steps"][0])
    release = RELEASE_PROCESSES * int(RELEASE_OPTIONS["per_device_train_batch_size"])
    release *= int(RELEASE_OPTIONS["gradient_accumulation_steps"])
    if batch != release:
        note(
            f"a step learns from {batch} examples here, from {release} in the release; "
            f"--gradient_accumulation_steps {max(1, release // per_step)} would match it"
        )
