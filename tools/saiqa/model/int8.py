"""8-bit linear layers: weights have one scale per output, activations one scale per token.

The products are integer sums, exact in any order, so a token's result does not depend on other tokens. ``torch._int_mm``
computes them on every device; oneDNN's own linear layer (``qlinear_pointwise``) is a tenth faster where it has a kernel for
signed activations, but ten thousand times slower on a CPU without one (AVX512-VNNI without AMX).
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import nn

MOST = 126  # not 127: in bfloat16 a scale is rounded to 8 bits, and values must still stay below 127.5 after division
_SMALLEST = 1e-12  # lower bound of a scale, so that rows of zeros stay zeros
_GPU_ROWS = 17  # the fewest rows that torch._int_mm accepts on a GPU

_IN_A_LAYER = re.compile(r"llm\.model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight")
HEAD = "llm.lm_head.weight"


def is_quantised(name: str, tied: bool) -> bool:
    """Whether a weight of this name is held in 8 bits: the language model's linear layers, and its head unless it is tied."""
    return bool(_IN_A_LAYER.fullmatch(name)) or (name == HEAD and not tied)


def quantise(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [n, width] -> values [n, width] int8, and scales [n, 1] in ``x``'s dtype; their product approximates ``x``."""
    scales = x.abs().amax(-1, keepdim=True).div_(MOST).clamp_(min=_SMALLEST)
    return (x / scales).round_().to(torch.int8), scales


class Int8Weight:
    """A weight [outputs, inputs] that is quantised row by row while it is read, so it is never held in full precision.

    Args:
        outputs, inputs: its shape.
        device: where it will be used.
    """

    def __init__(self, outputs: int, inputs: int, device: torch.device):
        self.values = torch.empty(outputs, inputs, dtype=torch.int8, device=device)
        self.scales = torch.empty(outputs, dtype=torch.float32, device=device)

    def write(self, start: int, rows: torch.Tensor) -> bool:
        """Write rows [n, inputs] at ``start``; returns whether all values are finite."""
        values, scales = quantise(rows.to(self.scales))
        self.values[start : start + len(rows)] = values
        self.scales[start : start + len(rows)] = scales[:, 0]
        return bool(scales.isfinite().all())


class Int8Linear(nn.Module):
    """The linear layer, without bias, of a fully written weight; the output has the dtype of the input."""

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
