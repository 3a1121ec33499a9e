"""Checkpoints with random weights: their shapes and how to build them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen2TokenizerFast

from saiqa import facts
from saiqa.engines.loading import load_tokenizer, resolve_device
from saiqa.errors import InputError
from saiqa.files import folders
from saiqa.model.ovis2_5 import Ovis2_5, Ovis2_5Config
from saiqa.model.pixels import Preprocessing

SEED = 42
DEMO_CHECKPOINT = folders.roots(demo=True).models / facts.tuned_model()

# Ovis2.5-9B, as in its config.json.
NINE_B = {
    "llm_config": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
    },
    "vit_config": {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16},
    "visual_vocab_size": 65536,
}

# Ovis2.5-2B: the same tower, another language model.
TWO_B = {
    **NINE_B,
    "llm_config": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
}

# About 40 million parameters: every width an eighth of the 9B's (rounded to sixteens), with heads of the 9B's size; layers
# and vocabularies are chosen so that each part has nearly the same share of the parameters as in the 9B.
FORTY_M = {
    "llm_config": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 10,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 128,
        "vocab_size": 5376,
    },
    "vit_config": {"hidden_size": 144, "intermediate_size": 544, "num_hidden_layers": 7, "num_attention_heads": 2},
    "visual_vocab_size": 2304,
}

# For checking that a benchmark runs at all.
TINY = {
    "llm_config": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "vocab_size": 768,
    },
    "vit_config": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2},
    "visual_vocab_size": 260,
    "min_pixels": 64 * 64,
}

SHAPES = {"9b": NINE_B, "2b": TWO_B, "40m": FORTY_M, "tiny": TINY}


def config_of(shape: dict) -> Ovis2_5Config:
    """The configuration of a shape in this module."""
    text = {"rope_theta": 1000000, "rms_norm_eps": 1e-6, "max_position_embeddings": 40960, "tie_word_embeddings": False}
    return Ovis2_5Config(
        llm_config={**text, **shape["llm_config"]},
        vit_config=dict(shape["vit_config"]),
        visual_vocab_size=shape["visual_vocab_size"],
        min_pixels=shape.get("min_pixels"),
    )


def build_model(shape: dict, dtype: torch.dtype, device: str | torch.device = "cpu") -> tuple[Ovis2_5, Qwen2TokenizerFast]:
    """A model with random weights, made on the device and in the dtype, with the demo's preprocessing; the demo's tokenizer."""
    torch.manual_seed(SEED)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Ovis2_5(config_of(shape))
    finally:
        torch.set_default_dtype(before)
    model.visual_tokenizer.preprocessing = Preprocessing.of_checkpoint(DEMO_CHECKPOINT)
    return model, load_tokenizer(DEMO_CHECKPOINT)


def build_checkpoint(folder: Path, shape: dict, dtype: torch.dtype, device: str = "cpu") -> int:
    """Write the model of ``build_model`` as a checkpoint; returns its number of parameters."""
    model, tokenizer = build_model(shape, dtype, device)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return count_parameters(model)


def count_parameters(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def device_for_9b(name: str, tiny: bool) -> torch.device:
    """The device. Raises ``InputError`` if it is missing, or is a CPU and the shape not ``tiny``."""
    device = resolve_device(name)
    if device.type == "cpu" and not tiny:
        raise InputError("the 9B shape is for a GPU", "Try the script with --device cpu --tiny")
    return device
