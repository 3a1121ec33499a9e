"""Validation during training: the scores that ``infer.py`` would give with the current model.

The modules in training are called directly, with adapters, and with weights that ZeRO-3 gathers layer by layer; the prefill
engine's packed pass would rearrange weights that the optimizer holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from saiqa import scoring
from saiqa.engines.loading import read_image, word_ids_after
from saiqa.evaluate.figures import CorrelationError, correlate
from saiqa.facts import WORDS
from saiqa.files.jsonl import read_jsonl
from saiqa.model.ovis2_5 import image_to_patches, image_token_ids, turn_text
from saiqa.model.pixels import PixelBounds, Preprocessing, shrink
from saiqa.training.spec import Spec

if TYPE_CHECKING:
    from swift.trainers import Trainer


class Validator:
    """Rates the validation examples, each once, spread over all processes."""

    def __init__(self, trainer: Trainer, spec: Spec):
        self.trainer, self.spec = trainer, spec
        self.bounds = PixelBounds(spec.min_pixels, spec.max_pixels)
        self.preprocessing = Preprocessing.of_checkpoint(spec.base)
        self.tokenizer = trainer.template.tokenizer
        self.examples = [value for _, value in read_jsonl(Path(spec.validation))]
        self.rank, self.processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)

    def figures(self) -> dict[str, Any]:
        """PLCC, SRCC and negative log-likelihood per group and overall, and ``quality``, which selects the best checkpoint."""
        mine = list(range(self.rank, len(self.examples), self.processes)) or [0]
        # With ZeRO-3 all processes must take part in a forward pass: those with fewer examples repeat their last.
        most = -(-len(self.examples) // self.processes)
        padded = mine + mine[-1:] * (most - len(mine))
        answers = dict(zip(padded, self._rate(padded), strict=True))
        everyone: list[dict] = [{} for _ in range(self.processes)]
        if self.processes > 1:
            dist.all_gather_object(everyone, answers)
        else:
            everyone = [answers]
        together = {place: logprobs for part in everyone for place, logprobs in part.items()}
        return _figures([(self.examples[place], together[place]) for place in range(len(self.examples))])

    def _rate(self, places: Sequence[int]) -> list[list[float]]:
        """The five words' log-probabilities for examples, in the order of ``WORDS``."""
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), self.trainer.compute_loss_context_manager():
                size = self.spec.batch_size
                return [row for at in range(0, len(places), size) for row in self._pass(model, places[at : at + size])]
        finally:
            model.train(training)

    def _pass(self, model: torch.nn.Module, places: Sequence[int]) -> list[list[float]]:
        device = next(model.parameters()).device
        vit = self.trainer.template.get_base_model(model).config.vit_config
        rows, patches, grids, words = [], [], [], []
        for place in places:
            example = self.examples[place]
            image = shrink(read_image(example["image"], False).image, self.bounds)
            values, grid = image_to_patches(image, self.bounds, self.preprocessing, vit.patch_size, vit.hidden_stride)
            before, after = turn_text(example["query"], self.spec.system)
            groups = int(grid.prod(-1).sum()) // vit.hidden_stride**2
            rows.append(
                [*self._encode(before), *image_token_ids(groups), *self._encode(after), *self._encode(example["prefix"])]
            )
            patches.append(values)
            grids.append(grid)
            words.append(word_ids_after(self.tokenizer, example["prefix"]))
        longest = max(map(len, rows))
        # Left padding, so that all rating words follow the last position.
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
        output = model(
            input_ids=ids,
            pixel_values=torch.cat(patches).to(device),
            grid_thws=torch.cat(grids).to(device),
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            logits_to_keep=1,
            use_cache=False,
        )
        logprobs = output.logits[:, -1].float().log_softmax(-1)
        return [logprobs[row, ids].tolist() for row, ids in enumerate(words)]

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)


def _figures(rated: Sequence[tuple[dict, list[float]]]) -> dict[str, Any]:
    groups: dict[str, list[tuple[dict, dict[str, float]]]] = {}
    for example, logprobs in rated:
        groups.setdefault(example["group"], []).append((example, dict(zip(WORDS, logprobs, strict=True))))
    by_group = {name: _of_group(members) for name, members in groups.items()}
    everything = _of_group([one for members in groups.values() for one in members])
    known = [figures for figures in by_group.values() if "plcc" in figures]
    agreement = [(figures["plcc"] + figures["srcc"]) / 2 for figures in known]
    # If no correlation is defined, use the likelihood.
    quality = sum(agreement) / len(agreement) if agreement else -everything["nll"]
    return {"quality": quality, "all": everything, "groups": by_group}


def _of_group(members: Sequence[tuple[dict, dict[str, float]]]) -> dict[str, float]:
    scores = [scoring.score_of(logprobs) for _, logprobs in members]
    figures: dict[str, float] = {"n": len(members)}
    figures["nll"] = -sum(logprobs[example["word"]] for example, logprobs in members) / len(members)
    try:
        found = correlate(scores, [example["mos"] for example, _ in members])
    except CorrelationError:
        return figures
    return figures | {"plcc": found.plcc, "srcc": found.srcc}
