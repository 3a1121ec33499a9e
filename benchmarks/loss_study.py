"""Which loss trains the better scorer: the release's, on the whole answer, or one on the rating (``train_sft.sh --loss``)?

    python benchmarks/loss_study.py [--seeds 5] [--raters 2 3 5] [--sizes 600 120] [--losses answer word ...] [--random]
        [--output FILE]

Trains the demo's language model on the demo's train split once for each loss, number of raters, size of the split and seed, and
computes PLCC on the val split, whose ratings are always those of all five raters. The test split is not read. The tower is
frozen, as in the release, so that every image passes through it only once for all runs; optimiser, schedule and batch are those
of ``train_sft.sh --demo``. The losses are the launcher's own (``training.losses``), and ``fidelity``: for two images of one
dimension in a batch, how well the order of their scores predicts that of their means (Tsai et al., 2007; Q-Insight's family).

With ``--random`` the language model starts untrained: new weights for each seed, and ten times the learning rate.

Prints, for each setting, the mean over seeds of the mean PLCC over dimensions, its standard deviation, and the difference from
``answer`` for the same seed with a 95% t-interval.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tools"))

import torch
import torch.nn.functional as F
from scipy import stats
from transformers import Qwen2TokenizerFast, get_cosine_schedule_with_warmup

from saiqa import facts, scoring
from saiqa.engines.loading import load_model, load_tokenizer, read_image, word_ids_after
from saiqa.evaluate.figures import correlate
from saiqa.files import folders
from saiqa.model.ovis2_5 import Ovis2_5, image_to_patches, image_token_ids, turn_text
from saiqa.model.pixels import PixelBounds, shrink
from saiqa.progress import Progress
from saiqa.training import examples, soft_labels
from saiqa.training.examples import Example

LOSSES = (*soft_labels.LOSSES, "fidelity")
BATCH, RATE, DECAY, WARMUP = 32, 1e-4, 0.1, 0.03
IGNORED = -100
DEMO = folders.roots(demo=True)


@dataclass
class Row:
    """An example as tensors: token ids [length], position of its rating word, visual embeddings [groups, hidden]."""

    example: Example
    ids: list[int]
    answer_at: int
    word_at: int
    visual: torch.Tensor


def rows_of(model: Ovis2_5, tokenizer: Qwen2TokenizerFast, given: Sequence[Example]) -> list[Row]:
    """The examples with their images' embeddings, which are the same for all runs."""
    bounds, vit = PixelBounds.of(model.config), model.config.vit_config
    rows = []
    with Progress(len(given), "images through the tower") as progress, torch.no_grad():
        for example in given:
            image = shrink(read_image(example.image, False).image, bounds)
            preprocessing = model.visual_tokenizer.preprocessing
            values, grid = image_to_patches(image, bounds, preprocessing, vit.patch_size, vit.hidden_stride)
            visual = model.embed_images(values, grid)
            before, after = turn_text(example.query)
            head = [*_encode(tokenizer, before), *image_token_ids(len(visual)), *_encode(tokenizer, after)]
            prefix = _encode(tokenizer, example.answer_prefix)
            tail = _encode(tokenizer, example.response.removeprefix(example.answer_prefix) + "<|im_end|>\n")
            rows.append(Row(example, head + prefix + tail, len(head), len(head) + len(prefix), visual))
            progress.advance()
    return rows


def _encode(tokenizer: Qwen2TokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def with_raters(row: Row, count: int) -> Row:
    """The row with only the first raters: their mean, their ratings, and the word of their mean."""
    marks = row.example.marks[:count]
    return replace(row, example=replace(row.example, marks=marks, mos=sum(marks) / count))


class Study:
    """The model that all runs start from, and their data.

    Args:
        random: start each seed with new random weights of the language model.
    """

    def __init__(self, random: bool) -> None:
        self.random = random
        base = DEMO.models / facts.DEMO_BASE_MODEL_FOLDER
        self.model, tokenizer = load_model(base), load_tokenizer(base)
        self.model.requires_grad_(False)
        self.begin = {name: value.clone() for name, value in self.model.llm.state_dict().items()}
        self.train, self.val = (rows_of(self.model, tokenizer, self._examples(split)) for split in ("train", "val"))
        self.words = word_ids_after(tokenizer, self.train[0].example.answer_prefix)

    @staticmethod
    def _examples(split: str) -> list[Example]:
        annotations = DEMO.data / facts.ANNOTATIONS_FOLDER
        return examples.read([annotations / facts.annotation_jsonl(d, split) for d in facts.DIMENSIONS], DEMO.data)

    def run(self, loss: str, raters: int, size: int, seed: int) -> dict[str, float]:
        """PLCC by dimension after one epoch."""
        chosen = [with_raters(row, raters) for row in self._first(size)]
        order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed)).tolist()
        self.model.llm.load_state_dict(self._drawn(seed) if self.random else self.begin)
        self.model.llm.requires_grad_(True).train()
        steps = math.ceil(len(chosen) / BATCH)
        rate = RATE * (10 if self.random else 1)
        optimizer = torch.optim.AdamW(self.model.llm.parameters(), rate, (0.9, 0.95), weight_decay=DECAY)
        schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(WARMUP * steps), steps)
        for at in range(0, len(order), BATCH):
            batch = [chosen[place] for place in order[at : at + BATCH]]
            self._loss(loss, batch).backward()
            torch.nn.utils.clip_grad_norm_(self.model.llm.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        return self._plcc()

    def _drawn(self, seed: int) -> dict[str, torch.Tensor]:
        """Weights of an untrained language model."""
        torch.manual_seed(seed)
        return type(self.model.llm)(self.model.llm.config).state_dict()

    def _first(self, size: int) -> list[Row]:
        """The first rows of each dimension."""
        by_group: dict[str, list[Row]] = {}
        for row in self.train:
            by_group.setdefault(row.example.group, []).append(row)
        return [row for rows in by_group.values() for row in rows[:size]]

    def _hidden(self, batch: Sequence[Row]) -> torch.Tensor:
        """Final hidden states [batch, longest, hidden]; beyond a row's end they are meaningless."""
        longest = max(len(row.ids) for row in batch)
        ids = torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in batch])
        mask = torch.tensor([[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in batch])
        embeds = self.model.embed(ids, torch.cat([row.visual for row in batch]))
        return self.model.llm.model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state

    def _loss(self, loss: str, batch: Sequence[Row]) -> torch.Tensor:
        hidden = self._hidden(batch)
        if loss == "answer":
            places = [(number, at) for number, row in enumerate(batch) for at in range(row.answer_at, len(row.ids))]
            logits = self.model.llm.lm_head(torch.stack([hidden[number, at - 1] for number, at in places]))
            return F.cross_entropy(logits, torch.tensor([self._label(batch[number], at) for number, at in places]))
        logits = self.model.llm.lm_head(torch.stack([hidden[number, row.word_at - 1] for number, row in enumerate(batch)]))
        mos = torch.tensor([row.example.mos for row in batch])
        if loss == "word":
            return F.cross_entropy(logits, torch.tensor([self._word(row) for row in batch]))
        if loss in ("raters", "gaussian"):
            shares = [
                soft_labels.of_marks(r.example.marks) if loss == "raters" else soft_labels.of_mos(r.example.mos) for r in batch
            ]
            return -(torch.tensor(shares) * logits.log_softmax(-1)[:, self.words]).sum(1).mean()
        values = torch.tensor([float(facts.WORD_VALUES[word]) for word in facts.WORDS])
        probabilities = logits[:, self.words].softmax(-1)
        score = probabilities @ values
        if loss == "mse":
            return ((score - mos) ** 2).mean()
        return self._fidelity(batch, score, (probabilities @ values**2 - score**2), mos)

    @staticmethod
    def _fidelity(batch: Sequence[Row], score: torch.Tensor, variance: torch.Tensor, mos: torch.Tensor) -> torch.Tensor:
        """1 - sqrt(p q) - sqrt((1 - p)(1 - q)) over the pairs of one dimension, p from the model, q from the means."""
        groups = [row.example.group for row in batch]
        pairs = [(i, j) for i in range(len(batch)) for j in range(i) if groups[i] == groups[j] and mos[i] != mos[j]]
        first, second = (torch.tensor(side) for side in zip(*pairs, strict=True))
        spread = (variance[first] + variance[second] + 1e-6).sqrt()
        p = torch.special.ndtr((score[first] - score[second]) / spread).clamp(1e-6, 1 - 1e-6)
        q = (mos[first] > mos[second]).float()
        return (1 - (p * q + 1e-8).sqrt() - ((1 - p) * (1 - q) + 1e-8).sqrt()).mean()

    def _word(self, row: Row) -> int:
        return self.words[facts.WORDS.index(scoring.word_of_mos(row.example.mos))]

    def _label(self, row: Row, at: int) -> int:
        return self._word(row) if at == row.word_at else row.ids[at]

    def _plcc(self) -> dict[str, float]:
        self.model.llm.eval()
        scores: dict[str, list[tuple[float, float]]] = {}
        with torch.no_grad():
            for at in range(0, len(self.val), BATCH):
                batch = self.val[at : at + BATCH]
                hidden = self._hidden(batch)
                logits = self.model.llm.lm_head(torch.stack([hidden[n, row.word_at - 1] for n, row in enumerate(batch)]))
                for row, values in zip(batch, logits[:, self.words].tolist(), strict=True):
                    score = scoring.score_of(dict(zip(facts.WORDS, values, strict=True)))
                    scores.setdefault(row.example.group, []).append((score, row.example.mos))
        return {group: correlate(*zip(*pairs, strict=True)).plcc for group, pairs in scores.items()}


def table(results: Sequence[dict]) -> list[str]:
    """One line per setting, as Markdown."""
    mean = {(r["loss"], r["raters"], r["size"], r["seed"]): sum(r["plcc"].values()) / len(r["plcc"]) for r in results}
    settings = sorted(
        {(r["size"], r["raters"], LOSSES.index(r["loss"])) for r in results}, key=lambda one: (-one[0], -one[1], one[2])
    )
    lines = [
        "| train images | raters | loss | mean PLCC | sd over seeds | against `answer` |",
        "|---:|---:|---|---:|---:|---:|",
    ]
    for size, raters, number in settings:
        loss = LOSSES[number]
        seeds = [seed for (name, count, images, seed) in mean if (name, count, images) == (loss, raters, size)]
        values = [mean[loss, raters, size, seed] for seed in seeds]
        pairs = [
            mean[loss, raters, size, s] - mean["answer", raters, size, s] for s in seeds if ("answer", raters, size, s) in mean
        ]
        cells = [str(size), str(raters), loss, f"{_mean(values):.4f}", f"{_deviation(values):.4f}"]
        lines.append("| " + " | ".join([*cells, _interval(pairs) if loss != "answer" else ""]) + " |")
    return lines


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    return math.sqrt(sum((value - _mean(values)) ** 2 for value in values) / max(1, len(values) - 1))


def _interval(differences: Sequence[float]) -> str:
    if len(differences) < 2:
        return ""
    half = stats.t.ppf(0.975, len(differences) - 1) * _deviation(differences) / math.sqrt(len(differences))
    return f"{_mean(differences):+.4f} [{_mean(differences) - half:+.4f}, {_mean(differences) + half:+.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--raters", type=int, nargs="+", default=[2, 3, 5])
    parser.add_argument("--sizes", type=int, nargs="+", default=[600, 120], help="train images per dimension")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--random", action="store_true", help="start from a language model with random weights")
    parser.add_argument("--output", type=Path, help="a JSONL to which every run is added; runs in it are not repeated")
    arguments = parser.parse_args()
    done = (
        [json.loads(line) for line in arguments.output.read_text().splitlines()]
        if arguments.output and arguments.output.exists()
        else []
    )
    settings = [
        {"loss": loss, "raters": raters, "size": size, "seed": seed, **({"random": True} if arguments.random else {})}
        for seed in range(arguments.seeds)
        for size in arguments.sizes
        for raters in arguments.raters
        for loss in arguments.losses
    ]
    known = [{name: value for name, value in result.items() if name != "plcc"} for result in done]
    left = [setting for setting in settings if setting not in known]
    study = Study(arguments.random) if left else None
    with Progress(len(left), "training", unit="runs") as progress:
        for setting in left:
            assert study is not None
            done.append({**setting, "plcc": study.run(*(setting[name] for name in ("loss", "raters", "size", "seed")))})
            if arguments.output:
                with open(arguments.output, "a", encoding="utf-8") as file:
                    file.write(json.dumps(done[-1]) + "\n")
            progress.advance()
    print("\n".join(table(done)))


if __name__ == "__main__":
    main()
