"""Builds the demo's small base model: the released architecture in miniature, which can see but has never read.

The language model is random. The vision tower is pretrained for a few minutes to tell the train split's mean opinion scores
from the mean visual embedding; test images are never read. 160 rated pictures a dimension are few, so it also sees pictures
of the other dimensions with a fault of light or a warp dialled onto the finished picture, whose severity is known.
``tools/train_sft.sh --demo`` then teaches the language model.

    python demo/build/base_model.py [--output DIR] [--data_root DIR] [--steps N]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent), str(HERE.parents[2] / "tools")]

import develop
import numpy as np
import torch
import torch.nn.functional as F
from faults import BRIGHTEST_STOPS, DARKEST_STOPS, TINTS
from PIL import Image, ImageOps
from raters import true_quality
from rooms import Spoil
from torch import nn
from transformers import GenerationConfig, Qwen2TokenizerFast, SiglipImageProcessor

import prompt_configs as facts
from local_progress import Progress
from saiqa import bundle, records
from saiqa.ovis2_5 import Ovis2_5, Ovis2_5Config, PixelBounds, image_to_patches, shrink

BOUNDS = PixelBounds(min_pixels=128 * 128, max_pixels=28_000)  # a 256x192 room becomes 192x128: 24 visual embeddings
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
    "hidden_size": 96,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 256,
}

# Pretraining. Copies of an image, cropped, mirrored or spoilt, keep a tower this small from learning the pictures by heart.
COPIES = 12
SPOILT_SHARE = 0.6
BATCH = 32
STEPS = 1800
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 0.05
SMALLEST_CROP = 0.85

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


# --- Tokenizer -------------------------------------------------------------------------------------------------------


def small_tokenizer() -> Qwen2TokenizerFast:
    """A tokenizer of the released kind whose few words are those of our prompts and answers."""
    from transformers.models.qwen2.tokenization_qwen2 import bytes_to_unicode

    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        letters = [*SPECIAL_TOKENS, *bytes_to_unicode().values()]
        vocabulary.write_text(json.dumps({letter: i for i, letter in enumerate(letters)}), encoding="utf-8")
        merges.write_text("#version: 0.2\n", encoding="utf-8")
        empty = Qwen2TokenizerFast(
            str(vocabulary), str(merges), unk_token=None, additional_special_tokens=SPECIAL_TOKENS[1:]
        )
    tokenizer = empty.train_new_from_iterator(_corpus() * 4, VOCABULARY)
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    for word in facts.WORDS:
        if len(tokenizer.encode(f" {word}")) != 1:
            raise RuntimeError(f"{word!r} is more than one token of the small tokenizer")
    return tokenizer


def _corpus() -> list[str]:
    """Everything the model will read or write."""
    prompts = [facts.query(dimension, version) for dimension in facts.DIMENSIONS for version in facts.PROMPT_VERSIONS]
    answers = [facts.response(dimension, word) for dimension in facts.DIMENSIONS for word in facts.WORDS]
    turns = ["system\nYou are a helpful assistant.", "user\n", "assistant\n"]
    return [*(prompt.replace(facts.IMAGE_TAG, "\n") for prompt in prompts), *answers, *turns]


# --- Data ------------------------------------------------------------------------------------------------------------


@dataclass
class Rooms:
    """The train split as the tower sees it.

    Attributes:
        patches: [images * COPIES, patches, 768] float16.
        grid: (1, rows, columns) of every image.
        targets: [images * COPIES, 4] MOS minus 3, NaN in the columns of the dimensions an image was not rated in.
    """

    patches: torch.Tensor
    grid: torch.Tensor
    targets: torch.Tensor


def read_rooms(data_root: Path, rng: np.random.Generator) -> Rooms:
    patches, targets, grids = [], [], set()
    for column, dimension in enumerate(facts.DIMENSIONS):
        table = records.read_csv(bundle.annotation_csv(data_root, dimension, "train"))
        folder = data_root / facts.IMAGES_FOLDER.format(dimension=dimension)
        for row in table.rows:
            image = Image.open(folder / f"{row[facts.ID_COLUMN]}.jpg").convert("RGB")
            own = float(row[facts.MOS_COLUMN.format(dimension=dimension)]) - 3
            for copy in range(COPIES):
                seen, rated, target = (_augmented(image, rng) if copy else image), column, own
                if copy and rng.random() < SPOILT_SHARE:
                    seen, rated, target = _spoilt(seen, dimension, rng)
                cut, grid = image_to_patches(shrink(seen, BOUNDS), BOUNDS)
                grids.add(tuple(grid[0].tolist()))
                patches.append(cut.half())
                targets.append(torch.full((len(facts.DIMENSIONS),), torch.nan))
                targets[-1][rated] = target
    (grid,) = grids  # rooms are all of one size
    return Rooms(torch.stack(patches), torch.tensor(grid), torch.stack(targets))


def _augmented(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random crop of nearly the whole, mirrored every other time. Colour and light are what is rated: left alone."""
    scale = rng.uniform(SMALLEST_CROP, 1)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = (int(rng.integers(0, room + 1)) for room in (image.width - width, image.height - height))
    cropped = image.resize(image.size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    return ImageOps.mirror(cropped) if rng.random() < 0.5 else cropped


def _spoilt(image: Image.Image, dimension: str, rng: np.random.Generator) -> tuple[Image.Image, int, float]:
    """A picture without fault in another dimension, given one there: (picture, column of that dimension, quality - 3)."""
    faults = {"lighting": _ill_lit, "distortion": _warped}
    wrong = str(rng.choice([name for name in faults if name != dimension]))
    severity = rng.random()
    values = faults[wrong](np.asarray(image, np.float64) / 255, severity, rng)
    spoilt = Image.fromarray(np.round(np.clip(values, 0, 1) * 255).astype(np.uint8))
    return spoilt, list(facts.DIMENSIONS).index(wrong), float(true_quality(severity)) - 3


def _ill_lit(values: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Too dark, too bright or tinted: back to light, spoilt there, and developed again."""
    dark, bright, tinted = rng.permutation([True, False, False]) | np.array([False, False, rng.random() < 0.3])
    white, shown = develop.WHITE_POINT**2, values**2.2
    light = white / 2 * (np.sqrt((1 - shown) ** 2 + 4 * shown / white) - (1 - shown))
    stops = severity * (DARKEST_STOPS if dark else BRIGHTEST_STOPS if bright else 0.0)
    tint = 1 + (np.array(TINTS[rng.integers(len(TINTS))]) - 1) * severity * tinted
    return develop.tone(light * 2.0**stops * tint)


def _warped(values: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Swirls or stretched patches."""
    kind = str(rng.choice(["warp", "smear"]))
    return develop.warped(values, Spoil(**{kind: severity}), rng)


# --- Pretraining -----------------------------------------------------------------------------------------------------


def pretrain(model: Ovis2_5, rooms: Rooms, steps: int) -> float:
    """Teach the tower and the visual table to regress the MOS; returns the mean squared error of the last 50 steps."""
    probe = nn.Sequential(nn.LayerNorm(model.config.hidden_size), nn.Linear(model.config.hidden_size, 4))
    learned = [*model.visual_tokenizer.parameters(), *model.vte.parameters(), *probe.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng(SEED)
    errors = []
    with Progress(steps, "pretraining the vision tower", unit="steps") as progress:
        for _ in range(steps):
            chosen = torch.from_numpy(rng.integers(0, len(rooms.patches), BATCH))
            error = _step_error(model, probe, rooms, chosen)
            optimizer.zero_grad()
            error.backward()
            nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            schedule.step()
            errors.append(error.item())
            progress.advance()
    return float(np.mean(errors[-50:]))


def _step_error(model: Ovis2_5, probe: nn.Module, rooms: Rooms, chosen: torch.Tensor) -> torch.Tensor:
    patches = rooms.patches[chosen].float().flatten(0, 1)
    embeds = model.embed_images(patches, rooms.grid.expand(len(chosen), 3))
    predicted = probe(embeds.unflatten(0, (len(chosen), -1)).mean(1))
    wanted = rooms.targets[chosen]
    return F.mse_loss(predicted[~wanted.isnan()], wanted[~wanted.isnan()])


# --- Command ---------------------------------------------------------------------------------------------------------


def new_model(tokenizer: Qwen2TokenizerFast) -> Ovis2_5:
    """The miniature with random weights."""
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    llm = {**LLM, "vocab_size": len(tokenizer), "eos_token_id": end, "pad_token_id": pad, "bos_token_id": pad}
    config = Ovis2_5Config(
        llm_config=llm, vit_config=VISION, visual_vocab_size=VISUAL_VOCABULARY, **asdict(BOUNDS)
    )
    torch.manual_seed(SEED)
    model = Ovis2_5(config)
    model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad, do_sample=False)
    return model


def main() -> None:
    demo = bundle.roots(demo=True)
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=demo.models / facts.DEMO_BASE_MODEL_FOLDER)
    parser.add_argument("--data_root", type=Path, default=demo.data)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()

    tokenizer = small_tokenizer()
    model = new_model(tokenizer)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", file=sys.stderr)
    rooms = read_rooms(arguments.data_root, np.random.default_rng(SEED))
    error = pretrain(model, rooms, arguments.steps)
    print(f"mean squared error on the train split: {error:.3f}", file=sys.stderr)
    # It is only ever a start for training: half the bytes do.
    model.to(torch.bfloat16).save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)
    SiglipImageProcessor(
        size={"height": 512, "width": 512}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=Image.Resampling.BICUBIC
    ).save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
