"""What a picture looks like to the model, in few numbers: enough to tell whether the like of it was seen before."""

from __future__ import annotations

from collections.abc import Sequence

import torch

BUCKETS = 16


def looks_of(visual: torch.Tensor, groups: Sequence[int]) -> torch.Tensor:
    """Mean and spread over a picture's visual embeddings, each as the means of ``BUCKETS`` parts of its features.

    Args:
        visual: embeddings of several pictures, one behind the other [groups, hidden].
        groups: how many belong to each picture.

    Returns:
        Numbers [pictures, 2 x ``BUCKETS``], where the embeddings are: a GPU is not waited for.
    """
    return torch.stack([_look(part.float()) for part in visual.split(list(groups))])


def _look(visual: torch.Tensor) -> torch.Tensor:
    both = (visual.mean(0), visual.std(0, unbiased=False))
    return torch.stack([part.mean() for values in both for part in values.tensor_split(BUCKETS)])
