"""One language model pass over rows packed end to end: no padding, no mask over the whole sequence, no generation.

A row is one image with its questions:

    [system and user turn up to the image's end] [question and answer prefix 1] [question and answer prefix 2] ...

Each suffix attends to the shared prefix and itself, never to another suffix, and its positions continue from the prefix.
Attention is computed image by image, so no image's result depends on its neighbours; everything else runs over the tokens of
all rows at once. The last layer computes only what the rating positions need. The modules are transformers' Qwen3 with
unchanged weights; tests compare the results with those of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from transformers import Qwen3ForCausalLM

from saiqa.errors import Failed, first_line
from saiqa.model.int8 import Int8Linear

if TYPE_CHECKING:
    from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RMSNorm

# A matrix product of few rows takes another path through the BLAS than one of many rows, with different last digits, and a
# product of one row also depends on the number of threads. Few rows are therefore padded to groups of this size, so that a
# rating's last digits depend neither on the number of questions nor on the threads.
FEW = 16


@dataclass(frozen=True)
class Span:
    """Where a row is among the packed tokens: its shared prefix, then its suffixes in sequence."""

    start: int
    prefix_end: int
    suffixes: tuple[tuple[int, int], ...]


@dataclass
class Packed:
    """Rows end to end.

    Attributes:
        ids: token ids [tokens] int64, including the placeholders of ``ovis2_5``.
        positions: position id of each token within its prefix and suffix [tokens] int64.
        spans: one per row.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    spans: list[Span]
    _masks: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)

    @cached_property
    def ends(self) -> list[int]:
        """The last position of every suffix in order; the rating word would follow it."""
        return [end - 1 for span in self.spans for _, end in span.suffixes]

    def mask(self, shared: int, own: int, like: torch.Tensor) -> torch.Tensor:
        """Additive mask [own, shared + own]: a suffix sees all of the prefix, and itself causally."""
        if (shared, own) not in self._masks:
            hidden = torch.full((own, own), -torch.inf, dtype=like.dtype, device=like.device).triu(1)
            self._masks[shared, own] = F.pad(hidden, (shared, 0))
        return self._masks[shared, own]


def pack(rows: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]], device: torch.device) -> Packed:
    """Pack rows of (prefix ids, ids of each suffix) end to end on ``device``."""
    ids: list[int] = []
    positions: list[int] = []
    spans = []
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
        llm: the language model, in 8 bits or not; its weights are used, not copied.
        compiled: fuse the operations between the matrix products with ``torch.compile``.
    """

    def __init__(self, llm: Qwen3ForCausalLM, compiled: bool = False):
        self.llm = llm
        self.layers = [_Layer(layer) for layer in llm.model.layers]
        wrap: Callable = (lambda part: torch.compile(part, dynamic=True)) if compiled else (lambda part: part)
        self._project, self._rest = wrap(_project), wrap(_rest)

    def __call__(self, embeds: torch.Tensor, packed: Packed) -> torch.Tensor:
        """Final hidden states [suffixes, hidden] where the rating words would follow, for embeddings [tokens, hidden]."""
        model = self.llm.model
        cos, sin = (table[0][:, None] for table in model.rotary_emb(embeds, packed.positions[None]))
        for layer in self.layers[:-1]:
            query, key, value = self._project(embeds, layer, cos, sin)
            embeds = self._rest(embeds, attend(query, key, value, packed), layer)
        return rms_norm(self._last_layer(embeds, packed, cos, sin), model.norm)[: len(packed.ends)]

    def _last_layer(self, hidden: torch.Tensor, packed: Packed, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Hidden states [suffixes, hidden] after the last layer; the suffixes are padded to a multiple of ``FEW``."""
        layer = self.layers[-1]
        normed = rms_norm(hidden, layer.input_norm)
        key, value = _keys_and_values(_product(normed, layer.key_value), layer, cos, sin)
        ends = torch.tensor(packed.ends + packed.ends[:1] * (-len(packed.ends) % FEW), device=hidden.device)
        groups = ends.split(FEW)
        query = [_heads(_product(normed[at], layer.query), layer.head_dim, layer.query_norm, cos[at], sin[at]) for at in groups]
        attended = attend_from_ends(torch.cat(query), key, value, packed).split(FEW)
        return torch.cat([self._rest(hidden[at], part, layer) for at, part in zip(groups, attended, strict=True)])


def check_compiler(device: torch.device) -> None:
    """Compile one line of code. Raises ``Failed`` if torch.compile finds no working compiler."""
    try:
        with torch.inference_mode():
            torch.compile(lambda x: x.exp() + 1)(torch.zeros(64, device=device))
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
        what = f"torch.compile does not work here: {first_line(error)}"
        raise Failed(what, "Install g++ and Python's headers (on a GPU, triton too), or do not compile") from error


def log_probabilities(llm: Qwen3ForCausalLM, hidden: torch.Tensor, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
    """Natural log-probabilities, over the whole vocabulary, of the given next tokens for each hidden state.

    Args:
        hidden: [suffixes, hidden].
        token_ids: the same number of ids for each suffix.
    """
    filled = F.pad(hidden, (0, 0, 0, -len(hidden) % FEW))
    wanted = torch.tensor(token_ids, device=hidden.device)
    logits = torch.cat([_gathered(llm.lm_head(group).float(), wanted[i * FEW :]) for i, group in enumerate(filled.split(FEW))])
    return logits.tolist()


def _gathered(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    wanted = wanted[: len(logits)]
    return logits[: len(wanted)].log_softmax(-1).gather(1, wanted)


# --- A layer: the parts before and after attention --------------------------------------------------------------------


class _Layer:
    """A Qwen3 layer's weights for a packed pass: those with the same input are fused into one matrix.

    The modules' own weights become views of it, so nothing is stored twice. In 8 bits the last layer has ``query`` and
    ``key_value``, every other layer ``query_key_value``; the rest are None.
    """

    query_key_value: torch.Tensor | Int8Linear
    query: torch.Tensor | Int8Linear
    key_value: torch.Tensor | Int8Linear

    def __init__(self, layer: Qwen3DecoderLayer):
        attention, mlp = layer.self_attn, layer.mlp
        self.head_dim, self.activation = attention.head_dim, mlp.act_fn
        self.input_norm, self.mlp_norm = layer.input_layernorm, layer.post_attention_layernorm
        self.query_norm, self.key_norm = attention.q_norm, attention.k_norm
        self.widths = [attention.q_proj.out_features, attention.k_proj.out_features + attention.v_proj.out_features]
        if isinstance(mlp.down_proj, Int8Linear):
            for name in ("query_key_value", "query", "key_value"):
                setattr(self, name, getattr(attention, name, None))
            self.attention_out, self.gate_up, self.down = attention.o_proj, mlp.gate_up, mlp.down_proj
        else:
            self.query_key_value = _side_by_side(attention.q_proj, attention.k_proj, attention.v_proj)
            self.query, self.key_value = self.query_key_value.split(self.widths)
            self.gate_up = _side_by_side(mlp.gate_proj, mlp.up_proj)
            self.attention_out, self.down = attention.o_proj.weight, mlp.down_proj.weight


def _product(x: torch.Tensor, weight: torch.Tensor | Int8Linear) -> torch.Tensor:
    """Rows [n, inputs] -> [n, outputs]"""
    return F.linear(x, weight) if isinstance(weight, torch.Tensor) else weight(x)


def _side_by_side(*linears: torch.nn.Linear) -> torch.Tensor:
    """One weight [sum of outputs, inputs] for several bias-free layers, whose weights become (or already are) views of it."""
    weights = [linear.weight.data for linear in linears]
    if _are_side_by_side(weights):
        rows, (inputs,) = sum(map(len, weights)), weights[0].shape[1:]
        return weights[0].as_strided((rows, inputs), (inputs, 1))
    together = torch.cat(weights)
    for linear, part in zip(linears, together.split([linear.out_features for linear in linears]), strict=True):
        linear.weight.data = part
    return together


def _are_side_by_side(weights: Sequence[torch.Tensor]) -> bool:
    """Whether the weights are adjacent in memory, in this order."""
    if len({weight.untyped_storage().data_ptr() for weight in weights}) > 1 or not all(w.is_contiguous() for w in weights):
        return False
    ends = [weight.data_ptr() + weight.nbytes for weight in weights]
    return ends[:-1] == [weight.data_ptr() for weight in weights[1:]]


def _project(hidden: torch.Tensor, layer: _Layer, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Query [tokens, heads, head_dim], key and value [tokens, KV heads, head_dim] of one layer."""
    projected = _product(rms_norm(hidden, layer.input_norm), layer.query_key_value)
    query, key_value = projected.split(layer.widths, dim=-1)
    return _heads(query, layer.head_dim, layer.query_norm, cos, sin), *_keys_and_values(key_value, layer, cos, sin)


def _keys_and_values(
    projected: torch.Tensor, layer: _Layer, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    key, value = projected.chunk(2, dim=-1)
    return _heads(key, layer.head_dim, layer.key_norm, cos, sin), value.unflatten(-1, (-1, layer.head_dim))


def _heads(projected: torch.Tensor, head_dim: int, norm: Qwen3RMSNorm, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    return rotate(rms_norm(projected.unflatten(-1, (-1, head_dim)), norm), cos, sin)


def _rest(hidden: torch.Tensor, attended: torch.Tensor, layer: _Layer) -> torch.Tensor:
    """The layer after attention: output projection, MLP, and both residual connections."""
    hidden = hidden + _product(attended, layer.attention_out)
    gate, up = _product(rms_norm(hidden, layer.mlp_norm), layer.gate_up).chunk(2, dim=-1)
    return hidden.add_(_product(layer.activation(gate).mul_(up), layer.down))


def rms_norm(x: torch.Tensor, norm: Qwen3RMSNorm) -> torch.Tensor:
    """Qwen3's RMSNorm over the last axis, its mean in float32, with as few memory passes as the device allows."""
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
    attended = torch.empty_like(query)
    for span in packed.spans:
        # Prefix and suffix are separate even with a single suffix: results do not depend on how many questions are asked.
        prefix = slice(span.start, span.prefix_end)
        attended[prefix] = _attention(query[prefix], key[prefix], value[prefix], is_causal=True)
        for start, end in span.suffixes:
            keys, values = (_seen(x, span, start, end) for x in (key, value))
            mask = packed.mask(span.prefix_end - span.start, end - start, query)
            attended[start:end] = _attention(query[start:end], keys, values, attn_mask=mask)
    return attended.flatten(1)


def attend_from_ends(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packed: Packed) -> torch.Tensor:
    """As ``attend``, with queries [at least suffixes, heads, head_dim] only at the ends of the suffixes, so without a mask."""
    attended = torch.zeros_like(query)
    places = ((span, start, end) for span in packed.spans for start, end in span.suffixes)
    for line, (span, start, end) in enumerate(places):
        keys, values = (_seen(x, span, start, end) for x in (key, value))
        few = query[line : line + 1].expand(FEW, -1, -1)
        attended[line : line + 1] = _attention(few, keys, values)[:1]
    return attended.flatten(1)


def _seen(x: torch.Tensor, span: Span, start: int, end: int) -> torch.Tensor:
    """The part of ``x`` that a suffix attends to: the row's prefix and the suffix itself."""
    return x[span.start : end] if start == span.prefix_end else torch.cat([x[span.start : span.prefix_end], x[start:end]])


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
) -> torch.Tensor:
    """Queries [tokens, heads, head_dim] of one row, keys and values [seen tokens, KV heads, head_dim] -> shape of the queries.

    Query heads that share a KV head form one batch item, so keys and values are not copied per head.
    """
    query = query.unflatten(1, (key.shape[1], -1)).permute(1, 2, 0, 3)
    key, value = (x.transpose(0, 1)[:, None].expand(-1, query.shape[1], -1, -1) for x in (key, value))
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, is_causal=is_causal)
    return attended.permute(2, 0, 1, 3).flatten(1, 2)
