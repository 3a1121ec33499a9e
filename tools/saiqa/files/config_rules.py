"""What the native model accepts in a checkpoint's config.json: every field it reads, and the valid values.

A field that is not listed is dropped, so a configuration cannot name code, another model, or a way of loading that this
program does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from saiqa.numbers import is_finite


@dataclass(frozen=True)
class Rule:
    """Which values a field may have; ``wanted`` describes them in words."""

    wanted: str
    holds: Callable[[object], bool]


class BrokenField(ValueError):
    """A field without a usable value: ``field`` is its name, ``why`` what is wrong."""

    def __init__(self, field: str, why: str):
        super().__init__(field, why)
        self.field, self.why = field, why


def whole(least: int, most: int) -> Rule:
    """A whole number from ``least`` to ``most``."""
    return Rule(f"a whole number from {least} to {most}", lambda value: type(value) is int and least <= value <= most)


def number(least: float, most: float) -> Rule:
    """A finite number from ``least`` to ``most``."""
    return Rule(f"a number from {least:g} to {most:g}", lambda value: is_finite(value) and least <= value <= most)  # type: ignore[operator]


def one_of(*values: object) -> Rule:
    """One of these values, of the same type."""
    names = " or ".join("null" if value is None else str(value).lower() for value in values)
    return Rule(names, lambda value: any(type(value) is type(allowed) and value == allowed for allowed in values))


def null_or(rule: Rule) -> Rule:
    """As ``rule``, or null."""
    return Rule(f"null or {rule.wanted}", lambda value: value is None or rule.holds(value))


_SIZE = whole(1, 2**17)
_LAYERS = whole(1, 256)
_HEADS = whole(1, 1024)
_WORDS = whole(8, 2**21)
_ANY_COUNT = whole(-(2**53), 2**53)
_YES_OR_NO = one_of(True, False)
_SMALL = number(1e-30, 1)
_SHARE = number(0, 1)
_ACTIVATION = one_of("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "quick_gelu")
_DTYPE = one_of(None, "auto", "float32", "bfloat16", "float16")
_TOKEN = null_or(whole(0, 2**21))
_ROPE_THETA = number(1, 1e15)


def _is_plain_rope(value: object) -> bool:
    """Whether a rotary embedding is unscaled."""
    if value is None:
        return True
    known = {"rope_type": one_of("default"), "type": one_of("default"), "rope_theta": _ROPE_THETA}
    return isinstance(value, dict) and all(name in known and known[name].holds(item) for name, item in value.items())


_PLAIN_ROPE = Rule("null or of rope_type default", _is_plain_rope)
_TOKENS = Rule(
    "a token's number, a list of them or null",
    lambda value: all(map(_TOKEN.holds, value if isinstance(value, list) else [value])),
)
_FULL_ATTENTION = Rule(
    "null or a list of full_attention",
    lambda value: value is None or (isinstance(value, list) and all(item == "full_attention" for item in value)),
)
_OF_ANY = {"dtype": _DTYPE, "torch_dtype": _DTYPE, "bos_token_id": _TOKEN, "eos_token_id": _TOKENS, "pad_token_id": _TOKEN}

_RULES: dict[str, dict[str, Rule]] = {
    "": {
        **_OF_ANY,
        "model_type": one_of("ovis2_5"),
        "hidden_size": null_or(_SIZE),
        "visual_vocab_size": _WORDS,
        "tie_word_embeddings": _YES_OR_NO,
        "min_pixels": null_or(whole(1, 2**28)),
        "max_pixels": null_or(whole(1, 2**28)),
    },
    "llm_config": {
        **_OF_ANY,
        "model_type": one_of("qwen3"),
        "attention_bias": _YES_OR_NO,
        "attention_dropout": _SHARE,
        "head_dim": whole(2, 1024),
        "hidden_act": _ACTIVATION,
        "hidden_size": _SIZE,
        "initializer_range": number(0, 1000),
        "intermediate_size": _SIZE,
        "layer_types": _FULL_ATTENTION,
        "max_position_embeddings": whole(1, 2**31),
        "max_window_layers": null_or(_ANY_COUNT),
        "num_attention_heads": _HEADS,
        "num_hidden_layers": _LAYERS,
        "num_key_value_heads": _HEADS,
        "rms_norm_eps": _SMALL,
        "rope_parameters": _PLAIN_ROPE,
        "rope_scaling": _PLAIN_ROPE,
        "rope_theta": _ROPE_THETA,
        "sliding_window": null_or(_ANY_COUNT),
        "tie_word_embeddings": _YES_OR_NO,
        "use_cache": _YES_OR_NO,
        "use_sliding_window": one_of(False),
        "vocab_size": _WORDS,
    },
    "vit_config": {
        **_OF_ANY,
        "model_type": one_of("siglip2_navit"),
        "attention_dropout": _SHARE,
        "fullatt_block_indexes": one_of(None),
        "hidden_act": _ACTIVATION,
        "hidden_size": _SIZE,
        "hidden_stride": whole(1, 8),
        "image_size": whole(1, 2**14),
        "intermediate_size": _SIZE,
        "layer_norm_eps": _SMALL,
        "num_attention_heads": _HEADS,
        "num_channels": one_of(3),
        "num_hidden_layers": _LAYERS,
        "num_patches": _ANY_COUNT,
        "patch_size": whole(1, 256),
        "preserve_original_pe": one_of(True),
        "temporal_patch_size": one_of(1),
        "use_rope": one_of(True),
        "window_size": _ANY_COUNT,
    },
}
_PARTS = tuple(part for part in _RULES if part)
# Values of omitted fields, for the rules that involve several fields.
_DEFAULTS = {
    "llm_config": {"num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "hidden_size": 4096},
    "vit_config": {"num_attention_heads": 16, "hidden_size": 1152, "image_size": 512, "patch_size": 16},
}


def cleaned(config: Mapping) -> dict:
    """The content of a config.json, reduced to the fields that the native model reads.

    Raises:
        BrokenField: a field has a value that is invalid for this architecture.
    """
    if config.get("model_type") != "ovis2_5":
        raise BrokenField("model_type", f"is {_short(config.get('model_type'))}, not 'ovis2_5'")
    if config.get("quantization_config") is not None:
        raise BrokenField("quantization_config", "is given, and quantized weights cannot be read")
    result = _cleaned_part(config, "")
    for part in _PARTS:
        fields = config.get(part)
        if not isinstance(fields, dict):
            raise BrokenField(part, f"is {_short(fields)}, not an object")
        result[part] = _cleaned_part(fields, part)
    _check_together(result)
    _unite_rope(result["llm_config"])
    return result


def _unite_rope(llm: dict) -> None:
    """Keep the base of the rotary embedding in ``rope_theta`` only.

    transformers 5 saves it in ``rope_parameters``, which transformers 4 does not read: it would use its default of 10,000.
    """
    scalings = [llm.pop(name, None) or {} for name in ("rope_parameters", "rope_scaling")]
    bases = [fields["rope_theta"] for fields in (llm, *scalings) if "rope_theta" in fields]
    if any(base != bases[0] for base in bases):
        raise BrokenField("llm_config.rope_theta", f"has conflicting values, {' and '.join(map(str, bases))}")
    if bases:
        llm["rope_theta"] = bases[0]


def _cleaned_part(fields: Mapping, part: str) -> dict:
    result = {}
    for name, rule in _RULES[part].items():
        if name not in fields:
            continue
        if not rule.holds(fields[name]):
            raise BrokenField(_dotted(part, name), f"is {_short(fields[name])}, not {rule.wanted}")
        result[name] = fields[name]
    return result


def _check_together(config: dict) -> None:
    """The rules that involve several fields."""
    llm, vit = ({**_DEFAULTS[part], **config[part]} for part in _PARTS)
    if llm["num_attention_heads"] % llm["num_key_value_heads"]:
        raise BrokenField("llm_config.num_key_value_heads", f"does not divide the {llm['num_attention_heads']} heads")
    if llm["head_dim"] % 2:
        raise BrokenField("llm_config.head_dim", f"is {llm['head_dim']}, not an even number")
    if config.get("hidden_size", llm["hidden_size"]) not in (None, llm["hidden_size"]):
        raise BrokenField("hidden_size", f"is {config['hidden_size']}, but llm_config's is {llm['hidden_size']}")
    if vit["hidden_size"] % (4 * vit["num_attention_heads"]):
        raise BrokenField("vit_config.hidden_size", f"is {vit['hidden_size']}, not a multiple of four times its heads")
    if vit["image_size"] < vit["patch_size"]:
        raise BrokenField("vit_config.image_size", f"is {vit['image_size']}, less than patch_size")
    least, most = config.get("min_pixels"), config.get("max_pixels")
    if least and most and least > most:
        raise BrokenField("min_pixels", f"is {least}, more than the {most} of max_pixels")
    types = llm.get("layer_types")
    if types is not None and len(types) != llm.get("num_hidden_layers", len(types)):
        raise BrokenField("llm_config.layer_types", f"has {len(types)} entries, not num_hidden_layers")


def _dotted(part: str, name: str) -> str:
    return f"{part}.{name}" if part else name


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
