"""One pass of the language model over rows packed end to end: no padding, no mask over the whole, nothing generated.

A row is one image with its questions:

    [system and user turn up to the image's end] [question and answer prefix 1] [question and answer prefix 2] ...

Each suffix sees the shared prefix and itself, never another suffix, and counts its positions from the end of the prefix.
Attention is computed image by image, so that no image's numbers depend on its neighbours; all else runs over the tokens of
all rows at once. The last layer computes only what the rating positions need. The modules are transformers' Qwen3, whose
weights are used as they are; tests hold the outcome to theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from transformers import Qwen3ForCausalLM

from saiqa.console import Failed

# A product of few rows takes another path through the BLAS than one of many, with other last digits. Where rows are few, they
# come in groups of this many, so that a rating's digits do not depend on how many are asked for.
FEW = 16


@dataclass(frozen=True)
class Span:
    """Where a row lies among the packed tokens: its shared prefix, then its suffixes, one behind the other."""

    start: int
    prefix_end: int
    suffixes: tuple[tuple[int, int], ...]

    @property
    def end(self) -> int:
        return self.suffixes[-1][1]


@dataclass
class Packed:
    """Rows end to end.

    Attributes:
        ids: token ids [tokens] int64, placeholders of ``ovis2_5`` included.
        positions: place of each token as its suffix counts [tokens] int64.
        spans: one a row.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    spans: list[Span]
    _masks: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)

    @cached_property
    def ends(self) -> list[int]:
        """Position behind which the rating word stands, of every suffix in order."""
        return [end - 1 for span in self.spans for _, end in span.suffixes]

    def mask(self, shared: int, own: int, like: torch.Tensor) -> torch.Tensor:
        """Additive mask [own, shared + own]: a suffix sees all of the prefix, and itself causally."""
        if (shared, own) not in self._masks:
            hidden = torch.full((own, own), -torch.inf, dtype=like.dtype, device=like.device).triu(1)
            self._masks[shared, own] = F.pad(hidden, (shared, 0))
        return self._masks[shared, own]


def pack(rows: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]], device: torch.device) -> Packed:
    """Rows of (prefix ids, ids of each suffix), end to end on ``device``."""
    ids, positions, spans = [], [], []
    for prefix, suffixes in rows:
        start, bounds = len(ids), []
        ids += prefix
        positions += range(len(prefix))
        for suffix in suffixes:
            bounds.append((len(ids), len(ids) + len(suffix)))
            ids += suffix
            positions += range(len(prefix), len(prefix) + len(suffix))
        spans.append(Span(start, start + len(prefix), tuple(bounds)))
    return Packed(torch.tensor(ids, device=device), torch.tensor(positions, device=device), spans)


class PackedReader:
    """Qwen3 over packed rows.

    Args:
        llm: the language model; its weights are used, not copied.
        compiled: fuse what stands between the matrix products with ``torch.compile``.
    """

    def __init__(self, llm: Qwen3ForCausalLM, compiled: bool = False):
        self.llm = llm
        fuse: Callable = (lambda part: torch.compile(part, dynamic=True)) if compiled else (lambda part: part)
        self._project, self._rest = fuse(_project), fuse(_rest)

    def __call__(self, embeds: torch.Tensor, packed: Packed) -> torch.Tensor:
        """Final hidden states [suffixes, hidden] where the rating words would follow, for embeddings [tokens, hidden]."""
        model = self.llm.model
        cos, sin = (table[0][:, None] for table in model.rotary_emb(embeds, packed.positions[None]))
        for layer in model.layers[:-1]:
            query, key, value = self._project(embeds, layer, cos, sin)
            embeds = self._rest(embeds, attend(query, key, value, packed), layer)
        return rms_norm(self._last_layer(embeds, packed, cos, sin), model.norm)[: len(packed.ends)]

    def _last_layer(self, hidden: torch.Tensor, packed: Packed, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Hidden states [suffixes, filled up to groups of ``FEW``, hidden] behind the last layer."""
        layer = self.llm.model.layers[-1]
        attention = layer.self_attn
        normed = rms_norm(hidden, layer.input_layernorm)
        key, value = _keys_and_values(normed, attention, cos, sin)
        ends = torch.tensor(packed.ends + packed.ends[:1] * (-len(packed.ends) % FEW), device=hidden.device)
        lines = []
        for group in ends.split(FEW):
            query = _heads(attention.q_proj(normed[group]), attention.head_dim, attention.q_norm, cos[group], sin[group])
            lines.append(query)
        attended = attend_from_ends(torch.cat(lines), key, value, packed)
        return torch.cat(
            [self._rest(hidden[group], part, layer) for group, part in zip(ends.split(FEW), attended.split(FEW), strict=True)]
        )


def check_compiler(device: torch.device) -> None:
    """Compile a line of code. Raises ``Failed`` where torch.compile finds no compiler that works."""
    try:
        with torch.inference_mode():
            torch.compile(lambda x: x.exp() + 1)(torch.zeros(64, device=device))
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        what = f"--compile: torch.compile does not work here: {reason}"
        raise Failed(what, "Install g++ and Python's headers (on a GPU, triton too), or leave --compile out") from error


def log_probabilities(llm: Qwen3ForCausalLM, hidden: torch.Tensor, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
    """Natural log-probabilities, among the whole vocabulary, of the tokens asked for behind each of the hidden states.

    Args:
        hidden: [suffixes, hidden].
        token_ids: for each suffix the same number of ids.
    """
    filled = F.pad(hidden, (0, 0, 0, -len(hidden) % FEW))
    wanted = torch.tensor(token_ids, device=hidden.device)
    logits = torch.cat([_gathered(llm.lm_head(group).float(), wanted[i * FEW :]) for i, group in enumerate(filled.split(FEW))])
    return logits.tolist()


def _gathered(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    wanted = wanted[: len(logits)]
    return logits[: len(wanted)].log_softmax(-1).gather(1, wanted)


# --- A layer, in the parts that stand between attention ---------------------------------------------------------------


def _project(hidden: torch.Tensor, layer, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Query [tokens, heads, head_dim], key and value [tokens, KV heads, head_dim] of one layer."""
    attention = layer.self_attn
    normed = rms_norm(hidden, layer.input_layernorm)
    query = _heads(attention.q_proj(normed), attention.head_dim, attention.q_norm, cos, sin)
    return query, *_keys_and_values(normed, attention, cos, sin)


def _keys_and_values(normed: torch.Tensor, attention, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, ...]:
    key = _heads(attention.k_proj(normed), attention.head_dim, attention.k_norm, cos, sin)
    return key, attention.v_proj(normed).unflatten(-1, (-1, attention.head_dim))


def _heads(projected: torch.Tensor, head_dim: int, norm, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    return rotate(rms_norm(projected.unflatten(-1, (-1, head_dim)), norm), cos, sin)


def _rest(hidden: torch.Tensor, attended: torch.Tensor, layer) -> torch.Tensor:
    """The layer behind its attention: output projection, MLP, and both residuals."""
    hidden = hidden + layer.self_attn.o_proj(attended)
    normed = rms_norm(hidden, layer.post_attention_layernorm)
    gated = layer.mlp.act_fn(layer.mlp.gate_proj(normed)).mul_(layer.mlp.up_proj(normed))
    return hidden.add_(layer.mlp.down_proj(gated))


def rms_norm(x: torch.Tensor, norm) -> torch.Tensor:
    """Qwen3's RMSNorm over the last axis, its mean in float32, in as few walks through memory as the device knows."""
    if x.is_cuda:
        return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = torch.rsqrt(length.square() / x.shape[-1] + norm.variance_epsilon)
    return (x * scale).to(x.dtype).mul_(norm.weight)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of ``x`` [tokens, heads, head_dim]; halves are rotated, not interleaved."""
    half = x.shape[-1] // 2
    rotated = x * cos
    rotated[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    rotated[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return rotated


# --- Attention, row by row --------------------------------------------------------------------------------------------


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packed: Packed) -> torch.Tensor:
    """[tokens, heads, head_dim] and [tokens, KV heads, head_dim] twice -> [tokens, heads * head_dim]"""
    key, value = (_for_every_head(x, query.shape[1]) for x in (key, value))
    attended = torch.empty_like(query)
    for span in packed.spans:
        first = span.end if len(span.suffixes) == 1 else span.prefix_end
        whole = slice(span.start, first)
        attended[whole] = _attention(query[whole], key[whole], value[whole], is_causal=True)
        for start, end in span.suffixes if first == span.prefix_end else ():
            keys, values = (_seen(x, span, start, end) for x in (key, value))
            mask = packed.mask(span.prefix_end - span.start, end - start, query)
            attended[start:end] = _attention(query[start:end], keys, values, attn_mask=mask)
    return attended.flatten(1)


def attend_from_ends(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packed: Packed) -> torch.Tensor:
    """As ``attend``, with queries [suffixes or more, heads, head_dim] at the suffixes' ends only; no mask is needed there."""
    key, value = (_for_every_head(x, query.shape[1]) for x in (key, value))
    attended = torch.zeros_like(query)
    places = ((span, start, end) for span in packed.spans for start, end in span.suffixes)
    for line, (span, start, end) in enumerate(places):
        keys, values = (_seen(x, span, start, end) for x in (key, value))
        attended[line : line + 1] = _attention(query[line : line + 1], keys, values)
    return attended.flatten(1)


def _seen(x: torch.Tensor, span: Span, start: int, end: int) -> torch.Tensor:
    """The prefix and one suffix of a row."""
    return x[span.start : end] if start == span.prefix_end else torch.cat([x[span.start : span.prefix_end], x[start:end]])


def _for_every_head(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys or values, each KV head repeated for the query heads that share it."""
    return x[:, :, None].expand(-1, -1, heads // x.shape[1], -1).flatten(1, 2)


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options) -> torch.Tensor:
    """[tokens, heads, head_dim] of one row."""
    heads_first = (x.transpose(0, 1)[None] for x in (query, key, value))
    return F.scaled_dot_product_attention(*heads_first, **options)[0].transpose(0, 1)
