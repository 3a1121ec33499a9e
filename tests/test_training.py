"""tools/train_sft.sh: its flags and plan, and a real run of ms-swift and DeepSpeed with two processes on a CPU."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import prompt_configs as facts
from conftest import REPOSITORY, SMALL_BUNDLE, run_command
from saiqa.training.checkpoints import newest_checkpoint, promote

SCRIPT = REPOSITORY / "tools" / "train_sft.sh"
BASE = REPOSITORY / "demo" / "SA-IQA-model" / facts.DEMO_BASE_MODEL_FOLDER
DEMO_DATA = REPOSITORY / "demo" / "SA-BENCH"


def train(*args, cwd: Path | None = None, timeout: int = 600, **env) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": sys.executable, **env}
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, args)], capture_output=True, text=True, cwd=cwd, env=environment, timeout=timeout
    )


def planned(*args, **env) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Settings and options of the command that --dry_run prints."""
    ran = train(*args, "--dry_run", **env)
    assert ran.returncode == 0, ran.stderr
    words = shlex.split(ran.stdout)
    settings = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("-"))
    options: dict[str, list[str]] = {}
    for word in words[words.index("sft") + 1 :]:
        if word.startswith("--"):
            values = options.setdefault(word[2:], [])
        else:
            values.append(word)
    return settings, options


def test_the_release_hyper_parameters(tmp_path):
    arguments = ["--prompt_version", 4, "--model", BASE, "--data_root", DEMO_DATA, "--output_dir", tmp_path / "out"]
    settings, options = planned(*arguments, "--device", "cpu")
    expected = {
        "model_type": "ovis2_5",
        "train_type": "full",
        "freeze_vit": "true",
        "freeze_aligner": "true",
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
    assert {name: options[name][0] for name in expected} == expected
    assert [Path(path).name for path in options["dataset"]] == [
        facts.annotation_jsonl(dimension, "train", 4) for dimension in facts.DIMENSIONS
    ]
    assert len(options["val_dataset"]) == 4
    assert settings["MASTER_PORT"].isdigit() and settings["NPROC_PER_NODE"] == "2"
    assert not (tmp_path / "out").exists()


def test_forwarded_options_win(tmp_path):
    _, options = planned("--demo", "--device", "cpu", "--learning-rate", "3e-5", "--num_train_epochs=1")
    assert options["learning_rate"] == ["3e-5"] and options["num_train_epochs"] == ["1"]


def test_fault_15_no_gpu_is_named_by_default_and_a_flag_without_value_is_a_usage_error():
    settings, _ = planned("--demo", "--device", "cpu")
    assert settings["CUDA_VISIBLE_DEVICES"] == ""
    ran = train("--prompt_version")
    assert ran.returncode == 2
    assert "unbound variable" not in ran.stderr and "--prompt_version" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt_version", "9"], "--prompt_version"),
        (["stray"], "stray"),
        ([], "--prompt_version"),
        (["--prompt_version", "4", "--model", "nowhere", "--device", "cpu"], "hf download"),
        (["--demo", "--data_root", "nowhere", "--device", "cpu"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2(arguments, said, tmp_path):
    ran = train(*arguments, cwd=tmp_path)
    assert ran.returncode == 2, ran.stderr
    assert said in ran.stderr and "Traceback" not in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


def test_help_needs_no_library(tmp_path):
    assert "--dry_run" in train("--help", cwd=tmp_path).stdout


def test_fault_14_two_zero2_processes_train_and_infer_loads_the_output_folder(tmp_path):
    """Real ms-swift, DeepSpeed ZeRO-2 and gloo; run from another directory; then infer.py on what it left."""
    output = tmp_path / "sa-iqa-prompt4"
    ran = train(
        *("--demo", "--device", "cpu", "--output_dir", output, "--max_steps", 2, "--per_device_train_batch_size", 2),
        *("--eval_strategy", "no", "--save_only_model", "false", "--logging_steps", 1),
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.strip().endswith("sa-iqa-prompt4") and len(ran.stdout.splitlines()) == 1

    steps = newest_checkpoint(output)
    assert steps.name == "checkpoint-2"
    # Optimizer states in one part a process are what ZeRO leaves; plain data parallelism would leave none.
    assert len(list(steps.glob("global_step*/*zero_pp_rank_[01]_*optim_states.pt"))) == 2
    assert not (output / ".inputs").exists()

    before, after = load_file(BASE / "model.safetensors"), load_file(output / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name in before if not before[name].float().equal(after[name].float())}
    assert any(name.startswith("llm.") for name in moved)
    assert not any(name.startswith(("visual_tokenizer.", "vte.")) for name in moved)  # frozen, as in the release
    assert json.loads((output / "config.json").read_text())["max_pixels"] == 40_000

    scored = run_command(
        *("infer.py", "--demo", "--dimension", "lighting", "--mode", "infer", "--limit", "3"),
        *("--model_path", output, "--results_dir", tmp_path / "results"),
    )
    assert scored.code == 0, scored.err
    lines = (tmp_path / "results" / "lighting_prompt4_sa-iqa-prompt4_limit3.jsonl").read_text().splitlines()
    assert len(lines) == 3 and set(json.loads(lines[0])["logits"]) == set(facts.WORDS)


def test_a_failed_training_leaves_the_old_checkpoint(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "config.json").write_text("{}")
    (output / "model.safetensors").write_bytes(b"old")
    ran = train("--demo", "--device", "cpu", "--output_dir", output, "--no_such_option_of_swift", "1")
    assert ran.returncode == 1 and "swift sft ended" in ran.stderr
    assert (output / "model.safetensors").read_bytes() == b"old"


def test_promotion_passes_on_auto_map_and_drops_stale_shards(tmp_path):
    output, step = tmp_path, tmp_path / "checkpoint-7"
    step.mkdir()
    (step / "config.json").write_text('{"model_type": "ovis2_5"}')
    (step / "model.safetensors").write_bytes(b"new")
    (step / "trainer_state.json").write_text("{}")
    (output / "model-00001-of-00002.safetensors").write_bytes(b"stale")
    promote(step, output, SMALL_BUNDLE)
    assert (output / "model.safetensors").read_bytes() == b"new"
    assert not (output / "model-00001-of-00002.safetensors").exists()
    assert not (output / "trainer_state.json").exists()
    config = json.loads((output / "config.json").read_text())
    assert config["auto_map"] == json.loads((SMALL_BUNDLE / "config.json").read_text())["auto_map"]
    assert (output / "preprocessor_config.json").is_file()
