"""The options of ``swift sft``: the release's, the demo's, those for a CPU, and those passed on from the user."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

from saiqa import errors

# The release's run, verbatim except for options that ms-swift has renamed since.
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

# Options of ms-swift 3, which the release uses, that version 4 knows only by another name.
RENAMED_OPTIONS = {"train_type": "tuner_type"}

# The demo's base model has already been trained on these questions with other rooms: one epoch is enough, more would overfit.
# It has never seen a system prompt, so the demo's checkpoint is trained and used without one.
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
    "seed": "42",
}

# LoRA needs a higher learning rate than full training; it adapts the language model's linear layers.
LORA_OPTIONS = {"learning_rate": "1e-4", "lora_rank": "16", "lora_alpha": "32", "target_modules": "all-linear"}

# --use_cpu creates the process group. With ACCELERATE_USE_CPU set as well, accelerate would silently drop DeepSpeed and train
# with plain data parallelism.
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

TRUE, FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")  # as ms-swift reads them

# Options that decide where a run reads and writes, not its result.
PLACES = ("model", "dataset", "val_dataset", "output_dir", "custom_register_path", "resume_from_checkpoint")

Options = dict[str, list[str]]


def forwarded_options(tokens: Sequence[str], note: Callable[[str], None]) -> Options:
    """``--name value ...`` as given for ``swift sft``: name -> values. ``note`` is called for names that have changed."""
    options: Options = {}
    values: list[str] | None = None
    for token in tokens:
        if token.startswith("--"):
            name, equals, value = token[2:].partition("=")
            name = name.replace("-", "_")
            if name in RENAMED_OPTIONS:
                note(f"--{name} is called --{RENAMED_OPTIONS[name]} in ms-swift 4 and passed on as such")
            values = options.setdefault(RENAMED_OPTIONS.get(name, name), [])
            values[:] = [value] if equals else []
        elif values is None:
            raise errors.UsageError(f"{token!r} does not belong to an option", "See --help")
        else:
            values.append(token)
    return options


def layered(demo: bool, cpu: bool, given: Options) -> Options:
    """All options that do not depend on files and folders, with ``given`` on top; later layers win."""
    layers = [RELEASE_OPTIONS, DEMO_OPTIONS if demo else {}]
    layers.append({} if is_full({"tuner_type": [RELEASE_OPTIONS["tuner_type"]], **given}) else LORA_OPTIONS)
    layers.append(CPU_OPTIONS if cpu else _gpu_attention())
    return {name: [value] for layer in layers for name, value in layer.items()} | given


def _gpu_attention() -> dict[str, str]:
    """Flash attention with padding-free batches if flash-attn is installed, else SDPA."""
    if importlib.util.find_spec("flash_attn"):
        return {"attn_impl": "flash_attn", "padding_free": "true"}
    return {"attn_impl": "sdpa"}


def as_flags(options: Options) -> list[str]:
    """Options as command-line tokens."""
    return [token for name, values in options.items() for token in (f"--{name}", *values)]


def is_full(options: Options) -> bool:
    """Whether all weights that are not frozen are trained, rather than adapters."""
    return options["tuner_type"][0] == "full"


def number(options: Options, name: str) -> float:
    """The value of a numeric option."""
    return float(options[name][0])


def is_true(options: Options, name: str) -> bool:
    """Whether an option is set to true."""
    return options.get(name, ["false"])[0].lower() in TRUE
