"""The number of operations of the matrix products of a pass, counted from its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saiqa.engines import Request
from saiqa.engines.prefill_engine import PrefillEngine
from saiqa.model.ovis2_5 import Ovis2_5Config


@dataclass(frozen=True)
class RowShape:
    """The tokens of one image in a pass of the prefill engine: patches, shared prefix, and each question's suffix."""

    patches: int
    prefix: int
    suffixes: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return self.prefix + sum(self.suffixes)


def row_shapes(engine: PrefillEngine, requests: Sequence[Request]) -> list[RowShape]:
    """The shapes of the prefill engine's rows for the requests."""
    stride = engine.model.config.vit_config.hidden_stride
    visual = [(row, sum(token < 0 for token in row.prefix) - 2) for row in engine.rows(requests)]
    return [RowShape(n * stride**2, len(row.prefix), tuple(len(q.suffix) for q in row.questions)) for row, n in visual]


def pass_flops(config: Ovis2_5Config, rows: Sequence[RowShape]) -> float:
    """Operations of the matrix products of one pass over the rows, two per multiply-add.

    For causal attention only unmasked pairs count, and for the last layer only what is computed there: keys and values of
    all tokens, the rest at the rating positions.
    """
    return sum(tower_flops(config, row.patches) + text_flops(config, row) for row in rows)


def tower_flops(config: Ovis2_5Config, patches: int) -> float:
    vit = config.vit_config
    group, words = vit.hidden_stride**2, config.visual_vocab_size - 4
    per_patch = vit.num_channels * vit.patch_size**2 * vit.hidden_size
    per_patch += vit.num_hidden_layers * (4 * vit.hidden_size**2 + 2 * vit.hidden_size * vit.intermediate_size)
    pairs = vit.num_hidden_layers * 2 * patches**2 * vit.hidden_size
    head = patches / group * words * (group * vit.hidden_size + config.hidden_size)
    return 2 * (patches * per_patch + pairs + head)


def text_flops(config: Ovis2_5Config, row: RowShape) -> float:
    llm = config.llm_config
    heads, kv = llm.num_attention_heads * llm.head_dim, llm.num_key_value_heads * llm.head_dim
    keys = 2 * llm.hidden_size * kv
    rest = 2 * llm.hidden_size * heads + 3 * llm.hidden_size * llm.intermediate_size
    seen = row.prefix * (row.prefix + 1) / 2 + sum(n * row.prefix + n * (n + 1) / 2 for n in row.suffixes)
    inner = (llm.num_hidden_layers - 1) * (row.tokens * (keys + rest) + 2 * seen * heads)
    last = row.tokens * keys + sum(rest + 2 * (row.prefix + n) * heads for n in row.suffixes)
    return 2 * (inner + last + len(row.suffixes) * llm.hidden_size * llm.vocab_size)
