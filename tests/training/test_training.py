"""tools/train_sft.sh: its flags and plan, and a real run of ms-swift and DeepSpeed with two processes on a CPU."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import SMALL_BUNDLE, run_command
from saiqa import Scorer, facts, scoring
from saiqa.engines import Rating, Request, load_engine
from saiqa.errors import UsageError
from saiqa.files import checkpoint_folders
from saiqa.training import swift_options
from saiqa.training.checkpoints import best_step, mark_whole, promote, replacing, steps_of
from saiqa.training.machine import free_port, process_count
from serving import served_here
from trainings import BASE, DEMO_DATA, ON_CPU, SYSTEM, contents, train, trained, weights


def planned(*args, **env) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Settings and options of the command that --dry_run prints."""
    words = shlex.split(trained(*args, "--dry_run", **env).stdout)
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
        "tuner_type": "full",
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
    assert options["strict"] == ["true"] and "val_dataset" not in options
    assert settings["MASTER_PORT"].isdigit() and settings["NPROC_PER_NODE"] == "2"
    assert not (tmp_path / "out").exists()


def test_forwarded_options_win(tmp_path):
    _, options = planned(*ON_CPU, "--learning-rate", "3e-5", "--num_train_epochs=1")
    assert options["learning_rate"] == ["3e-5"] and options["num_train_epochs"] == ["1"]


def test_fault_15_no_gpu_is_named_by_default_and_a_flag_without_value_is_a_usage_error():
    settings, _ = planned(*ON_CPU)
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
        (["--prompt_version", "4", "--model", "nowhere", "--device", "cpu"], "python tools/download.py model annotations"),
        (["--demo", "--data_root", "nowhere", "--device", "cpu"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2(arguments, said, tmp_path):
    ran = train(*arguments, cwd=tmp_path)
    assert ran.returncode == 2, ran.stderr
    assert said in ran.stderr and "Traceback" not in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--learning_rte", "1e-5"], "--learning_rate"),
        (["--learning_rate", "fast"], "not a number"),
        (["--freeze_llm", "perhaps"], "neither true nor false"),
        (["--max_steps", "2.5"], "whole number"),
        (["--val_split", "2"], "at least 0 and below 1"),
        (["--val_on_test", "--val_jsonl", "a"], "--val_on_test"),
        (["--train_jsonl", "a"], "--output_dir"),
    ],
)
def test_a_mistyped_option_costs_no_file(arguments, said, tmp_path):
    """Options that ms-swift would refuse only after loading are refused early, by its argument classes."""
    ran = train(*ON_CPU, *arguments, cwd=tmp_path)
    assert ran.returncode == 2, ran.stderr
    assert said in ran.stderr and len(ran.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_two_launchers_have_two_ports_and_torchrun_may_have_either(tmp_path):
    notes: list[str] = []
    first = free_port(0, notes.append)
    second = free_port(first, notes.append)  # the first does not listen yet
    assert second != first and notes[-1] == f"port {first} is taken; using {second}"
    script = tmp_path / "group.py"
    said = "os.write(1, b'%d\\n' % d.get_world_size())"  # at once: both write to the same pipe
    script.write_text(f"import os, torch.distributed as d; d.init_process_group('gloo'); {said}")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(first)]
    ran = subprocess.run([*torchrun, str(script)], capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.split() == ["2", "2"], ran.stderr


def test_the_options_read_from_the_source_are_those_that_ms_swift_parses():
    import dataclasses

    from swift.arguments import SftArguments

    assert {field.name for field in dataclasses.fields(SftArguments) if field.init} == swift_options.known().keys()


def test_help_needs_no_library(tmp_path):
    assert "--dry_run" in train("--help", cwd=tmp_path).stdout


@pytest.mark.slow
def test_fault_14_two_zero2_processes_train(undisturbed):
    """Real ms-swift, DeepSpeed ZeRO-2 and gloo, run from another directory."""
    output, ran = undisturbed
    assert ran.stdout.strip().endswith("sa-iqa-prompt4") and len(ran.stdout.splitlines()) == 1
    (run,) = output.glob("v0-*")
    # One part of the optimizer states per process is the mark of ZeRO; plain data parallelism has none.
    for step in steps_of(run):
        assert len(list(step.glob("global_step*/*zero_pp_rank_[01]_*optim_states.pt"))) == 2
    assert best_step(run) in steps_of(run)
    assert not (run / ".inputs").exists()
    assert "score with it: python tools/score_images.py PICTURES" in ran.stderr.splitlines()[-1]

    before, after = weights(BASE), weights(output)
    assert before.keys() == after.keys()
    moved = {name for name in before if not before[name].float().equal(after[name].float())}
    assert any(name.startswith("llm.") for name in moved)
    assert not any(name.startswith(("visual_tokenizer.", "vte.")) for name in moved)  # frozen, as in the release
    assert json.loads((output / "config.json").read_text())["max_pixels"] == 40_000


@pytest.mark.slow
def test_a_checkpoint_is_asked_with_its_own_system_prompt(undisturbed, tmp_path):
    """The release's system prompt is trained with, stored in args.json, and used by everything that scores."""
    arguments = json.loads((undisturbed.output / "args.json").read_text())
    assert arguments["system"] == SYSTEM and arguments["template"] == "ovis2_5" and arguments["use_chat_template"] is True
    assert not any("/" in str(value) for value in arguments.values())
    assert_scored_alike(undisturbed.output, tmp_path)


def assert_scored_alike(checkpoint: Path, folder: Path) -> None:
    """infer.py, Scorer, the service and the swift engine, all with the checkpoint's system prompt."""
    from swift import BaseArguments

    assert BaseArguments.from_pretrained(str(checkpoint)).system == SYSTEM  # the input of the template of ms-swift's engine
    images = sorted((DEMO_DATA / "images/lighting/images").glob("*_test_000[0-3].jpg"))
    ran = run_command(
        *("infer.py", "--demo", "--dimension", "lighting", "--mode", "infer", "--limit", "4", "--dtype", "float32"),
        *("--device", "cpu", "--model_path", checkpoint, "--results_dir", folder / "results"),
    )
    assert ran.code == 0 and f"system prompt: {SYSTEM!r}" in ran.err
    (result,) = (folder / "results").glob("*.jsonl")
    asked = [json.loads(line) for line in result.read_text().splitlines()]
    assert [Path(line["images"][0]).name for line in asked] == [image.name for image in images]
    expected = [line["logits"] for line in asked]

    record = json.loads((DEMO_DATA / "annotations" / facts.annotation_jsonl("lighting", "test", 4)).read_text().splitlines()[0])
    prefix = record["response"].rpartition(" ")[0]
    requests = [Request(image, record["query"], prefix) for image in images]
    without = load_engine("prefill", checkpoint, device="cpu", system="").rate(requests)
    for engine in ("prefill", "swift"):
        for answer, logits, other in zip(
            load_engine(engine, checkpoint, device="cpu").rate(requests), expected, without, strict=True
        ):
            assert isinstance(answer, Rating), answer
            assert answer.logprobs == pytest.approx(logits, abs=1e-4)
            assert answer.logprobs != pytest.approx(other.logprobs, abs=1e-4)

    scorer = Scorer(checkpoint, data_root=DEMO_DATA, device="cpu")
    here = [result.scores["lighting"] for result in scorer.score(images, ["lighting"])]
    assert here == pytest.approx([scoring.score_of(logits) for logits in expected], abs=1e-4)
    with served_here(scorer) as address:
        import httpx

        form = [("images", (image.name, image.read_bytes())) for image in images]
        answer = httpx.post(f"{address}/score", files=form, data={"dimensions": "lighting"}, timeout=60).json()
    assert [result["scores"]["lighting"] for result in answer["results"]] == pytest.approx(here, abs=1e-4)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_replacement_cut_short_after_any_step_leaves_a_whole_checkpoint(tmp_path, shards):
    """Either the old one in its place, or the new one, in its place or in the folder of its run."""
    for steps in range(100):
        output = tmp_path / str(steps)
        run = output / "v3-20260101-000000"
        write_checkpoint(output, "former", 3 - shards)
        write_checkpoint(run, "new", shards)
        done = sum(1 for _ in itertools.islice(replacing({file.name: file for file in run.iterdir()}, output), steps))
        found = checkpoint_folders.find_checkpoint(output, lambda line: None)
        assert {file.read_text() for file in found.glob("*.safetensors")} in ({"former"}, {"new"})
        assert json.loads((found / "config.json").read_text())["of"] == (found / "tokenizer.json").read_text()
        if done < steps:
            assert found == output and contents(output) == contents(run)
            return
    raise AssertionError("the replacement does not end")


def write_checkpoint(folder: Path, name: str, shards: int) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"of": name}))
    (folder / "tokenizer.json").write_text(name)
    names = ["model.safetensors"] if shards == 1 else [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for shard in names:
        (folder / shard).write_text(name)
    if shards == 2:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(zip("ab", names, strict=True))}))


def test_the_best_whole_step_is_kept(tmp_path):
    for number, best in ((2, 2), (4, 2), (6, 2)):
        step = tmp_path / f"checkpoint-{number}"
        step.mkdir()
        (step / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
        if number < 6:
            mark_whole(step)
    assert best_step(tmp_path).name == "checkpoint-2"  # the better of the two complete ones
    shutil.rmtree(tmp_path / "checkpoint-2")
    assert best_step(tmp_path).name == "checkpoint-4"


def test_a_checkpoint_has_no_code_and_no_diary(tmp_path):
    base, run = tmp_path / "base", tmp_path / "run"
    shutil.copytree(SMALL_BUNDLE, base)
    (base / "modeling_ovis2_5.py").write_text("raise SystemExit")
    step = run / "checkpoint-7"
    step.mkdir(parents=True)
    (step / "config.json").write_text('{"model_type": "ovis2_5"}')
    (step / "model.safetensors").write_bytes(b"new")
    (step / "trainer_state.json").write_text("{}")
    (step / "args.json").write_text(json.dumps({"system": "Hm.", "model": "/home/a", "loss_scale": "saiqa_word"}))
    promote(step, run, base)
    assert (run / "model.safetensors").read_bytes() == b"new"
    assert json.loads((run / "args.json").read_text()) == {"system": "Hm.", "loss_scale": "default"}
    assert json.loads((run / "config.json").read_text()) == {"model_type": "ovis2_5"}
    assert (run / "preprocessor_config.json").read_bytes() == (SMALL_BUNDLE / "preprocessor_config.json").read_bytes()
    assert not list(run.glob("*.py")) and not (run / "trainer_state.json").exists() and not list(run.glob(".*"))


@pytest.mark.parametrize(
    ("given", "gpus", "processes", "said"),
    [
        (None, 0, 2, ""),
        (3, 0, 3, ""),
        (None, 1, 1, ""),
        (None, 4, 4, ""),
        (None, 8, 4, "--nproc_per_node 8 --gradient_accumulation_steps 16"),
        (8, 8, 8, ""),
    ],
)
def test_processes_are_the_release_s_four_where_there_are_as_many_gpus(given, gpus, processes, said):
    notes = []
    assert process_count(given, gpus, notes.append) == processes
    assert said in "".join(notes) and bool(said) == bool(notes)


def test_more_processes_than_gpus_are_refused():
    with pytest.raises(UsageError, match="3 GPUs are visible"):
        process_count(4, 3, print)


def test_the_base_model_s_folder_is_no_place_for_the_checkpoint(tmp_path):
    for output in (BASE, BASE / "deeper"):
        ran = train(*ON_CPU, "--output_dir", output, "--dry_run")
        assert ran.returncode == 2 and "base model's folder" in ran.stderr
