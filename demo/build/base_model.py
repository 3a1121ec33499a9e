"""Builds the demo's small base model: the released architecture in miniature, which can see but has never read.

The language model is random. The vision tower is pretrained to tell the train split's mean opinion scores from the mean visual
embedding; test images and series are never read. Faults of light and warps of the picture need no renderer: they are also
dialled onto pictures of the other dimensions, where their severity is known. ``tools/train_sft.sh --demo`` then teaches the
language model.

    python demo/build/base_model.py [--output DIR] [--data_root DIR] [--steps N] [--held_out N]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent), str(HERE.parents[2] / "tools")]

import develop
import numpy as np
import torch
from faults import BRIGHTEST_STOPS, DARKEST_STOPS, HARSHEST_CONTRAST, TINTS
from PIL import Image, ImageOps
from raters import true_quality
from rooms import Spoil
from torch import nn
from transformers import GenerationConfig, Qwen2TokenizerFast, SiglipImageProcessor

import prompt_configs as facts
from local_progress import Progress
from saiqa import bundle, records
from saiqa.ovis2_5 import Ovis2_5, Ovis2_5Config, PixelBounds, image_to_patches, shrink

BOUNDS = PixelBounds(min_pixels=128 * 128, max_pixels=28_000)  # a 224x168 room becomes 192x128: 24 visual embeddings
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

# Pretraining. Copies of a picture, cropped, mirrored or spoilt, keep a tower this small from learning the pictures by heart.
COPIES = 4
SPOILT_SHARE = 0.5
BATCH = 32
STEPS = 2000
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 0.05
SMALLEST_CROP = 0.82
RATED, FAULTLESS = 1.0, 0.15  # weights of a known severity and of a dimension in which a picture has no fault

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
    """The train split as the tower sees it, every picture several times.

    Attributes:
        levels: [copies, patches, 768] uint8, what ``image_to_patches`` cuts.
        grid: [1, 3], (1, rows, columns) of every picture.
        targets: [copies, 4] quality minus 3.
        weights: [copies, 4] how much each target counts.
        held_out: [copies] of a picture kept back to look at, none by default.
    """

    levels: torch.Tensor
    grid: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    held_out: torch.Tensor


def read_rooms(data_root: Path, held_out: int) -> Rooms:
    """The copies of all pictures; the last ``held_out`` pictures a dimension are kept back."""
    jobs = []
    for column, dimension in enumerate(facts.DIMENSIONS):
        table = records.read_csv(bundle.annotation_csv(data_root, dimension, "train"))
        folder = data_root / facts.IMAGES_FOLDER.format(dimension=dimension)
        for number, row in enumerate(table.rows):
            mos = float(row[facts.MOS_COLUMN.format(dimension=dimension)])
            jobs.append((folder / f"{row[facts.ID_COLUMN]}.jpg", column, mos, number >= len(table.rows) - held_out))
    copies: list[Copy] = []
    with ProcessPoolExecutor() as pool, Progress(len(jobs), "preparing pictures", unit="pictures") as progress:
        for made in pool.map(_copies, jobs, chunksize=16):
            copies += made
            progress.advance()
    (grid,) = {copy.grid for copy in copies}  # rooms are all of one size

    def stacked(name):
        return torch.from_numpy(np.stack([getattr(copy, name) for copy in copies]))

    kept_back = torch.tensor([copy.held_out for copy in copies])
    return Rooms(stacked("levels"), torch.tensor([grid]), stacked("targets"), stacked("weights"), kept_back)


@dataclass
class Copy:
    """One line of ``Rooms``."""

    levels: np.ndarray
    grid: tuple[int, int, int]
    targets: np.ndarray
    weights: np.ndarray
    held_out: bool


def _copies(job: tuple[Path, int, float, bool]) -> list[Copy]:
    """The copies of one picture, the first as it is; one that is held out has no other."""
    path, column, mos, held_out = job
    rng = np.random.default_rng([SEED, *path.stem.encode()])
    image = Image.open(path).convert("RGB")
    made = []
    for copy in range(1 if held_out else COPIES):
        targets = np.full(len(facts.DIMENSIONS), true_quality(0.0) - 3, np.float32)
        weights = np.full(len(facts.DIMENSIONS), FAULTLESS, np.float32)
        targets[column], weights[column] = mos - 3, RATED
        seen = _augmented(image, rng) if copy else image
        if copy and rng.random() < SPOILT_SHARE:
            seen, spoilt, severity = _spoilt(seen, column, rng)
            targets[spoilt], weights[spoilt] = true_quality(severity) - 3, RATED
        cut, grid = image_to_patches(shrink(seen, BOUNDS), BOUNDS)
        levels = ((cut + 1) * 127.5).round().to(torch.uint8).numpy()
        made.append(Copy(levels, tuple(grid[0].tolist()), targets, weights, held_out))
    return made


def _augmented(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random crop of nearly the whole, mirrored every other time. Colour and light are what is rated: left alone."""
    scale = rng.uniform(SMALLEST_CROP, 1)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = (int(rng.integers(0, room + 1)) for room in (image.width - width, image.height - height))
    cropped = image.resize(image.size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    return ImageOps.mirror(cropped) if rng.random() < 0.5 else cropped


def _spoilt(image: Image.Image, rated: int, rng: np.random.Generator) -> tuple[Image.Image, int, float]:
    """A picture given a fault in a dimension other than its own: (picture, column of that dimension, severity)."""
    faults = {"lighting": _ill_lit, "distortion": _warped}
    columns = {list(facts.DIMENSIONS).index(name): fault for name, fault in faults.items()}
    column = int(rng.choice([column for column in columns if column != rated]))
    severity = rng.random()
    values = columns[column](np.asarray(image, np.float64) / 255, severity, rng)
    return Image.fromarray(np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)), column, severity


def _ill_lit(values: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Too dark, too bright, too harsh or tinted: back to light, spoilt there, and developed again."""
    kind = rng.integers(4)
    white, shown = develop.WHITE_POINT**2, values**2.2
    light = white / 2 * (np.sqrt((1 - shown) ** 2 + 4 * shown / white) - (1 - shown))
    tint = 1 + (np.array(TINTS[rng.integers(len(TINTS))]) - 1) * severity
    spoil = (
        Spoil(stops=DARKEST_STOPS * severity),
        Spoil(stops=BRIGHTEST_STOPS * severity),
        Spoil(contrast=HARSHEST_CONTRAST * severity),
        Spoil(cast=tuple(tint)),
    )[kind]
    return develop.tone(develop.spoilt_light(light, None, spoil) * 2.0**spoil.stops)


def _warped(values: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Swirls, waves or stretched patches."""
    kind = str(rng.choice(["warp", "ripple", "smear"]))
    return develop.warped(values, Spoil(**{kind: severity}), rng)


# --- Pretraining -----------------------------------------------------------------------------------------------------


def pretrain(model: Ovis2_5, rooms: Rooms, steps: int) -> None:
    """Teach the tower and the visual table to regress the quality in each dimension; says how it goes on stderr."""
    probe = nn.Sequential(nn.LayerNorm(model.config.hidden_size), nn.Linear(model.config.hidden_size, 4))
    learned = [*model.visual_tokenizer.parameters(), *model.vte.parameters(), *probe.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    rng, errors = np.random.default_rng(SEED), []
    seen = torch.nonzero(~rooms.held_out).flatten().numpy()
    with Progress(steps, "pretraining the vision tower", unit="steps") as progress:
        for step in range(1, steps + 1):
            error = _step_error(model, probe, rooms, rng.choice(seen, BATCH))
            optimizer.zero_grad()
            error.backward()
            nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            schedule.step()
            errors.append(error.item())
            progress.advance()
            if step % 1000 == 0 or step == steps:
                print(f"step {step}: error {np.mean(errors[-200:]):.3f}{_held_out(model, probe, rooms)}", file=sys.stderr)


def _predicted(model: Ovis2_5, probe: nn.Module, rooms: Rooms, chosen: np.ndarray) -> torch.Tensor:
    """Quality minus 3, [chosen, 4]."""
    patches = rooms.levels[chosen].float().div_(127.5).sub_(1).flatten(0, 1)
    embeds = model.embed_images(patches, rooms.grid.expand(len(chosen), 3))
    return probe(embeds.unflatten(0, (len(chosen), -1)).mean(1))


def _step_error(model: Ovis2_5, probe: nn.Module, rooms: Rooms, chosen: np.ndarray) -> torch.Tensor:
    weights = rooms.weights[chosen]
    return (weights * (_predicted(model, probe, rooms, chosen) - rooms.targets[chosen]) ** 2).sum() / weights.sum()


@torch.no_grad()
def _held_out(model: Ovis2_5, probe: nn.Module, rooms: Rooms) -> str:
    """Correlation with the MOS on the pictures held out, as text; empty where there are none."""
    rows = torch.nonzero(rooms.held_out).flatten().numpy()
    if not len(rows):
        return ""
    parts = np.array_split(rows, len(rows) // 40 + 1)
    predicted = torch.cat([_predicted(model, probe, rooms, part) for part in parts])
    found = []
    for column, dimension in enumerate(facts.DIMENSIONS):
        own = rooms.weights[rows][:, column] == RATED
        plcc = np.corrcoef(predicted[own, column], rooms.targets[rows][own, column])[0, 1]
        found.append(f"{dimension} {plcc:.3f}")
    return f", PLCC of the {len(rows)} held out: {', '.join(found)}"


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
    parser.add_argument("--held_out", type=int, default=0, help="train pictures a dimension to keep back and look at")
    arguments = parser.parse_args()

    tokenizer = small_tokenizer()
    model = new_model(tokenizer)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", file=sys.stderr)
    pretrain(model, read_rooms(arguments.data_root, arguments.held_out), arguments.steps)
    # It is only ever a start for training: half the bytes do.
    model.to(torch.bfloat16).save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)
    SiglipImageProcessor(
        size={"height": 512, "width": 512}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=Image.Resampling.BICUBIC
    ).save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
