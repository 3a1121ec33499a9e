"""Which regions of a picture lower its score: several attribution methods, each a pure function.

Each takes a question about a picture (``Asked``) and regions, bool [regions, groups] (a group is what one visual embedding
covers), and returns points [regions]: how much higher the score would be without the content of each region. ``METHODS``
names them; ``benchmarks/explain_study.py`` evaluates them on faults at known places. They run transformers' Qwen3 rather than
``packed``, whose in-place operations do not support gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from saiqa.facts import WORD_VALUES, WORDS
from saiqa.model.ovis2_5 import VISUAL_EMBEDDING_ID, Ovis2_5

MOST_TOKENS = 8192  # per batch of forward passes
Read = Callable[[slice], torch.Tensor]


class Picture(NamedTuple):
    """A picture as ``image_to_patches`` cuts it, and its visual embeddings [groups, hidden], possibly with a gradient graph."""

    patches: torch.Tensor
    grid: torch.Tensor
    visual: torch.Tensor


@dataclass(frozen=True)
class Asked:
    """One question about one picture.

    Attributes:
        model: the model, in float32 or bfloat16.
        picture: the picture.
        before: embeddings [tokens, hidden] of everything before the picture's first visual embedding.
        visual: the visual embeddings [groups, hidden], as the language model reads them.
        after: embeddings [tokens, hidden] of the image end token, the question, and the answer prefix.
        word_ids: token ids of the five words, in their order.
    """

    model: Ovis2_5
    picture: Picture
    before: torch.Tensor
    visual: torch.Tensor
    after: torch.Tensor
    word_ids: torch.Tensor

    def scores(self, visual: torch.Tensor) -> torch.Tensor:
        """Scores [n] with these visual embeddings [n, groups, hidden] instead of the picture's."""
        tokens = len(self.before) + len(self.visual) + len(self.after)
        return _in_parts(len(visual), tokens, lambda part: self._scores(visual[part]))

    def _scores(self, visual: torch.Tensor) -> torch.Tensor:
        before, after = (part.expand(len(visual), -1, -1) for part in (self.before, self.after))
        embeds = torch.cat([before, visual, after], 1)
        return self.of_hidden(self.model.llm.model(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, -1])

    def of_hidden(self, last: torch.Tensor) -> torch.Tensor:
        """Scores [n] from the final hidden states [n, hidden] at the rating position."""
        words = self.model.llm.lm_head(last).float()[:, self.word_ids].softmax(-1)
        return words @ torch.tensor([float(WORD_VALUES[word]) for word in WORDS], device=words.device)


def asked(model: Ovis2_5, picture: Picture, ids: torch.Tensor, word_ids: list[int]) -> Asked:
    """The question of these token ids [tokens], placeholders included, about a picture."""
    with torch.no_grad():
        embeds = model.embed(ids, picture.visual)
    places = (ids == VISUAL_EMBEDDING_ID).nonzero()[:, 0]
    first, end = int(places[0]), int(places[-1]) + 1
    parts = embeds[:first], embeds[first:end], embeds[end:]
    return Asked(model, picture, *parts, torch.tensor(word_ids, device=ids.device))


def regions(rows: int, columns: int, most: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """A grid of at most ``most`` x ``most`` regions over rows x columns groups.

    Returns:
        bool [regions, groups], row by row, and how many rows and columns of regions there are.
    """
    down, across = min(rows, most), min(columns, most)
    row, column = (torch.arange(size) * parts // size for size, parts in ((rows, down), (columns, across)))
    which = (row[:, None] * across + column).flatten()
    return which == torch.arange(down * across)[:, None], (down, across)


# ---- the methods -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def hidden(asked: Asked, regions: torch.Tensor) -> torch.Tensor:
    """The region's keys are masked for the question: one pass over the picture, then a short one per region."""
    seen = torch.cat([asked.before, asked.visual, asked.after[:1]])[None]  # with the image end token
    question, first = asked.after[1:], len(asked.before)
    places = torch.arange(seen.shape[1], seen.shape[1] + len(question), device=seen.device)
    may_see = torch.ones(len(question), seen.shape[1] + len(question), dtype=torch.bool, device=seen.device).tril(seen.shape[1])

    def read(rows: torch.Tensor) -> torch.Tensor:
        mask = may_see.expand(len(rows), -1, -1).clone()
        mask[:, :, first : first + rows.shape[1]] &= ~rows[:, None]
        additive = torch.zeros_like(mask, dtype=seen.dtype).masked_fill_(~mask, torch.finfo(seen.dtype).min)[:, None]
        known = asked.model.llm.model(inputs_embeds=seen, use_cache=True).past_key_values
        known.batch_repeat_interleave(len(rows))
        options = {"attention_mask": additive, "position_ids": places.expand(len(rows), -1), "past_key_values": known}
        ran = asked.model.llm.model(inputs_embeds=question.expand(len(rows), -1, -1), use_cache=True, **options)
        return asked.of_hidden(ran.last_hidden_state[:, -1])

    rows = torch.cat([torch.zeros_like(regions[:1]), regions])
    scores = _in_parts(len(rows), may_see.shape[1], lambda part: read(rows[part]))
    return scores[1:] - scores[0]


@torch.no_grad()
def replaced(asked: Asked, regions: torch.Tensor) -> torch.Tensor:
    """The region's embeddings are replaced by the mean of the picture's embeddings."""
    visual = torch.where(regions[:, :, None], asked.visual.mean(0), asked.visual)
    return _higher(asked, visual)


@torch.no_grad()
def painted(asked: Asked, regions: torch.Tensor) -> torch.Tensor:
    """The region is painted over with the picture's mean colour, and the vision tower runs again."""
    pixels = _pixels(asked)
    colour = pixels.mean((0, 1, 3), keepdim=True)[0]
    visual = []
    for region in regions:
        picture = torch.where(region[:, None, None, None], colour, pixels).view_as(asked.picture.patches)
        visual.append(asked.model.embed_images(picture, asked.picture.grid))
    return _higher(asked, torch.stack(visual))


def pixels(asked: Asked, regions: torch.Tensor) -> torch.Tensor:
    """As ``gradient``, for the region's pixels, moved towards the picture's mean colour."""
    at, grid, visual = asked.picture
    with torch.enable_grad():
        if not visual.requires_grad:
            at = at.detach().clone().requires_grad_(True)
            visual = asked.model.embed_images(at, grid)
        slope = torch.autograd.grad(asked.scores(visual[None]).sum(), at)[0]
    seen = _pixels(asked).detach()
    towards_colour = seen.mean((0, 1, 3), keepdim=True) - seen
    return _sums(regions, (towards_colour * slope.view_as(seen)).flatten(1).sum(-1))


def gradient(asked: Asked, regions: torch.Tensor) -> torch.Tensor:
    """Gradient times input: the first-order change of the score as the region's embeddings move to the picture's mean."""
    slope = _slope(asked, asked.visual[None])[0]
    return _sums(regions, ((asked.visual.mean(0) - asked.visual) * slope).sum(-1))


@torch.no_grad()
def alike(asked: Asked, regions: torch.Tensor) -> torch.Tensor:
    """Every embedding of the picture becomes the region's mean: the score of the region alone, weighted by its share."""
    share = regions.to(asked.visual.dtype) / regions.sum(1, keepdim=True)
    visual = (share @ asked.visual)[:, None].expand(-1, len(asked.visual), -1)
    return -_higher(asked, visual) * regions.sum(1) / regions.shape[1]


def towards(asked: Asked, regions: torch.Tensor) -> torch.Tensor:
    """First-order ``alike``, around the picture's mean embedding at every position: one gradient serves all regions."""
    mean = asked.visual.mean(0)
    slope = _slope(asked, mean.expand(1, len(asked.visual), -1))[0].mean(0)
    return _sums(regions, (mean - asked.visual) @ slope)


def _pixels(asked: Asked) -> torch.Tensor:
    """The picture's pixels [groups, patches of a group, channels, pixels of a patch]."""
    patches, channels = asked.picture.patches, asked.model.config.vit_config.num_channels
    return patches.view(len(asked.visual), -1, channels, patches.shape[-1] // channels)


def _higher(asked: Asked, visual: torch.Tensor) -> torch.Tensor:
    """How much higher the scores with these visual embeddings [n, groups, hidden] are than the picture's own."""
    scores = asked.scores(torch.cat([asked.visual[None], visual]))
    return scores[1:] - scores[0]


def _slope(asked: Asked, visual: torch.Tensor) -> torch.Tensor:
    """The gradient of the score at visual embeddings [n, groups, hidden], in the same shape."""
    at = visual.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        return torch.autograd.grad(asked.scores(at).sum(), at)[0]


def _sums(regions: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Sums of values [groups] over each region."""
    return regions.to(values.dtype) @ values


def _in_parts(rows: int, tokens: int, read: Read) -> torch.Tensor:
    """The results of ``read`` for all rows of ``tokens`` tokens each, in batches of at most ``MOST_TOKENS`` tokens."""
    step = max(1, MOST_TOKENS // tokens)
    return torch.cat([read(slice(start, start + step)) for start in range(0, rows, step)])


OF_PIXELS = (pixels,)  # the methods whose gradients go through the vision tower
METHODS: dict[str, Callable[[Asked, torch.Tensor], torch.Tensor]] = {
    "hidden": hidden,
    "replaced": replaced,
    "painted": painted,
    "gradient": gradient,
    "pixels": pixels,
    "alike": alike,
    "towards": towards,
}
