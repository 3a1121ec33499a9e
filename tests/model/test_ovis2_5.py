"""The native model against the outputs of the authors' own code, in float32 (tests/data/ovis2_5-reference)."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import SMALL_BUNDLE
from saiqa.engines.loading import load_model, load_tokenizer, model_config, open_bundle
from saiqa.errors import InputError
from saiqa.facts import WORDS
from saiqa.model.ovis2_5 import Ovis2_5, image_to_patches, image_token_ids, turn_text
from saiqa.model.pixels import PixelBounds, resized_size, shrink, visual_grid

TOLERANCE = 1e-4
EXPECTED = json.loads((SMALL_BUNDLE / "expected.json").read_text())
ARRAYS = np.load(SMALL_BUNDLE / "expected.npz")
CASES = pytest.mark.parametrize("case", EXPECTED["cases"], ids=lambda case: case["key"])


@pytest.fixture(scope="module")
def model():
    return load_model(SMALL_BUNDLE)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(SMALL_BUNDLE)


def image_of(case):
    return Image.open(SMALL_BUNDLE / case["image"])


def array(case, name):
    """An array of the case, or of the first case with the same image if it is stored once per image."""
    own = f"{case['key']}_{name}"
    if own in ARRAYS:
        return ARRAYS[own]
    return next(ARRAYS[key] for key in ARRAYS if key.startswith(case["key"][0]) and key.endswith(name))


def patches_of(case, model):
    """The image of a case as cut by the engines: patches and grid."""
    bounds = PixelBounds.of(model.config)
    return image_to_patches(shrink(image_of(case), bounds), bounds, model.visual_tokenizer.preprocessing)


def prompt_ids(case, tokenizer, groups, system=None):
    before, after = turn_text(case["query"], system)
    return [*tokenizer.encode(before), *image_token_ids(groups), *tokenizer.encode(after)]


def test_the_twelve_cases_are_all_there():
    assert len(EXPECTED["cases"]) == 12
    sizes = {Image.open(SMALL_BUNDLE / name).size for name in EXPECTED["files"]}
    assert any(w * h > 1344 * 1792 for w, h in sizes) and any(w * h < 448 * 448 for w, h in sizes)
    assert any(min(size) < 32 for size in sizes) and (96, 700) in sizes


@CASES
def test_patches_are_the_references(case, model):
    bounds, image = PixelBounds.of(model.config), image_of(case)
    patches, grid = patches_of(case, model)
    assert grid.tolist() == array(case, "grid_thws").tolist()
    assert visual_grid(image.height, image.width, bounds) == tuple(grid[0, 1:].tolist())
    np.testing.assert_allclose(patches[:8], array(case, "pixel_values_head"), atol=TOLERANCE)
    assert abs(patches.double().sum().item() - array(case, "pixel_values_sum")) < TOLERANCE * len(patches)


@CASES
def test_token_ids_are_the_references(case, tokenizer):
    groups = case["input_ids"].count(-300)
    assert prompt_ids(case, tokenizer, groups) == case["input_ids"]
    assert tokenizer.encode(case["answer_prefix"]) == case["answer_prefix_ids"]


@CASES
def test_embeddings_logits_and_log_probabilities_are_the_references(case, model, tokenizer):
    patches, grid = patches_of(case, model)
    ids = torch.tensor([case["input_ids"] + case["answer_prefix_ids"]])
    with torch.inference_mode():
        embeds = model.embed_images(patches, grid)
        logits = model(input_ids=ids, pixel_values=patches, grid_thws=grid).logits[0]
    np.testing.assert_allclose(embeds[:16], array(case, "visual_embeds_head"), atol=TOLERANCE)
    np.testing.assert_allclose(embeds.mean(0), array(case, "visual_embeds_mean"), atol=TOLERANCE)
    after_prompt = logits[len(case["input_ids"]) - 1]
    np.testing.assert_allclose(after_prompt, array(case, "next_token_logits_after_prompt"), atol=TOLERANCE)
    np.testing.assert_allclose(logits[-1], array(case, "next_token_logits_after_answer_prefix"), atol=TOLERANCE)
    logprobs = logits[-1].log_softmax(-1)
    for word in WORDS:
        (token,) = tokenizer.encode(f" {word}")
        assert abs(logprobs[token].item() - case["label_logprobs"][word]) < TOLERANCE


def test_packed_images_do_not_see_each_other(model):
    cut = [patches_of({"image": name}, model) for name in EXPECTED["files"]]
    with torch.inference_mode():
        alone = torch.cat([model.embed_images(*one) for one in cut])
        packed = model.embed_images(torch.cat([p for p, _ in cut]), torch.cat([g for _, g in cut]))
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=0)


def test_the_auto_classes_give_the_native_model_although_the_bundle_names_code():
    assert "auto_map" in json.loads((SMALL_BUNDLE / "config.json").read_text())
    assert AutoConfig.from_pretrained(SMALL_BUNDLE, trust_remote_code=False).model_type == "ovis2_5"
    loaded = AutoModelForCausalLM.from_pretrained(SMALL_BUNDLE, trust_remote_code=False, dtype=torch.float32)
    assert type(loaded) is Ovis2_5


def test_sharded_weights_load_the_same(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="400KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    shutil.copy(SMALL_BUNDLE / "tokenizer.json", tmp_path)
    again = load_model(tmp_path)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_saved_names_are_the_released_ones(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == load_file(SMALL_BUNDLE / "model.safetensors").keys()


def test_a_checkpoint_with_a_hole_is_refused_not_filled(tmp_path):
    for file in SMALL_BUNDLE.glob("*.json"):
        shutil.copy(file, tmp_path)
    weights = load_file(SMALL_BUNDLE / "model.safetensors")
    del weights["visual_tokenizer.head.0.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 of its"):
        open_bundle(tmp_path, torch.device("cpu"), torch.float32)


def test_another_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(InputError, match="ovis2_5"):
        model_config(tmp_path)


def test_bounds_travel_with_the_checkpoint_and_the_environment_wins(model, tmp_path, monkeypatch):
    model.config.min_pixels, model.config.max_pixels = 64 * 64, 128 * 128
    try:
        model.save_pretrained(tmp_path)
    finally:
        model.config.min_pixels = model.config.max_pixels = None
    assert PixelBounds.of(AutoConfig.from_pretrained(tmp_path)) == PixelBounds(64 * 64, 128 * 128)
    monkeypatch.setenv("MAX_PIXELS", "65536")
    assert PixelBounds.of(AutoConfig.from_pretrained(tmp_path)) == PixelBounds(64 * 64, 65536)


def test_resized_sides_are_multiples_within_the_bounds():
    bounds = PixelBounds()
    for height, width in [(1, 1), (5, 4000), (31, 33), (700, 96), (3000, 4000), (448, 448), (10, 9000)]:
        rows, columns = resized_size(height, width, bounds)
        assert rows % 32 == columns % 32 == 0
        assert rows * columns <= bounds.max_pixels


def test_bfloat16_stays_close():
    half = load_model(SMALL_BUNDLE, dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    case = EXPECTED["cases"][0]
    patches, grid = patches_of(case, half)
    with torch.inference_mode():
        ids = torch.tensor([case["input_ids"] + case["answer_prefix_ids"]])
        logits = half(input_ids=ids, pixel_values=patches, grid_thws=grid).logits[0, -1].float().numpy()
    assert np.abs(logits - array(case, "next_token_logits_after_answer_prefix")).max() < 0.2
