"""The loss on the rating word alone, in place of that on the whole answer (``--loss``). Registers with ms-swift on import.

The release's loss is the mean over the tokens of the answer, of which one is the rating word. Here all labels but that word are
masked by a loss scale of ms-swift, so that what the trainer counts, over processes and accumulated batches alike, is words: a
sum divided by that count is the mean over examples, however they are cut into batches.

``word`` is the cross entropy of the word that people's mean rounds to. ``raters`` and ``gaussian`` take it to a distribution
over the five: of the raters' marks, or a discretised normal around their mean, the soft labels of DeQA-Score (2025).
``mse`` is the squared difference between the score, the expected value under the five words, and the mean.
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

_IGNORED = -100  # label of a token without a loss


class WordScale(LossScale):
    """1 for the rating word of an answer, 0 for all else."""

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
    """Loss on the five words where the rating word stands. Targets come as ``channel`` of the examples (``soft_labels``)."""

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

        trainer.compute_loss = with_targets  # ms-swift takes ``channel`` out of the inputs and hands it to no loss

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
            raise ValueError(f"{len(words)} rating words and {len(self._targets)} ratings in a batch")
        targets = torch.tensor([list(map(float, text.split())) for text in self._targets], device=logits.device)
        spelled = [next(ids for ids in self._spellings if word in ids) for word in words.tolist()]
        ids = torch.tensor(spelled, device=logits.device)
        losses = self.losses(logits, ids, targets[:, :-1], targets[:, -1])
        return losses.sum() / (len(words) if num_items_in_batch is None else num_items_in_batch)

    def losses(self, logits: torch.Tensor, ids: torch.Tensor, shares: torch.Tensor, mos: torch.Tensor) -> torch.Tensor:
        """Losses [n] for logits [n, vocabulary], the words' ids [n, 5], their shares [n, 5] and mean opinion scores [n]."""
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
