"""Losses on the rating word only, instead of on the whole answer (``--loss``). Registers with ms-swift on import.

The release's loss is the mean over the tokens of the answer, one of which is the rating word. Here an ms-swift loss scale masks
all labels except that word, so the trainer counts words, across processes and accumulated batches: the sum divided by that
count is the mean over examples, however they are batched.

``word`` is the cross entropy to the word that the MOS rounds to. ``raters`` and ``gaussian`` use soft labels over the five
words: the distribution of the raters' scores, or a discretised normal distribution around the MOS (DeQA-Score, 2025). ``mse``
is the squared difference between the score (the expected value under the five words) and the MOS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from swift.loss import loss_map
from swift.loss.base import BaseLoss
from swift.loss_scale.base import LossScale
from swift.loss_scale.mapping import loss_scale_map

from saiqa import scoring
from saiqa.facts import WORD_VALUES, WORDS
from saiqa.training.soft_labels import WORD_SCALE, loss_type

if TYPE_CHECKING:
    from swift.trainers import Trainer, TrainingArguments
    from transformers.modeling_outputs import CausalLMOutputWithPast

_IGNORED = -100  # label of a token that is not trained on


class WordScale(LossScale):
    """1 for the rating word of an answer, 0 for everything else."""

    is_binary = True

    def get_loss_scale(self, context: str | list[int], **_: object) -> tuple[list[str | list[int]], list[float]]:
        answer = scoring.split_answer(context) if isinstance(context, str) else None
        if answer is None:
            return [context], [0.0]
        before, word, after = answer
        word = f" {word}" if before else word
        parts = [(before, 0.0), (word, 1.0), (after, 0.0)]
        return [part for part, _ in parts if part], [weight for part, weight in parts if part]


class RatingLoss(BaseLoss):
    """Loss on the five words at the rating position. Targets are in the ``channel`` of the examples (``soft_labels``)."""

    def __init__(self, args: TrainingArguments, trainer: Trainer):
        super().__init__(args, trainer)
        tokenizer = trainer.template.tokenizer
        self._spellings = [
            [tokenizer.encode(blank + word, add_special_tokens=False)[0] for word in WORDS] for blank in (" ", "")
        ]
        self._targets: list[str] = []
        inner = trainer.compute_loss

        def with_targets(
            model: torch.nn.Module, inputs: Mapping[str, Any], *rest: object, **options: object
        ) -> torch.Tensor | tuple[torch.Tensor, CausalLMOutputWithPast]:
            self._targets = list(inputs.get("channel") or ())
            return inner(model, inputs, *rest, **options)

        trainer.compute_loss = with_targets  # ms-swift removes ``channel`` from the inputs before the loss

    def __call__(
        self,
        outputs: CausalLMOutputWithPast,
        labels: torch.Tensor,
        *,
        num_items_in_batch: torch.Tensor | int | None = None,
        loss_scale: torch.Tensor | None = None,
        **_: object,
    ) -> torch.Tensor:
        following = torch.roll(labels, shifts=-1, dims=-1)
        at = following != _IGNORED
        words, logits = following[at], outputs.logits[at].float()
        if len(words) != len(self._targets):
            raise ValueError(f"{len(words)} rating words but {len(self._targets)} ratings in a batch")
        targets = torch.tensor([list(map(float, text.split())) for text in self._targets], device=logits.device)
        spelled = [next(ids for ids in self._spellings if word in ids) for word in words.tolist()]
        ids = torch.tensor(spelled, device=logits.device)
        losses = self.losses(logits, ids, targets[:, :-1], targets[:, -1])
        return losses.sum() / (len(words) if num_items_in_batch is None else num_items_in_batch)

    def losses(self, logits: torch.Tensor, ids: torch.Tensor, shares: torch.Tensor, mos: torch.Tensor) -> torch.Tensor:
        """Losses [n] for logits [n, vocabulary], the words' ids [n, 5], their target shares [n, 5] and MOS [n]."""
        raise NotImplementedError


class SharesLoss(RatingLoss):
    """Cross entropy to a distribution over the five words."""

    def losses(self, logits: torch.Tensor, ids: torch.Tensor, shares: torch.Tensor, mos: torch.Tensor) -> torch.Tensor:
        return -(shares * F.log_softmax(logits, -1).gather(1, ids)).sum(1)


class ScoreLoss(RatingLoss):
    """Squared difference between score and mean opinion score."""

    def losses(self, logits: torch.Tensor, ids: torch.Tensor, shares: torch.Tensor, mos: torch.Tensor) -> torch.Tensor:
        values = torch.tensor([float(WORD_VALUES[word]) for word in WORDS], device=logits.device)
        return (logits.gather(1, ids).softmax(-1) @ values - mos) ** 2


loss_scale_map[WORD_SCALE] = WordScale
loss_map |= {loss_type("raters"): SharesLoss, loss_type("gaussian"): SharesLoss, loss_type("mse"): ScoreLoss}
