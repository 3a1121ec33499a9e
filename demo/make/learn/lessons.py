"""The training tasks of the small base model: labels and quality for the tower, prompts for the language model."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Qwen2TokenizerFast

from make.learn import augment
from make.learn.miniature import BOUNDS, PREPROCESSING, SEED
from make.learn.room_data import Rooms
from make.render.labels import CHANNELS
from make.render.raters import true_quality
from saiqa import facts
from saiqa.model.ovis2_5 import Ovis2_5, Ovis2_5Config, image_to_patches, image_token_ids, turn_text
from saiqa.model.pixels import resized_size, shrink
from saiqa.scoring import split_answer, word_of_mos

BATCH = 32
LABELS_WEIGHT = 3.0  # weight of the error in the labels, relative to the error in the quality
SHARPNESS = 2.0  # of the visual words at the start: uniform ones would carry no information


class Probes(nn.Module):
    """Heads that are only used in training.

    ``labels`` are predicted from the tower's output for each patch, ``seen`` is the quality predicted from all patches
    together, and ``read`` the quality predicted from the mean visual embedding.
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
    """The model, its probes, and their training data."""

    def __init__(self, model: Ovis2_5, rooms: Rooms):
        self.model, self.rooms, self.probes = model, rooms, Probes(model.config)
        height, width = rooms.pictures.shape[1:3]
        size = resized_size(height, width, BOUNDS)
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
        """Let torch.compile fuse the operations between the tower's matrix products: a step takes two thirds of the time."""
        self.model.visual_tokenizer.vit.vision_model.compile(dynamic=False)

    def draw(self, among: np.ndarray) -> tuple[np.ndarray, list[augment.Look], torch.Tensor, torch.Tensor]:
        """Looks at random pictures from ``among``: their indices, the looks, targets and weights [images, 4]."""
        rooms, chosen = self.rooms, self.rng.choice(among, BATCH)
        targets, weights = (torch.from_numpy(values[chosen]) for values in (rooms.targets, rooms.weights))
        # Each has its own generator, so they can be drawn in parallel.
        numbers = self.rng.integers(1 << 63, size=BATCH)

        def look(row: int) -> augment.Look:
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
        # Compiled without gradients, torch 2.11 in bfloat16 gives NaN on some CPUs (seen on a Xeon with AVX-512).
        with torch.compiler.set_stance("default" if torch.is_grad_enabled() else "force_eager"):
            hidden = tokenizer.vit.vision_model(patches, [self.grid] * images)
        words = tokenizer.distribution(hidden.reshape(-1, hidden.shape[-1] * 4))
        embeds = words @ self.model.vte.weight[: words.shape[-1]]
        return hidden.unflatten(0, (images, -1)), embeds.unflatten(0, (images, -1))

    def told(self, patches: torch.Tensor, images: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The probes' predictions for packed patches of ``images`` images."""
        with _quick():
            told = self.probes(*self.looked_at(patches, images))
        return tuple(values.float() for values in told)

    def error(
        self, patches: torch.Tensor, known: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, list[float]]:
        """The loss of a batch, and its parts: quality as read, as seen, labels."""
        labels, seen, read = self.told(patches, len(targets))
        parts = [(weights * (told - targets) ** 2).sum() / weights.sum() for told in (read, seen)]
        parts.append(((labels - known) ** 2).mean())
        return parts[0] + parts[1] + LABELS_WEIGHT * parts[2], [part.item() for part in parts]

    @torch.no_grad()
    def held_out(self) -> str:
        """Correlation of the quality as read with the MOS on the held-out pictures, as text; empty if there are none."""
        rows = np.flatnonzero(self.rooms.held_out)
        if not len(rows):
            return ""
        answers = []
        for part in np.array_split(rows, len(rows) // 40 + 1):
            images = [shrink(Image.fromarray(self.rooms.pictures[row]), BOUNDS) for row in part]
            patches = torch.cat([image_to_patches(image, BOUNDS, PREPROCESSING)[0] for image in images])
            answers.append(self.told(patches, len(part))[-1])
        told, found = torch.cat(answers).numpy(), []
        for column, dimension in enumerate(facts.DIMENSIONS):
            own = self.rooms.rated[rows] == column
            plcc = np.corrcoef(told[own, column], self.rooms.targets[rows[own], column])[0, 1]
            found.append(f"{dimension} {plcc:.3f}")
        return f", PLCC of the {len(rows)} held out: {', '.join(found)}"


class Reading:
    """Questions for the language model about practice rooms: every prompt, and the word nearest to the quality."""

    def __init__(self, training: Pretraining, tokenizer: Qwen2TokenizerFast):
        self.training, self.model, self.rng = training, training.model, np.random.default_rng(SEED)
        training.rng = np.random.default_rng([SEED, 1])  # independent of what was drawn before
        encode = functools.partial(tokenizer.encode, add_special_tokens=False)
        self.word_ids = {word: encode(f" {word}")[0] for word in facts.WORDS}
        self.words = torch.tensor(list(self.word_ids.values()))
        self.values = torch.tensor([float(facts.WORD_VALUES[word]) for word in facts.WORDS])
        self.padding = tokenizer.pad_token_id
        groups = training.grid[0] * training.grid[1] // 4
        self.questions = []
        for dimension in facts.DIMENSIONS:
            parts = split_answer(facts.response(dimension, facts.WORDS[0]))
            assert parts, "the template has a rating word"
            answer = (encode(parts[0]), encode(f"{parts[2]}{tokenizer.eos_token}"))
            turns = [turn_text(facts.query(dimension, version)) for version in facts.PROMPT_VERSIONS]
            asked = [encode(before) + image_token_ids(groups) + encode(after) for before, after in turns]
            self.questions.append([(question, *answer) for question in asked])

    def batch(self) -> tuple[torch.Tensor, ...]:
        """A question about each of the looks: patches, token ids [images, length], the target ids or -100 [images, length],
        the position of the rating word [images], and the quality [images]."""
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
        padded = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.padding)
        to_write = nn.utils.rnn.pad_sequence(written, batch_first=True, padding_value=-100)
        return _patches(looks), padded, to_write, torch.tensor(places), quality

    def error(
        self, patches: torch.Tensor, ids: torch.Tensor, written: torch.Tensor, places: torch.Tensor, quality: torch.Tensor
    ) -> tuple[torch.Tensor, list[float]]:
        """The loss of a batch, and its parts: the wording of the answer, its rating word, the score."""
        with _quick():
            with torch.no_grad():
                _, visual = self.training.looked_at(patches, len(ids))
            embeds = self.model.embed(ids, visual.flatten(0, 1))
            logits = self.model.llm(inputs_embeds=embeds, attention_mask=(ids != self.padding).long()).logits.float()
        wording = F.cross_entropy(logits[:, :-1].flatten(0, 1), written[:, 1:].flatten())
        words = logits[torch.arange(len(ids)), places - 1].log_softmax(-1)[:, self.words]
        shares = (1 - (self.values - quality[:, None]).abs()).clamp(min=0)  # of the two words next to the quality
        score = words.softmax(-1) @ self.values
        parts = [wording, -(shares * words).sum(-1).mean(), ((score - quality) ** 2).mean()]
        return sum(parts), [part.item() for part in parts]


@contextmanager
def _quick() -> Iterator[None]:
    """bfloat16 with unfused attention: on a CPU the gradient of fused attention takes longer than everything else."""
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
    """Start the patch embedding from the whitened principal components of real patches [n, 768], and the rest as usual.

    From random weights the tower needs thousands of steps before it represents more than brightness and colour.
    """
    tower, norm = model.visual_tokenizer.vit.vision_model, model.visual_tokenizer.head[1]
    embedding = tower.embeddings.patch_embedding
    assert embedding.bias is not None and isinstance(norm, nn.LayerNorm)
    width, depth = tower.config.hidden_size, tower.config.num_hidden_layers
    mean = patches.mean(0)
    variances, components = torch.linalg.eigh(((patches - mean).T @ (patches - mean) / len(patches)).double())
    variances, components = variances.flip(0), components.flip(1)
    whitened = (components[:, :width] / (variances[:width] + variances[width]).sqrt()).T.float()
    with torch.no_grad():
        embedding.weight.copy_(whitened.unflatten(1, (3, 16, 16)))
        embedding.bias.copy_(-(whitened @ mean))
        for name, values in tower.encoder.named_parameters():
            if values.dim() == 2:
                nn.init.xavier_uniform_(values, gain=(2 * depth) ** -0.5 if "out_proj" in name or "fc2" in name else 1.0)
        norm.weight.fill_(SHARPNESS)
        nn.init.normal_(model.vte.weight, std=0.2)
