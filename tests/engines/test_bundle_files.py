"""What the engines use of a bundle's files: preprocessing and system prompt, but not its code or its name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import SMALL_BUNDLE
from reference_cases import CASES, assert_rated, encoded_by_swift, request_of
from saiqa.engines import load_engine
from saiqa.engines.loading import load_tokenizer
from saiqa.errors import InputError
from saiqa.model.pixels import PixelBounds, resized_size


def copy_of_bundle(folder: Path, name: str, **changed) -> Path:
    """The bundle with some values of its file ``name`` changed."""
    shutil.copytree(SMALL_BUNDLE, folder, ignore=shutil.ignore_patterns("expected*", "images", name))
    values = json.loads((SMALL_BUNDLE / name).read_text())
    (folder / name).write_text(json.dumps(values | changed))
    return folder


@pytest.mark.parametrize("engine", ["prefill", "swift"])
@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("preprocessor_config.json", {"resample": 3}),
        ("preprocessor_config.json", {"image_mean": [0.4, 0.5, 0.6]}),
        ("preprocessor_config.json", {"image_std": [0.25, 0.25, 0.25]}),
        ("preprocessor_config.json", {"rescale_factor": 1 / 200}),
        ("args.json", {"system": "Judge sternly."}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_numbers_follow_the_files_of_the_bundle(engine, name, changed, tmp_path):
    """Changes of the bundle change the model's input to the pixels and tokens computed by hand."""
    bundle = copy_of_bundle(tmp_path / "bundle", name, **changed)
    case = CASES[4]
    seen, before = (asked_by(load_engine(engine, path, device="cpu"), case) for path in (bundle, SMALL_BUNDLE))
    assert seen != before
    system = changed.get("system", "You are a helpful assistant.")
    assert seen == asked_by_hand(case, system, json.loads((bundle / "preprocessor_config.json").read_text()))
    described = load_engine(engine, bundle, device="cpu").describe()
    assert described["system"] == system
    assert described["preprocessing"]["resample"] == ("bicubic" if "resample" in changed else "bilinear")


def asked_by(engine, case) -> tuple[list[int], list[float]]:
    """Token ids and the first pixel values of a case, from an engine."""
    if engine.name == "prefill":
        (row,) = engine.rows([request_of(case)])
        prefix = engine.tokenizer.encode(case["answer_prefix"])
        ids = row.prefix + row.questions[0].suffix
        return ids[: len(ids) - len(prefix)], engine.patches(row)[0][:3].flatten().tolist()
    encoded = encoded_by_swift(engine, case)
    return encoded["input_ids"], encoded["pixel_values"][:3].flatten().tolist()


def asked_by_hand(case, system: str, preprocessor: dict) -> tuple[list[int], list[float]]:
    tokenizer = load_tokenizer(SMALL_BUNDLE)
    plain = tokenizer.encode(f"<|im_start|>system\n{system}<|im_end|>\n")
    image = Image.open(SMALL_BUNDLE / case["image"]).convert("RGB")
    height, width = resized_size(image.height, image.width, PixelBounds())
    values = np.asarray(image.resize((width, height), preprocessor["resample"]), dtype=np.float32)
    scaled = values * np.float32(preprocessor["rescale_factor"])
    mean, std = (np.array(preprocessor[name], dtype=np.float32) for name in ("image_mean", "image_std"))
    normal = ((scaled - mean) / std).transpose(2, 0, 1)
    patches = [normal[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] for row, column in ((0, 0), (0, 1), (1, 0))]
    return plain + case["input_ids"], pytest.approx(np.stack(patches).flatten().tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"resample": 9}, "resample is 9"),
        ({"resample": None}, "resample is None"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": [0.5, 0.5, 0.0]}, "image_std"),
        ({"rescale_factor": "1/255"}, "rescale_factor"),
        ({"do_normalize": False}, "do_normalize"),
        ({"do_center_crop": True}, "do_center_crop"),
    ],
)
def test_preprocessing_that_is_not_understood_is_refused(changed, said, tmp_path):
    bundle = copy_of_bundle(tmp_path / "bundle", "preprocessor_config.json", **changed)
    with pytest.raises(InputError, match=f"preprocessor_config.json: {said}"):
        load_engine("prefill", bundle, device="cpu")


def test_a_bundle_without_preprocessing_is_refused(tmp_path):
    bundle = copy_of_bundle(tmp_path / "bundle", "args.json")
    (bundle / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"preprocessor_config\.json is not there"):
        load_engine("prefill", bundle, device="cpu")


def test_fault_16_no_code_of_a_bundle_is_imported(tmp_path):
    """A bundle whose Python files would leave a trace if run: both engines load it, and there is no trace."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for file in SMALL_BUNDLE.glob("*.*"):
        if not file.name.startswith("expected"):
            (bundle / file.name).write_bytes(file.read_bytes())
    trace = tmp_path / "executed"
    for name in ("configuration_ovis2_5", "modeling_ovis2_5"):
        (bundle / f"{name}.py").write_text(f"open({str(trace)!r}, 'w')\nimport flash_attn\n")
    case = CASES[0]
    assert_rated(load_engine("prefill", bundle, device="cpu", system="").rate([request_of(case)])[0], case)
    load_engine("swift", bundle, device="cpu")
    assert not trace.exists()


def test_fault_17_a_renamed_folder_loads(tmp_path):
    renamed = tmp_path / "my best run (final)"
    renamed.symlink_to(SMALL_BUNDLE)
    case = CASES[0]
    assert_rated(load_engine("prefill", renamed, device="cpu", system="").rate([request_of(case)])[0], case)
    assert load_engine("swift", renamed, device="cpu").describe()["engine"] == "swift"
