"""The released architecture in miniature: its sizes, its tokenizer, and a model with random weights."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image
from transformers import GenerationConfig, Qwen2TokenizerFast, SiglipImageProcessor

from saiqa import facts
from saiqa.model.ovis2_5 import Ovis2_5, Ovis2_5Config
from saiqa.model.pixels import PixelBounds, Preprocessing

BOUNDS = PixelBounds(min_pixels=128 * 128, max_pixels=40_000)  # a 224x168 room becomes 224x160: 35 visual embeddings
PROCESSOR = SiglipImageProcessor(
    size={"height": 512, "width": 512}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=Image.Resampling.BICUBIC
)
PREPROCESSING = Preprocessing.of(json.loads(PROCESSOR.to_json_string()))
VOCABULARY = 700
VISUAL_VOCABULARY = 260
SEED = 42

LLM = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "rope_theta": 1000000,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
VISION = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 256,
}

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def small_tokenizer() -> Qwen2TokenizerFast:
    """A tokenizer of the released kind with only the words of our prompts and answers."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        letters = [*SPECIAL_TOKENS, *bytes_to_unicode().values()]
        vocabulary.write_text(json.dumps({letter: i for i, letter in enumerate(letters)}), encoding="utf-8")
        merges.write_text("#version: 0.2\n", encoding="utf-8")
        empty = Qwen2TokenizerFast(str(vocabulary), str(merges), unk_token=None, additional_special_tokens=SPECIAL_TOKENS[1:])
    tokenizer = empty.train_new_from_iterator(_corpus() * 4, VOCABULARY)
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    for word in facts.WORDS:
        if len(tokenizer.encode(f" {word}")) != 1:
            raise RuntimeError(f"{word!r} is more than one token of the small tokenizer")
    return tokenizer


def _corpus() -> list[str]:
    """All texts that the model reads or writes."""
    prompts = [facts.query(dimension, version) for dimension in facts.DIMENSIONS for version in facts.PROMPT_VERSIONS]
    answers = [facts.response(dimension, word) for dimension in facts.DIMENSIONS for word in facts.WORDS]
    turns = ["system\nYou are a helpful assistant.", "user\n", "assistant\n"]
    return [*(prompt.replace(facts.IMAGE_TAG, "\n") for prompt in prompts), *answers, *turns]


def new_model(tokenizer: Qwen2TokenizerFast) -> Ovis2_5:
    """The miniature with random weights."""
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    llm = {**LLM, "vocab_size": len(tokenizer), "eos_token_id": end, "pad_token_id": pad, "bos_token_id": pad}
    config = Ovis2_5Config(llm_config=llm, vit_config=VISION, visual_vocab_size=VISUAL_VOCABULARY, **asdict(BOUNDS))
    torch.manual_seed(SEED)
    model = Ovis2_5(config)
    model.visual_tokenizer.preprocessing = PREPROCESSING
    model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad, do_sample=False)
    return model
