"""Linear maps in 8 bits: a scale for each output of the weight, and one for each token of what is multiplied with it.

The products are sums of whole numbers, exact whatever their order: a token's numbers depend on no other token. On every
device ``torch._int_mm`` makes them; oneDNN's own linear map (``qlinear_pointwise``) is a tenth quicker where it has a
kernel for signed rows, and ten thousand times slower on a CPU that has none (AVX512-VNNI without AMX).
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import nn

MOST = 126  # a scale is rounded, to 8 bits in bfloat16: what is 126 by it comes out below 127.5
_SMALLEST = 1e-12  # of a scale, so that rows of zeros stay zeros
_GPU_ROWS = 17  # fewer rows torch._int_mm does not take on a GPU

_IN_A_LAYER = re.compile(r"llm\.model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight")
HEAD = "llm.lm_head.weight"


def is_quantised(name: str, tied: bool) -> bool:
    """Whether a weight of this name is held in 8 bits: the language model's linear maps, its head if it is not the table."""
    return bool(_IN_A_LAYER.fullmatch(name)) or (name == HEAD and not tied)


def quantise(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [n, width] -> whole numbers [n, width] int8, and scales [n, 1] in ``x``'s dtype: their product is nearly ``x``."""
    scales = x.abs().amax(-1, keepdim=True).div_(MOST).clamp_(min=_SMALLEST)
    return (x / scales).round_().to(torch.int8), scales


class Int8Weight:
    """A weight [outputs, inputs] that is quantised row by row as it is read, in 8 bits from the first.

    Args:
        outputs, inputs: its shape.
        device: where it will be multiplied.
    """

    def __init__(self, outputs: int, inputs: int, device: torch.device):
        self.values = torch.empty(outputs, inputs, dtype=torch.int8, device=device)
        self.scales = torch.empty(outputs, dtype=torch.float32, device=device)

    def write(self, start: int, rows: torch.Tensor) -> bool:
        """Put rows [n, inputs] at ``start``; whether all of their numbers are finite."""
        values, scales = quantise(rows.to(self.scales))
        self.values[start : start + len(rows)] = values
        self.scales[start : start + len(rows)] = scales[:, 0]
        return bool(scales.isfinite().all())


class Int8Linear(nn.Module):
    """The linear map, without bias, of a weight that is written; rows in, rows of the same dtype out."""

    def __init__(self, weight: Int8Weight):
        super().__init__()
        self.scales = weight.scales
        self.values = weight.values.t()
        self._fewest = _GPU_ROWS if weight.values.device.type == "cuda" else 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values, scales = quantise(x)
        filled = F.pad(values, (0, 0, 0, max(0, self._fewest - len(values))))
        product = torch._int_mm(filled, self.values)[: len(values)] * self.scales
        return product.to(x.dtype).mul_(scales)
