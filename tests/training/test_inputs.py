"""Inputs of a training: all faults reported at once, lengths, the split by image, soft labels, memory of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saiqa.errors import InputError
from saiqa.files import checkpoint_folders
from saiqa.training import examples as examples_of
from saiqa.training import sizes, soft_labels
from saiqa.training.job import scoring_command
from saiqa.training.options import layered
from saiqa.training.plan import Run
from saiqa.training.sizes import Needs, Shape
from trainings import BASE, DEMO_DATA, ON_CPU, examples, read_inputs, small_benchmark, train

NINE_B = Shape(
    {"llm.": 8_190_735_360, "visual_tokenizer.": 660_000_000, "vte.": 268_435_456},
    sides=36 * (4 * 8192 + 3 * 16384),
    layers=36,
    hidden=4096,
    vocabulary=151_936,
)


def spoilt(folder: Path) -> tuple[Path, list[str]]:
    """Questions of which six cannot be used for training, and the names of the files at fault."""
    file = examples(folder, 30)
    records = [json.loads(line) for line in file.read_text().splitlines()]
    good = Path(records[0]["images"][0]).read_bytes()
    broken = {
        "truncated.jpg": good[: len(good) // 2],
        "text.jpg": b"this is no picture",
        "empty.jpg": b"",
        "missing.jpg": None,
    }
    for record, (name, content) in zip(records, broken.items(), strict=False):
        record["images"] = [str(folder / name)]
        if content is not None:
            (folder / name).write_bytes(content)
    records[4]["response"] = "I would rather not say."
    records[5]["query"] += " Look closely." * 800
    named = [*broken, file.name, Path(records[5]["images"][0]).name]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file, named


@pytest.mark.slow
def test_all_faults_are_named_at_once(tmp_path):
    file, named = spoilt(tmp_path / "data")
    ran = train(*ON_CPU, "--train_jsonl", file, "--output_dir", tmp_path / "out", "--max_length", 2048)
    assert ran.returncode == 2, ran.stderr
    assert all(name in ran.stderr for name in named)
    assert "6 of 30 examples cannot be trained on" in ran.stderr and "--max_length" in ran.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_split_is_by_image_and_the_same_every_time():
    files = [DEMO_DATA / "annotations" / f"{stem}_train_prompt4.jsonl" for stem in ("lighting_3k", "layout_6k")]
    everything = examples_of.read(files, DEMO_DATA)
    train_part, val_part = examples_of.split(everything, 0.05)
    assert len(train_part) + len(val_part) == len(everything) == 1200
    assert 30 <= len(val_part) <= 90
    assert not {example.image for example in train_part} & {example.image for example in val_part}
    assert examples_of.split(list(reversed(everything)), 0.05)[1] == list(reversed(val_part))
    assert all(len(example.marks) == 5 and 1 <= example.mos <= 5 for example in everything)


def test_images_in_both_files_are_refused(tmp_path):
    file = examples(tmp_path, 10)
    with pytest.raises(InputError, match="is used for training and validation"):
        read_inputs(*ON_CPU, "--train_jsonl", file, "--val_jsonl", file, "--output_dir", tmp_path / "out")


def test_no_test_image_is_needed(tmp_path):
    """By default a run does not read the test split, for training or validation: its pictures may be absent."""
    root = small_benchmark(tmp_path / "SA-BENCH", {"train": 60, "test": 10}, ["lighting"])
    for image in root.glob("images/lighting/images/*_test_*"):
        image.unlink()
    flags = [*ON_CPU, "--data_root", root, "--dimensions", "lighting", "--output_dir", tmp_path / "out"]
    _, inputs = read_inputs(*flags, "--val_split", 0.2)
    assert (len(inputs.train) + len(inputs.val), inputs.test) == (60, []) and 5 < len(inputs.val) < 25
    assert "--val_dataset" not in Run(inputs.plan, tmp_path).command()
    with pytest.raises(InputError, match="10 of 70 examples"):
        read_inputs(*flags, "--val_on_test")


def test_the_benchmark_s_own_validation_split_is_taken(tmp_path):
    root = small_benchmark(tmp_path / "SA-BENCH", {"train": 12, "val": 5}, ["lighting", "layout"])
    arguments, inputs = read_inputs(*ON_CPU, "--data_root", root, "--dimensions", "layout", "--output_dir", tmp_path / "out")
    assert [file.name for file in inputs.plan.val] == ["layout_6k_val_prompt4.jsonl"]
    assert (len(inputs.train), len(inputs.val)) == (12, 5)
    assert scoring_command(tmp_path / "out", arguments).startswith("python tools/infer.py --demo --model_path")


def test_soft_labels():
    assert soft_labels.of_marks((5.0, 4.0, 4.0, 1.0)) == [0.25, 0.5, 0, 0, 0.25]
    shares = soft_labels.of_mos(4.0)
    assert sum(shares) == pytest.approx(1) and shares[0] == pytest.approx(shares[2]) and max(shares) == shares[1]


@pytest.mark.parametrize(("gpus", "gigabytes"), [(1, 166), (2, 92), (4, 55), (8, 37)])
def test_memory_of_the_9b_with_zero2(gpus, gigabytes):
    """Weights in bfloat16, and 18 bytes per trained parameter divided among the GPUs; activations come on top."""
    options = layered(False, False, {})
    need = sizes.needs(NINE_B, options, gpus, longest=0).device / sizes.GB
    assert need == pytest.approx(gigabytes * 1.05, rel=0.06)


def test_what_does_not_fit_is_told_with_what_would():
    options = layered(False, False, {})
    assert sizes.choose(NINE_B, options, 8, 2048, 80 * sizes.GB) == {}
    offloaded = sizes.choose(NINE_B, options, 4, 2048, 40 * sizes.GB)
    assert offloaded == {"deepspeed": ["zero2_offload"]}
    assert sizes.choose(NINE_B, options, 1, 2048, 2 * sizes.GB) is None
    lora = sizes.needs(NINE_B, layered(False, False, {"tuner_type": ["lora"]}), 1, 2048).device
    assert 18 * sizes.GB < lora < 40 * sizes.GB


def test_the_shape_of_a_checkpoint():
    shape = Shape.of(BASE)
    options = layered(True, True, {})
    assert shape.parameters == pytest.approx(1.8e6, rel=0.1)
    assert shape.trained(options) == shape.parts["llm."]
    assert 0 < shape.trained(layered(True, True, {"tuner_type": ["lora"]})) < shape.parts["llm."]
    need = sizes.needs(shape, options, 2, 200)
    assert isinstance(need, Needs) and need.disk > 3 * 4 * shape.parameters
    assert checkpoint_folders.newest_checkpoint(BASE) == BASE
