"""What a picture looks like to the model, as a short feature vector that tells whether similar pictures were seen before."""

from __future__ import annotations

from collections.abc import Sequence

import torch

BUCKETS = 16


def looks_of(visual: torch.Tensor, groups: Sequence[int]) -> torch.Tensor:
    """Mean and standard deviation over a picture's visual embeddings, each averaged over ``BUCKETS`` buckets of features.

    Args:
        visual: embeddings of several pictures, concatenated [groups, hidden].
        groups: number of embeddings per picture.

    Returns:
        Features [pictures, 2 x ``BUCKETS``] on the device of the embeddings, without synchronising a GPU.
    """
    return torch.stack([_look(part.float()) for part in visual.split(list(groups))])


def _look(visual: torch.Tensor) -> torch.Tensor:
    both = (visual.mean(0), visual.std(0, unbiased=False))
    return torch.stack([part.mean() for values in both for part in values.tensor_split(BUCKETS)])
