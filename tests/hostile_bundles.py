"""Damaged and hostile checkpoints, one function each, which changes a copy of the small bundle in place.

``CASES`` must be refused with one line; ``TRAPS`` are valid checkpoints with additional files or entries that would run code,
or direct a library elsewhere, if they were ever read.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Change = Callable[[Path], object]

CASES: dict[str, Change] = {}
TRAPS: dict[str, Change] = {}

WEIGHTS = "model.safetensors"
A_TENSOR = "llm.model.layers.0.mlp.up_proj.weight"


def edited(name: str, edit: Callable[[dict], object]) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        edit(content)
        (folder / name).write_text(json.dumps(content))

    return change


def written(name: str, content: str | bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def removed(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink() for name in names]


def as_fifo(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def with_weights(edit: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def change(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        edit(weights)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return change


def with_bytes(edit: Callable[[bytes], bytes]) -> Change:
    return lambda folder: (folder / WEIGHTS).write_bytes(edit((folder / WEIGHTS).read_bytes()))


def with_header(edit: Callable[[dict], object]) -> Change:
    def rewrite(content: bytes) -> bytes:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        edited_header = edit(header)
        text = json.dumps(header if edited_header is None else edited_header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return with_bytes(rewrite)


def of_config(part: str, **fields: object) -> Change:
    return edited("config.json", lambda config: (config[part] if part else config).update(fields))


def set_in(value: float) -> Change:
    return with_weights(lambda weights: weights[A_TENSOR].view(-1).__setitem__(7, value))


# ---- weights ---------------------------------------------------------------------------------------------------------

for share in (0, 4, 8, 100, 5000, 400_000, -1):
    CASES[f"weights cut at {share}"] = with_bytes(lambda content, share=share: content[:share])
CASES |= {
    "weights padded": with_bytes(lambda content: content + b"\0" * 64),
    "weights garbage": written(WEIGHTS, b"\x80\x02garbage" * 1000),
    "weights a pickle": written(WEIGHTS, b"\x80\x04c__builtin__\neval\n(Vprint(1)\ntR."),
    "weights missing": removed(WEIGHTS),
    "weights a fifo": as_fifo(WEIGHTS),
    "header length huge": with_bytes(lambda content: b"\xff" * 8 + content[8:]),
    "header length zero": with_bytes(lambda content: b"\0" * 8 + content[8:]),
    "header no json": with_bytes(lambda content: content[:8] + b"{" * 40 + content[48:]),
    "header a list": with_header(lambda header: [1, 2]),
    "header deep": with_bytes(lambda content: struct.pack("<Q", 90_000) + b"[" * 90_000),
    "header empty": with_header(lambda header: {}),
    "header without an entry": with_header(lambda header: header.pop(A_TENSOR) and None),
    "entry a list": with_header(lambda header: header.__setitem__(A_TENSOR, [])),
    "entry null": with_header(lambda header: header.__setitem__(A_TENSOR, None)),
    "dtype unknown": with_header(lambda header: header[A_TENSOR].__setitem__("dtype", "Q7")),
    "dtype whole numbers": with_header(lambda header: header[A_TENSOR].__setitem__("dtype", "I32")),
    "dtype a list": with_header(lambda header: header[A_TENSOR].__setitem__("dtype", ["F32"])),
    "dtype narrower": with_header(lambda header: header[A_TENSOR].__setitem__("dtype", "BF16")),
    "shape negative": with_header(lambda header: header[A_TENSOR].__setitem__("shape", [-192, -64])),
    "shape huge": with_header(lambda header: header[A_TENSOR].__setitem__("shape", [2**62, 2**62])),
    "shape a text": with_header(lambda header: header[A_TENSOR].__setitem__("shape", "192x64")),
    "shape of floats": with_header(lambda header: header[A_TENSOR].__setitem__("shape", [192.0, 64.0])),
    "shape turned": with_header(lambda header: header[A_TENSOR]["shape"].reverse()),
    "offsets swapped": with_header(lambda header: header[A_TENSOR]["data_offsets"].reverse()),
    "offsets shared": with_header(
        lambda header: header[A_TENSOR].__setitem__(
            "data_offsets", header[A_TENSOR.replace("layers.0", "layers.1")]["data_offsets"]
        )
    ),
    "offsets beyond the file": with_header(
        lambda header: header[A_TENSOR].__setitem__("data_offsets", [n + 10**9 for n in header[A_TENSOR]["data_offsets"]])
    ),
    "metadata a list": with_header(lambda header: header.__setitem__("__metadata__", [1])),
    "metadata of flax": with_header(lambda header: header.__setitem__("__metadata__", {"format": "flax"})),
    "tensor missing": with_weights(lambda weights: weights.pop(A_TENSOR)),
    "head missing": with_weights(lambda weights: weights.pop("llm.lm_head.weight")),
    "tensor more": with_weights(lambda weights: weights.__setitem__("llm.extra.weight", torch.ones(3))),
    "tensor renamed": with_weights(lambda weights: weights.__setitem__("x" * 5000, weights.pop(A_TENSOR))),
    "tensor flat": with_weights(lambda weights: weights.__setitem__(A_TENSOR, weights[A_TENSOR].flatten())),
    "tensor of another width": with_weights(lambda weights: weights.__setitem__(A_TENSOR, torch.ones(192, 65))),
    "tensor of whole numbers": with_weights(lambda weights: weights.__setitem__(A_TENSOR, weights[A_TENSOR].int())),
    "weights nan": set_in(float("nan")),
    "weights inf": set_in(float("inf")),
    "weights minus inf": set_in(float("-inf")),
}


def sharded(weight_map: object) -> Change:
    def change(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "model-00001-of-00001.safetensors")
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    return change


CASES |= {
    "index a list": sharded(["model-00001-of-00001.safetensors"]),
    "index empty": sharded({}),
    "index names a folder": sharded({"a": "../model-00001-of-00001.safetensors"}),
    "index names a device": sharded({"a": "/dev/zero"}),
    "index names a pickle": sharded({"a": "model.bin"}),
    "index names numbers": sharded({"a": 7}),
    "index names what is not there": sharded({"a": "model-00002-of-00002.safetensors"}),
}

# ---- config.json -----------------------------------------------------------------------------------------------------

NESTED = "[" * 100_000
_FIELDS = {
    "": {
        "model_type": ["qwen3", None, 7],
        "visual_vocab_size": [0, -5, "many", 10**15],
        "hidden_size": [65, [64]],
        "min_pixels": [-1, "few"],
        "max_pixels": [0, 10**15],
        "llm_config": [None, [], "qwen3"],
        "vit_config": [[], 5],
        "quantization_config": [{"quant_method": "gptq", "bits": 4}],
    },
    "llm_config": {
        "hidden_size": [0, 10**12],
        "num_attention_heads": [0, -4, 3.5],
        "num_key_value_heads": [0, 3],
        "num_hidden_layers": [0, 10**9],
        "head_dim": [0, 31],
        "vocab_size": [7, 10**12],
        "rope_theta": [0, -1, float("nan"), "big"],
        "rope_parameters": [{"rope_type": "default", "rope_theta": 10.0}],
        "rope_scaling": [{"rope_type": "dynamic", "factor": 2.0}],
        "rms_norm_eps": [float("nan"), 0, -1],
        "hidden_act": ["os.system", None],
        "layer_types": [["sliding_attention"] * 2, ["full_attention"] * 9],
        "model_type": ["llama"],
        "use_sliding_window": [True],
    },
    "vit_config": {
        "hidden_size": [0, 47],
        "num_attention_heads": [0, 5],
        "num_hidden_layers": [0],
        "patch_size": [0, 10**6],
        "image_size": [1, -512],
        "hidden_stride": [0, 100],
        "num_channels": [4],
        "layer_norm_eps": [float("inf")],
        "temporal_patch_size": [2],
    },
}
for part, fields in _FIELDS.items():
    for name, values in fields.items():
        for value in values:
            CASES[f"config {part or 'top'}.{name} {str(value)[:20]}"] = of_config(part, **{name: value})
CASES |= {
    "config empty": written("config.json", ""),
    "config a list": written("config.json", "[1, 2]"),
    "config cut": lambda folder: written("config.json", (folder / "config.json").read_bytes()[:200])(folder),
    "config deep": written("config.json", NESTED),
    "config no text": written("config.json", b"\xff\xfe\x00{"),
    "config a long number": written("config.json", '{"model_type": ' + "9" * 10_000 + "}"),
    "config a fifo": as_fifo("config.json"),
    "config missing": removed("config.json"),
}

# ---- preprocessor, tokenizer, arguments ------------------------------------------------------------------------------


def without_merges(folder: Path) -> None:
    """A tokenizer that spells words letter by letter."""
    edited("tokenizer.json", lambda file: file["model"].update(merges=[]))(folder)


CASES |= {
    "preprocessor missing": removed("preprocessor_config.json"),
    "preprocessor deep": written("preprocessor_config.json", NESTED),
    "preprocessor a fifo": as_fifo("preprocessor_config.json"),
    "preprocessor a list": written("preprocessor_config.json", "[]"),
    "preprocessor resample": edited("preprocessor_config.json", lambda file: file.update(resample=99)),
    "preprocessor std zero": edited("preprocessor_config.json", lambda file: file.update(image_std=[0, 1, 1])),
    "preprocessor mean nan": edited("preprocessor_config.json", lambda file: file.update(image_mean=[float("nan")] * 3)),
    "tokenizer missing": removed("tokenizer.json", "vocab.json", "merges.txt"),
    "tokenizer garbage": written("tokenizer.json", "{]"),
    "tokenizer empty object": written("tokenizer.json", "{}"),
    "tokenizer of another kind": written("tokenizer.json", '{"version": "1.0", "model": {"type": "Nope"}}'),
    "tokenizer no text": written("tokenizer.json", b"\xff" * 100),
    "tokenizer a fifo": as_fifo("tokenizer.json"),
    "tokenizer deep": written("tokenizer.json", NESTED),
    "tokenizer lacks a word": without_merges,
    "tokenizer class unknown": edited("tokenizer_config.json", lambda file: file.update(tokenizer_class="EvilTokenizer")),
    "tokenizer class a list": edited("tokenizer_config.json", lambda file: file.update(tokenizer_class=["Qwen2Tokenizer"])),
    "tokenizer settings a list": written("tokenizer_config.json", "[]"),
    "tokenizer settings deep": written("tokenizer_config.json", NESTED),
    "tokenizer settings a fifo": as_fifo("tokenizer_config.json"),
    "arguments garbage": written("args.json", "{"),
    "arguments deep": written("args.json", NESTED),
    "arguments a list": written("args.json", "[]"),
    "arguments system a list": written("args.json", '{"system": ["a"]}'),
    "arguments a fifo": as_fifo("args.json"),
    "generation settings deep": written("generation_config.json", NESTED),
    "generation settings a fifo": as_fifo("generation_config.json"),
}

# ---- traps -----------------------------------------------------------------------------------------------------------


def planted(folder: Path) -> None:
    """Python files under every name that a library could look for; each creates a file if it runs."""
    code = f"open({str(folder.parent / 'canary')!r}, 'w').close()\n"
    ours = ("modeling_ovis2_5", "configuration_ovis2_5", "tokenization_x", "processing_x")
    for name in (*ours, "custom_generate/generate", "__init__"):
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)


def with_map(file: str, place: Callable[[Path], str], depth: int = 0) -> Change:
    """``auto_map`` for every Auto class, naming a module in ``place``; at a depth in the file's object."""

    def change(folder: Path) -> None:
        planted(folder)
        prefix = place(folder)
        names = {
            "AutoConfig": f"{prefix}configuration_ovis2_5.OvisConfig",
            "AutoModelForCausalLM": f"{prefix}modeling_ovis2_5.Ovis2_5",
            "AutoTokenizer": [f"{prefix}tokenization_x.X", f"{prefix}tokenization_x.X"],
            "AutoProcessor": f"{prefix}processing_x.X",
            "AutoImageProcessor": f"{prefix}processing_x.X",
        }

        def edit(content: dict) -> None:
            for _ in range(depth):
                content = content.setdefault("llm_config" if file == "config.json" else "more", {})
            content["auto_map"] = names

        edited(file, edit)(folder)

    return change


def pickled(folder: Path) -> None:
    """Pickles that create a file if they are opened."""
    code = f"c__builtin__\nexec\n(Vopen({str(folder.parent / 'canary')!r}, 'w').close()\ntR.".encode()
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth", "pytorch_model.bin.index.json"):
        (folder / name).write_bytes(code)


_PLACES = {"here": lambda folder: "", "absolute": lambda folder: f"{folder}--", "hub": lambda folder: "someone/model--"}
for file in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
    for kind, place in _PLACES.items():
        TRAPS[f"auto_map {kind} in {file}"] = with_map(file, place)
TRAPS |= {
    "auto_map deep in config.json": with_map("config.json", _PLACES["here"], depth=1),
    "auto_map deep in tokenizer_config.json": with_map("tokenizer_config.json", _PLACES["absolute"], depth=2),
    "custom_generate folder": planted,
    "custom_generate in generation_config.json": edited(
        "generation_config.json", lambda file: file.update(custom_generate="someone/model", trust_remote_code=True)
    ),
    "adapter": written("adapter_config.json", '{"base_model_name_or_path": "someone/model", "peft_type": "LORA"}'),
    "pickles": pickled,
    "kernels of a hub": of_config("", attn_implementation="someone/kernels", _attn_implementation="someone/kernels"),
    "another name in config.json": of_config("", _name_or_path="someone/model", name_or_path="someone/model"),
    "another name in tokenizer_config.json": edited(
        "tokenizer_config.json", lambda file: file.update(name_or_path="someone/model", tokenizer_file="/etc/passwd")
    ),
    "plugins in args.json": edited("args.json", lambda file: file.update(external_plugins=["evil.py"], model="someone/model")),
}
