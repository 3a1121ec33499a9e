"""Builds the demo's small base model: the released architecture in miniature, pretrained.

The vision tower is pretrained on the train split and on practice rooms; test images and series are never read. It is asked for
what ``labels.py`` knows of every place of a picture and for the quality of the picture, which has to be told from what the
tower sees and from the visual embeddings that the language model will read. Then the language model learns to answer the
prompts about practice rooms. ``tools/train_sft.sh --demo`` goes on from there with the ratings of the train split.

    python -m make.learn.base_model [--output DIR] [--data_root DIR] [--practice DIR] [--labels DIR] [--steps N]
        [--reading_steps N] [--held_out N]
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # threads that draw and threads that learn share the cores: see README

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import GenerationConfig, Qwen2TokenizerFast, SiglipImageProcessor

from make.learn import augment
from make.render import render_rooms
from make.render.labels import CHANNELS
from make.render.raters import true_quality
from saiqa import facts
from saiqa.files import csv_files, folders
from saiqa.model.ovis2_5 import Ovis2_5, Ovis2_5Config, image_to_patches, image_token_ids, turn_text
from saiqa.model.pixels import PixelBounds, Preprocessing, resized_size, shrink
from saiqa.progress import Progress
from saiqa.scoring import split_answer, word_of_mos

FOLDER = Path(__file__).resolve().parents[2]  # demo/

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

BATCH = 32
STEPS, READING_STEPS = 12_000, 1500
LEARNING_RATE, LAYERS_LEARNING_RATE = 1e-3, 2e-3
WEIGHT_DECAY, LAYERS_WEIGHT_DECAY = 0.2, 0.1  # shares of the rate
LABELS_WEIGHT = 3.0  # of the error in the labels, against the error in the quality
FAULTLESS = 0.15  # weight of a dimension in which a picture has no fault
SHARPNESS = 2.0  # of the visual words when the training starts: even ones would tell nothing apart

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


# --- Tokenizer -------------------------------------------------------------------------------------------------------


def small_tokenizer() -> Qwen2TokenizerFast:
    """A tokenizer of the released kind whose few words are those of our prompts and answers."""
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
    """Everything the model will read or write."""
    prompts = [facts.query(dimension, version) for dimension in facts.DIMENSIONS for version in facts.PROMPT_VERSIONS]
    answers = [facts.response(dimension, word) for dimension in facts.DIMENSIONS for word in facts.WORDS]
    turns = ["system\nYou are a helpful assistant.", "user\n", "assistant\n"]
    return [*(prompt.replace(facts.IMAGE_TAG, "\n") for prompt in prompts), *answers, *turns]


# --- Data ------------------------------------------------------------------------------------------------------------


@dataclass
class Rooms:
    """What is learned from: r rated pictures and then p practice rooms, n in all.

    Attributes:
        pictures: [r, height, width, 3] uint8.
        lit: [p, height, width, 6] float16, light and albedo.
        labels: [n, height / 4, width / 4, channels] float16, of ``labels.py``.
        targets: [n, 4] quality, minus the middle of the scale.
        weights: [n, 4] how much each target counts.
        rated: [r] the dimension in which a picture is rated.
        held_out: [n] of a picture kept back to look at.
    """

    pictures: np.ndarray
    lit: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    rated: np.ndarray
    held_out: np.ndarray


def read_rooms(data_root: Path, practice: Path, labels: Path, held_out: int) -> Rooms:
    """The train split, of which the last ``held_out`` pictures a dimension are kept back, and the practice rooms."""
    table = practice / render_rooms.PRACTICE_TABLE
    for made, command in ((table, "render_rooms.py --practice N"), (labels, "labels.py")):
        if not made.exists():
            raise SystemExit(f"{made} is not there: make it with {command}, as demo/make/build.sh does")
    pictures, targets, weights, rated, kept_back = [], [], [], [], []
    for column, dimension in enumerate(facts.DIMENSIONS):
        rows = csv_files.read_csv(folders.annotation_csv(data_root, dimension, "train")).rows
        folder = data_root / facts.IMAGES_FOLDER.format(dimension=dimension)
        for number, row in enumerate(rows):
            pictures.append(np.asarray(Image.open(folder / f"{row[facts.ID_COLUMN]}.jpg").convert("RGB")))
            targets.append([float(true_quality(0.0))] * len(facts.DIMENSIONS))
            targets[-1][column] = float(row[facts.MOS_COLUMN.format(dimension=dimension)])
            weights.append([FAULTLESS] * len(facts.DIMENSIONS))
            weights[-1][column] = 1.0
            rated.append(column)
            kept_back.append(number >= len(rows) - held_out)
    rows = csv_files.read_csv(table).rows
    targets += true_quality([[float(row[dimension]) for dimension in facts.DIMENSIONS] for row in rows]).tolist()
    weights += [[1.0] * len(facts.DIMENSIONS)] * len(rows)
    kept_back += [False] * len(rows)
    lit = np.stack([np.concatenate(list(np.load(practice / f"{row['id']}.npz").values()), -1) for row in rows])
    labelled = np.concatenate([np.load(labels / f"{name}.npy") for name in (*facts.DIMENSIONS, render_rooms.PRACTICE)])
    if len(labelled) != len(targets):
        raise SystemExit(f"{len(targets)} pictures, labels of {len(labelled)}: run make.render.labels again")
    targets, weights = (np.array(values, np.float32) for values in (targets, weights))
    return Rooms(np.stack(pictures), lit, labelled, targets - augment.MIDDLE, weights, np.array(rated), np.array(kept_back))


# --- Pretraining -----------------------------------------------------------------------------------------------------


class Probes(nn.Module):
    """What the training reads from the model, forgotten with its end.

    ``labels`` are told place by place from the tower's patches, ``seen`` is the quality told from all of them together, and
    ``read`` the quality told from the mean visual embedding.
    """

    def __init__(self, config: Ovis2_5Config):
        super().__init__()
        width, embedding, dimensions = config.vit_config.hidden_size, config.hidden_size, len(facts.DIMENSIONS)
        self.labels = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(CHANNELS)))
        self.features = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU())
        self.seen = nn.Linear(4 * width, dimensions)
        self.read = nn.Sequential(nn.LayerNorm(embedding), nn.Linear(embedding, dimensions))

    def forward(self, patches: torch.Tensor, embeds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Labels [images, patches, channels], quality as seen and as read [images, 4]."""
        features = self.features(patches)
        seen = self.seen(torch.cat([features.mean(1), features.amax(1)], -1))
        return self.labels(patches), seen, self.read(embeds.mean(1))


class Pretraining:
    """The model, its probes, and what they are asked."""

    def __init__(self, model: Ovis2_5, rooms: Rooms):
        self.model, self.rooms, self.probes = model, rooms, Probes(model.config)
        size = resized_size(*rooms.pictures.shape[1:3], BOUNDS)
        self.grid = (size[0] // 16, size[1] // 16)
        self.looks = augment.Looks(rooms.pictures, rooms.lit, rooms.labels, size)
        self.drawing = ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,))
        self.rng = np.random.default_rng(SEED)
        self.learned = np.flatnonzero(~rooms.held_out)
        self.practice = np.arange(len(rooms.pictures), len(rooms.targets))
        sample = torch.from_numpy(rooms.labels[self.learned[::7]]).float().permute(0, 3, 1, 2)
        self.usual = sample.mean((0, 2, 3))
        self.spread = F.avg_pool2d(sample, 4).std((0, 2, 3)) + 0.02
        _set_first_weights(model, torch.cat([self.batch()[0] for _ in range(8)]))

    def compile(self) -> None:
        """Let torch.compile fuse what stands between the tower's matrix products: a step takes two thirds of the time."""
        self.model.visual_tokenizer.vit.vision_model.compile(dynamic=False)

    def draw(self, among: np.ndarray) -> tuple[np.ndarray, list[augment.Look], torch.Tensor, torch.Tensor]:
        """Looks at random pictures of these: which, the looks, targets and weights [images, 4]."""
        rooms, chosen = self.rooms, self.rng.choice(among, BATCH)
        targets, weights = (torch.from_numpy(values[chosen]) for values in (rooms.targets, rooms.weights))
        # Each has a generator of its own: so they may be drawn side by side.
        numbers = self.rng.integers(1 << 63, size=BATCH)

        def look(row):
            faulty = np.flatnonzero(rooms.targets[chosen[row]] < true_quality(0.0) - augment.MIDDLE)
            return self.looks.draw(chosen[row], faulty, np.random.default_rng(numbers[row]))

        looks = list(self.drawing.map(look, range(BATCH)))
        for row, one in enumerate(looks):
            for column, quality in one.qualities.items():
                targets[row, column], weights[row, column] = quality, 1.0
        return chosen, looks, targets, weights

    def batch(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Looks at random pictures: patches [all, 768], labels [images, patches, channels], targets and weights [images, 4]."""
        chosen, looks, targets, weights = self.draw(self.learned)
        labels = torch.stack(list(self.drawing.map(self.looks.labels, chosen, looks)))
        labels = (F.avg_pool2d(labels, 4) - self.usual[:, None, None]) / self.spread[:, None, None]
        return _patches(looks), _cut(labels.clamp(-6, 6), 1), targets, weights

    def looked_at(self, patches: torch.Tensor, images: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The tower's output [images, patches, width] for packed patches, and visual embeddings [images, groups, hidden]."""
        tokenizer = self.model.visual_tokenizer
        hidden = tokenizer.vit.vision_model(patches, [self.grid] * images)
        words = tokenizer.distribution(hidden.reshape(-1, hidden.shape[-1] * 4))
        embeds = words @ self.model.vte.weight[: words.shape[-1]]
        return hidden.unflatten(0, (images, -1)), embeds.unflatten(0, (images, -1))

    def told(self, patches: torch.Tensor, images: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The probes' answers for packed patches of so many images."""
        with _quick():
            told = self.probes(*self.looked_at(patches, images))
        return tuple(values.float() for values in told)

    def error(self, patches, known, targets, weights) -> tuple[torch.Tensor, list[float]]:
        """What is to be made small for a batch, and its parts: quality as read, as seen, labels."""
        labels, seen, read = self.told(patches, len(targets))
        parts = [(weights * (told - targets) ** 2).sum() / weights.sum() for told in (read, seen)]
        parts.append(((labels - known) ** 2).mean())
        return parts[0] + parts[1] + LABELS_WEIGHT * parts[2], [part.item() for part in parts]

    @torch.no_grad()
    def held_out(self) -> str:
        """Correlation of the quality as read with the MOS on the pictures held out, as text; empty where there are none."""
        rows = np.flatnonzero(self.rooms.held_out)
        if not len(rows):
            return ""
        told = []
        for part in np.array_split(rows, len(rows) // 40 + 1):
            images = [shrink(Image.fromarray(self.rooms.pictures[row]), BOUNDS) for row in part]
            patches = torch.cat([image_to_patches(image, BOUNDS, PREPROCESSING)[0] for image in images])
            told.append(self.told(patches, len(part))[-1])
        told, found = torch.cat(told).numpy(), []
        for column, dimension in enumerate(facts.DIMENSIONS):
            own = self.rooms.rated[rows] == column
            plcc = np.corrcoef(told[own, column], self.rooms.targets[rows[own], column])[0, 1]
            found.append(f"{dimension} {plcc:.3f}")
        return f", PLCC of the {len(rows)} held out: {', '.join(found)}"


class Reading:
    """What the language model is asked about practice rooms: every prompt, and the word nearest to the quality."""

    def __init__(self, training: Pretraining, tokenizer: Qwen2TokenizerFast):
        self.training, self.model, self.rng = training, training.model, np.random.default_rng(SEED)
        training.rng = np.random.default_rng([SEED, 1])  # as if nothing came before
        encode = functools.partial(tokenizer.encode, add_special_tokens=False)
        self.word_ids = {word: encode(f" {word}")[0] for word in facts.WORDS}
        self.words = torch.tensor(list(self.word_ids.values()))
        self.values = torch.tensor([float(facts.WORD_VALUES[word]) for word in facts.WORDS])
        self.padding = tokenizer.pad_token_id
        groups = training.grid[0] * training.grid[1] // 4
        self.questions = []
        for dimension in facts.DIMENSIONS:
            start, _, end = split_answer(facts.response(dimension, facts.WORDS[0]))
            answer = (encode(start), encode(f"{end}{tokenizer.eos_token}"))
            turns = [turn_text(facts.query(dimension, version)) for version in facts.PROMPT_VERSIONS]
            asked = [encode(before) + image_token_ids(groups) + encode(after) for before, after in turns]
            self.questions.append([(question, *answer) for question in asked])

    def batch(self) -> tuple[torch.Tensor, ...]:
        """A question about each of the looks: patches, token ids [images, length], the ids that are to be written there or -100
        [images, length], where the word stands [images], and the quality [images]."""
        _, looks, targets, _ = self.training.draw(self.training.practice)
        asked = self.rng.integers(len(facts.DIMENSIONS), size=len(targets))
        quality = targets[torch.arange(len(targets)), torch.from_numpy(asked)] + augment.MIDDLE
        ids, written, places = [], [], []
        for column, value in zip(asked, quality, strict=True):
            question, start, end = self.questions[column][self.rng.integers(len(facts.PROMPT_VERSIONS))]
            word = word_of_mos(value.item())
            ids.append(torch.tensor([*question, *start, self.word_ids[word], *end]))
            written.append(torch.tensor([*[-100] * len(question), *start, -100, *end]))
            places.append(len(question) + len(start))
        ids = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.padding)
        written = nn.utils.rnn.pad_sequence(written, batch_first=True, padding_value=-100)
        return _patches(looks), ids, written, torch.tensor(places), quality

    def error(self, patches, ids, written, places, quality) -> tuple[torch.Tensor, list[float]]:
        """What is to be made small for a batch, and its parts: the wording of the answer, its word, the score."""
        with _quick():
            with torch.no_grad():
                _, visual = self.training.looked_at(patches, len(ids))
            embeds = self.model.embed(ids, visual.flatten(0, 1))
            logits = self.model.llm(inputs_embeds=embeds, attention_mask=(ids != self.padding).long()).logits.float()
        wording = F.cross_entropy(logits[:, :-1].flatten(0, 1), written[:, 1:].flatten())
        words = logits[torch.arange(len(ids)), places - 1].log_softmax(-1)[:, self.words]
        shares = (1 - (self.values - quality[:, None]).abs()).clamp(min=0)  # of the two words beside the quality
        score = words.softmax(-1) @ self.values
        parts = [wording, -(shares * words).sum(-1).mean(), ((score - quality) ** 2).mean()]
        return sum(parts), [part.item() for part in parts]


def pretrain(training: Pretraining, steps: int) -> None:
    """Teach the tower and the visual table to see; says how it goes on stderr."""
    model = training.model
    learned = nn.ModuleList([model.visual_tokenizer, model.vte, training.probes])
    for step, (read, seen, labels) in _descend(training, learned, steps, "pretraining the vision tower"):
        told = f"step {step}: error {read:.3f} as read, {seen:.3f} as seen, {labels:.3f} in the labels"
        print(told + training.held_out(), file=sys.stderr)


def teach_reading(training: Pretraining, tokenizer: Qwen2TokenizerFast, steps: int) -> None:
    """Teach the language model to answer from what the tower sees, which stays as it is; says how it goes on stderr."""
    lesson = Reading(training, tokenizer)
    for step, (wording, word, score) in _descend(lesson, training.model.llm, steps, "learning to read"):
        told = f"step {step}: error {wording:.3f} in the wording, {word:.3f} in the word, {score:.3f} of the score"
        print(told, file=sys.stderr)


def _descend(lesson, learned: nn.Module, steps: int, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Make ``lesson.error`` of ``lesson.batch`` small; every 500 steps, the number of the step and the mean parts lately."""
    optimizers = _optimizers(learned)
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(
            optimizer, optimizer.defaults["lr"], total_steps=steps, pct_start=0.05, cycle_momentum=False
        )
        for optimizer in optimizers
    ]
    errors = []
    # The next batch is drawn in the meantime, by one thread: so in the same order always.
    one_thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
    with Progress(steps, name, unit="steps") as progress, one_thread as drawing:
        batch = drawing.submit(lesson.batch)
        for step in range(1, steps + 1):
            drawn, batch = batch.result(), drawing.submit(lesson.batch)
            error, parts = lesson.error(*drawn)
            learned.zero_grad()
            error.backward()
            nn.utils.clip_grad_norm_(learned.parameters(), 1.0)
            for part in (*optimizers, *schedules):
                part.step()
            errors.append(parts)
            progress.advance()
            if step % 500 == 0 or step == steps:
                yield step, np.mean(errors[-200:], 0)


def _optimizers(learned: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer's layers, which learn faster so, and AdamW for all else."""
    matrices, others = [], []
    for name, values in learned.named_parameters():
        (matrices if ".layers." in name and values.dim() == 2 else others).append(values)
    groups = [
        {"params": [values for values in others if values.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [values for values in others if values.dim() <= 1], "weight_decay": 0.0},
    ]
    muon = torch.optim.Muon(matrices, lr=LAYERS_LEARNING_RATE, weight_decay=LAYERS_WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True)]


@contextmanager
def _quick() -> Iterator[None]:
    """In bfloat16, but for attention that is spelt out: the gradient of the fused one takes a CPU longer than all the rest."""
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield


def _patches(looks: list[augment.Look]) -> torch.Tensor:
    """The packed patches [all, 768] of looks."""
    return _cut(torch.stack([look.picture for look in looks]) * 2 - 1, 16).flatten(0, 1)


def _cut(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """[images, channels, rows, columns] -> [images, patches, channels * side ** 2], in the order of ``image_to_patches``."""
    images, channels, rows, columns = pictures.shape
    blocks = pictures.reshape(images, channels, rows // (2 * side), 2, side, columns // (2 * side), 2, side)
    return blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(images, -1, channels * side**2)


def _set_first_weights(model: Ovis2_5, patches: torch.Tensor) -> None:
    """Start the patch embedding as the whitened principal components of real patches [n, 768], and the rest as is usual.

    From random weights the tower needs thousands of steps before it tells anything but brightness and colour.
    """
    tower = model.visual_tokenizer.vit.vision_model
    width, depth = tower.config.hidden_size, tower.config.num_hidden_layers
    mean = patches.mean(0)
    variances, components = torch.linalg.eigh(((patches - mean).T @ (patches - mean) / len(patches)).double())
    variances, components = variances.flip(0), components.flip(1)
    whitened = (components[:, :width] / (variances[:width] + variances[width]).sqrt()).T.float()
    with torch.no_grad():
        tower.embeddings.patch_embedding.weight.copy_(whitened.unflatten(1, (3, 16, 16)))
        tower.embeddings.patch_embedding.bias.copy_(-(whitened @ mean))
        for name, values in tower.encoder.named_parameters():
            if values.dim() == 2:
                nn.init.xavier_uniform_(values, gain=(2 * depth) ** -0.5 if "out_proj" in name or "fc2" in name else 1.0)
        model.visual_tokenizer.head[1].weight.fill_(SHARPNESS)
        nn.init.normal_(model.vte.weight, std=0.2)


# --- Command ---------------------------------------------------------------------------------------------------------


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


def main() -> None:
    demo = folders.roots(demo=True)
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=demo.models / facts.DEMO_BASE_MODEL_FOLDER)
    parser.add_argument("--data_root", type=Path, default=demo.data)
    parser.add_argument("--practice", type=Path, default=FOLDER / render_rooms.PRACTICE)
    parser.add_argument("--labels", type=Path, default=FOLDER / "labels")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--reading_steps", type=int, default=READING_STEPS)
    parser.add_argument("--held_out", type=int, default=0, help="train pictures a dimension to keep back and look at")
    arguments = parser.parse_args()

    if shutil.which("g++") is None:
        raise SystemExit("g++ is not there: torch.compile builds the vision tower's code with it")
    torch.set_num_threads(os.cpu_count() or 1)  # what draws pictures side by side keeps to one
    tokenizer = small_tokenizer()
    model = new_model(tokenizer)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", file=sys.stderr)
    rooms = read_rooms(arguments.data_root, arguments.practice, arguments.labels, arguments.held_out)
    training = Pretraining(model, rooms)
    training.compile()
    pretrain(training, arguments.steps)
    teach_reading(training, tokenizer, arguments.reading_steps)
    # It is only ever a start for training: half the bytes do.
    model.to(torch.bfloat16).save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)
    PROCESSOR.save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
