"""The plan of a training run: base model, data, processes, and options."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saiqa import errors, facts
from saiqa.files import checkpoint_folders, folders
from saiqa.files.checkpoint_files import CONFIG_FILE
from saiqa.model.pixels import PixelBounds
from saiqa.training import soft_labels
from saiqa.training.machine import Nodes, free_port, gpu_count, is_on_cpu, process_count, see_only
from saiqa.training.options import (
    CPU_ENVIRONMENT,
    PLACES,
    RELEASE_OPTIONS,
    RELEASE_PROCESSES,
    Options,
    as_flags,
    layered,
    number,
)
from saiqa.training.spec import CALLBACK, GLOO_VARIABLE, SPEC_VARIABLE

VAL_SHARE = 0.05
_FIRST_PORT = 29500  # of the process group; the prompt version is added
_REGISTER = Path(__file__).with_name("register_with_swift.py")  # what ms-swift imports
_SWIFT = (sys.executable, "-m", "swift.cli.main")


@dataclass(frozen=True)
class Plan:
    """Everything that defines a run, decided before anything is written.

    Attributes:
        base: the checkpoint that training starts from.
        data_root: the benchmark folder.
        train, val: question files. Without ``val`` a share of the training images is held out for validation.
        val_share: that share.
        val_on_test: whether ms-swift evaluates on the test split, as in the release.
        output: the folder of the checkpoint, which also contains the folder of every run.
        takes_output: whether ``output`` itself becomes the checkpoint.
        loss: one of ``soft_labels.LOSSES``.
        bounds: bounds on the pixels of an image.
        cpu: whether training is on a CPU.
        nodes: the machines.
        processes: number of processes on this machine.
        options: ``swift sft`` option -> values, without the folders of the run.
        environment: variables set for the run in addition to the user's environment.
    """

    base: Path
    data_root: Path
    train: list[Path]
    val: list[Path]
    val_share: float
    val_on_test: bool
    output: Path
    takes_output: bool
    loss: str
    bounds: PixelBounds
    cpu: bool
    nodes: Nodes
    processes: int
    options: Options = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def world(self) -> int:
        """Number of processes on all machines."""
        return self.processes * self.nodes.count

    @property
    def at_once(self) -> int:
        """Number of examples per forward pass of all processes together."""
        return int(self.world * number(self.options, "per_device_train_batch_size"))

    def steps_per_epoch(self, examples: int) -> int:
        """Number of optimizer steps per epoch."""
        batches = math.ceil(examples / self.at_once)
        return max(1, math.ceil(batches / number(self.options, "gradient_accumulation_steps")))

    def identity(self, base: str, data: dict[str, str]) -> dict[str, Any]:
        """Everything that determines the weights, as JSON values: a run is resumed only with the same identity."""
        options = {name: values for name, values in self.options.items() if name not in PLACES}
        versions = {name: importlib.metadata.version(name) for name in ("ms-swift", "transformers", "torch", "deepspeed")}
        return {
            "base": base,
            "data": data,
            "options": options,
            "loss": self.loss,
            "val": [self.val_share, self.val_on_test, [file.name for file in self.val]],
            "bounds": [self.bounds.min_pixels, self.bounds.max_pixels],
            "processes": self.world,
            "versions": versions,
        }


@dataclass(frozen=True)
class Run:
    """A plan with its folder."""

    plan: Plan
    folder: Path

    @property
    def inputs(self) -> Path:
        """The folder that ``swift sft`` reads; each machine creates it for the run and removes it afterwards."""
        return self.folder / f".inputs{self.plan.nodes.rank or ''}"

    @property
    def view(self) -> Path:
        """The base model as ``swift sft`` sees it."""
        return self.inputs / "model"

    @property
    def spec(self) -> Path:
        """The file with the ``Spec`` for the training processes."""
        return self.inputs / "spec.json"

    def questions(self, split: str) -> Path:
        """The file with the examples of ``train``, ``val`` or ``test``."""
        return self.inputs / f"{split}.jsonl"

    def environment(self) -> dict[str, str]:
        """Variables set in addition to the user's environment."""
        shards = self.plan.cpu and self.plan.options["deepspeed"][0].startswith("zero3")
        return self.plan.environment | {SPEC_VARIABLE: str(self.spec)} | ({GLOO_VARIABLE: "1"} if shards else {})

    def command(self, resume: Path | None = None) -> list[str]:
        """The training command line, with this Python interpreter."""
        plan = self.plan
        own: Options = {
            "model": [str(self.view)],
            "dataset": [str(self.questions("train"))],
            "output_dir": [str(self.folder)],
            "custom_register_path": [str(_REGISTER)],
        }
        own |= {"val_dataset": [str(self.questions("test"))]} if plan.val_on_test else {}
        own |= {"resume_from_checkpoint": [str(resume)]} if resume else {}
        return [*_SWIFT, "sft", *as_flags(own | plan.options)]

    def merge_command(self, step: Path, merged: Path) -> list[str]:
        """The command line that merges the adapters of ``step`` into the checkpoint ``merged``."""
        options: Options = {
            "adapters": [str(step)],
            "merge_lora": ["true"],
            "output_dir": [str(merged)],
            "model": [str(self.view)],
            "custom_register_path": [str(_REGISTER)],
            "device_map": ["cpu"],
            "torch_dtype": self.plan.options["torch_dtype"][:1],
        }
        return [*_SWIFT, "export", *as_flags(options)]


# --- The plan --------------------------------------------------------------------------------------------------------


def make_plan(arguments: argparse.Namespace, forwarded: Options, note: Callable[[str], None]) -> Plan:
    """Decide everything that depends only on flags and machine, not on the examples."""
    version = arguments.prompt_version or (facts.RECOMMENDED if arguments.demo else None)
    if version is None and not arguments.train_jsonl:
        raise errors.UsageError("--prompt_version is missing", "Give 1, 2, 3 or 4; 4 is recommended")
    version = version or facts.RECOMMENDED
    roots = folders.roots(arguments.demo)
    base_name = facts.DEMO_BASE_MODEL_FOLDER if arguments.demo else facts.BASE_MODEL_FOLDER
    base = checkpoint_folders.find_checkpoint(folders.input_path(arguments.model or roots.models / base_name), note).resolve()
    output = folders.output_path(arguments.output_dir or roots.models / facts.tuned_model(version)).resolve()
    if base in (output, *output.parents):
        raise errors.UsageError("--output_dir is inside the base model's folder", "Give another folder")

    if arguments.cuda_visible_devices is not None:
        see_only(arguments.cuda_visible_devices)
    cpu = is_on_cpu(arguments)
    gpus = 0 if cpu else gpu_count()
    processes = process_count(arguments.nproc_per_node, gpus, note)
    nodes = Nodes.of_environment()
    data_root = folders.input_path(arguments.data_root) if arguments.data_root else roots.data
    train, val = _files(arguments, data_root, version)
    bounds = PixelBounds.of_checkpoint(base)
    return Plan(
        base=base,
        data_root=data_root,
        train=train,
        val=val,
        val_share=0.0 if val or arguments.val_on_test else arguments.val_split,
        val_on_test=arguments.val_on_test,
        output=output,
        takes_output=arguments.overwrite or not _holds_another(output),
        loss=arguments.loss,
        bounds=bounds,
        cpu=cpu,
        nodes=nodes,
        processes=processes,
        options=_options(arguments, cpu, forwarded),
        environment=_environment(arguments, bounds, cpu, processes, _port(arguments, nodes, version, note)),
    )


def _holds_another(output: Path) -> bool:
    """Whether an output folder holds a checkpoint: itself, or in the folder of a run or of a step."""
    below = (checkpoint_folders.RUNS, checkpoint_folders.STEPS)
    return (output / CONFIG_FILE).is_file() or any(any(output.glob(f"{pattern}/{CONFIG_FILE}")) for pattern in below)


def _options(arguments: argparse.Namespace, cpu: bool, forwarded: Options) -> Options:
    """The options of ``swift sft`` that do not depend on the examples; later layers win."""
    given = {name: values for name, values in forwarded.items() if name != "callbacks"}
    ours: Options = {
        "add_version": ["false"],  # the folder of the run is ours
        "check_model": ["false"],  # do not ask a hub whether the local model is up to date
        "strict": ["true"],  # an example that cannot be read is an error instead of being replaced
        "callbacks": [CALLBACK, *forwarded.get("callbacks", ())],
        **soft_labels.options(arguments.loss),
    }
    if not arguments.val_on_test:
        ours |= {"eval_strategy": ["no"], "split_dataset_ratio": ["0"]}
    return layered(arguments.demo, cpu, ours | given)


def _files(arguments: argparse.Namespace, data_root: Path, version: int) -> tuple[list[Path], list[Path]]:
    """The question files for training and validation."""
    given = [folders.input_path(file) for file in arguments.val_jsonl or ()]
    if arguments.train_jsonl:
        return [folders.input_path(file) for file in arguments.train_jsonl], given
    dimensions = [name for name in facts.DIMENSIONS if name in (arguments.dimensions or facts.DIMENSIONS)]
    annotations = data_root / facts.ANNOTATIONS_FOLDER
    train = [annotations / facts.annotation_jsonl(dimension, "train", version) for dimension in dimensions]
    folders.require_data(*train)
    if given:
        return train, given
    val = [annotations / facts.annotation_jsonl(dimension, "val", version) for dimension in dimensions]
    asked = not arguments.val_on_test and arguments.val_split > 0
    return train, val if asked and all(file.is_file() for file in val) else []


def test_files(plan: Plan) -> list[Path]:
    """The question files of the test split that belong to the train files."""
    found = [file.with_name(file.name.replace("_train_", "_test_")) for file in plan.train]
    missing = [file for file in found if not file.is_file()]
    if missing:
        raise folders.missing_data(f"{folders.shown(missing[0])} is not there; --val_on_test needs it")
    return found


def _port(arguments: argparse.Namespace, nodes: Nodes, version: int, note: Callable[[str], None]) -> str:
    """The port of the process group: as given, else the prompt version's default or, if taken, a free one."""
    given = arguments.master_port or os.environ.get("MASTER_PORT")
    if given is not None:
        return str(given)
    preferred = _FIRST_PORT + version
    # On several machines all must use the same port.
    return str(preferred if nodes.count > 1 else free_port(preferred, note))


def _environment(arguments: argparse.Namespace, bounds: PixelBounds, cpu: bool, processes: int, port: str) -> dict[str, str]:
    environment = {
        "NPROC_PER_NODE": str(processes),
        "MASTER_PORT": port,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(facts.__file__).parents[1]), os.environ.get("PYTHONPATH")])),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),  # nothing in the base model can ask for more
        "MIN_PIXELS": str(bounds.min_pixels),
        "MAX_PIXELS": str(bounds.max_pixels),
    }
    if cpu:
        threads = max(1, (os.cpu_count() or 1) // processes)
        environment |= CPU_ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)}
    elif arguments.cuda_visible_devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = arguments.cuda_visible_devices
    return environment


def note_batch(plan: Plan, note: Callable[[str], None]) -> None:
    """Report if the effective batch size differs from the release's, for which the learning rate was chosen."""
    batch = int(plan.at_once * number(plan.options, "gradient_accumulation_steps"))
    release = RELEASE_PROCESSES * int(RELEASE_OPTIONS["per_device_train_batch_size"])
    release *= int(RELEASE_OPTIONS["gradient_accumulation_steps"])
    if batch != release:
        note(
            f"the effective batch size is {batch}, the release's is {release}; "
            f"--gradient_accumulation_steps {max(1, release // plan.at_once)} would match it"
        )
