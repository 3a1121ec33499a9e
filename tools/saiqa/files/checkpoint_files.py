"""The files of a checkpoint folder: which ones there are, and what may be read from them.

``config_rules`` says what may be read from config.json; ``model.checkpoint_view`` is what libraries get to see.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saiqa.errors import InputError
from saiqa.files import config_rules
from saiqa.files.config_rules import BrokenField

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
RECORD_FILE = "training.json"  # how a checkpoint was trained
VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "merges.txt")
SETTINGS = (
    "generation_config.json",
    PREPROCESSOR_FILE,
    TOKENIZER_CONFIG_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
)
TEMPLATES = ("chat_template.jinja", "chat_template.json")

# What a checkpoint consists of besides its weights.
COMPANIONS = (CONFIG_FILE, *SETTINGS, *VOCABULARY_FILES, *TEMPLATES)

DOWNLOAD_AGAIN = "Download the checkpoint again"
_LARGEST_SETTINGS = 64 * 2**20  # bytes
_LARGEST_HEADER = 100 * 10**6  # bytes; the limit of the safetensors library
_DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
# Names that make a library run or download something, or look elsewhere, at any depth of a settings file.
_REFUSED_SETTINGS = frozenset(
    ("auto_map", "custom_generate", "custom_pipelines", "trust_remote_code", "code_revision", "_commit_hash")
    + ("_name_or_path", "name_or_path", "base_model_name_or_path", "_attn_implementation", "attn_implementation")
    + ("_attn_implementation_internal", "_attn_implementation_autoset", "quantization_config", "gguf_file", "adapter_file")
    + ("tokenizer_file", "vocab_file", "merges_file", "special_tokens_map_file", "added_tokens_file", "chat_template_file")
)


# ---- settings --------------------------------------------------------------------------------------------------------


def broken(path: Path, why: str, remedy: str = DOWNLOAD_AGAIN) -> InputError:
    """The error for a file of a checkpoint that cannot be used."""
    return InputError(f"{path} {why}", remedy)


def read_object(path: Path, remedy: str = DOWNLOAD_AGAIN) -> dict:
    """The JSON object in a file of a checkpoint.

    Raises:
        InputError: it is missing, not a regular file, larger than 64 MB, or not a JSON object.
    """
    try:
        require_regular(path, remedy)
        if path.stat().st_size > _LARGEST_SETTINGS:
            raise broken(path, f"has {path.stat().st_size} bytes, too many for a settings file", remedy)
        value = json.loads(path.read_bytes().decode("utf-8"))
    except RecursionError:
        raise broken(path, "cannot be read: it is nested too deeply", remedy) from None
    except (OSError, ValueError) as error:
        raise broken(path, f"cannot be read: {str(error)[:200]}", remedy) from None
    if not isinstance(value, dict):
        raise broken(path, "is not a JSON object", remedy)
    return value


def require_regular(path: Path, remedy: str = DOWNLOAD_AGAIN) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise broken(path, "is not there", remedy) from None
    if not stat.S_ISREG(mode):
        raise broken(path, "is not a regular file", remedy)


def read_config(checkpoint: Path) -> dict:
    """The fields of a checkpoint's config.json that the native model reads, validated.

    Raises:
        InputError: as ``read_object``, or a field has no usable value; the error names it.
    """
    path = Path(checkpoint) / CONFIG_FILE
    try:
        return config_rules.cleaned(read_object(path))
    except BrokenField as error:
        remedy = "Give an Ovis2.5 checkpoint in the released format"
        raise broken(path, f"cannot be used: {error.field} {error.why}", remedy) from None


def harmless(value: object) -> object:
    """A JSON value without the refused names, at any depth."""
    if isinstance(value, dict):
        return {name: harmless(item) for name, item in value.items() if name not in _REFUSED_SETTINGS}
    if isinstance(value, list):
        return [harmless(item) for item in value]
    return value


# ---- weights ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tensor:
    """A tensor as the header of a safetensors file describes it.

    Attributes:
        file: its name in the folder.
        shape: its shape, as in torch.
        dtype: a key of ``_DTYPE_BYTES``.
        start: the tensor's first byte in the file.
    """

    file: str
    shape: tuple[int, ...]
    dtype: str
    start: int

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.numbers * _DTYPE_BYTES[self.dtype]


def weight_names(checkpoint: Path) -> list[str]:
    """Names of a checkpoint's weight files, sorted: the single file, or the shards listed in the index.

    Raises:
        InputError: the index is broken.
    """
    index = checkpoint / INDEX_FILE
    if (checkpoint / WEIGHTS_FILE).exists() or not index.exists():
        return [WEIGHTS_FILE]
    shards = read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(map(_is_shard_name, shards.values())):
        raise broken(index, "is not a safetensors index")
    return sorted(set(shards.values()))


def weight_files(checkpoint: Path) -> list[Path]:
    """A checkpoint's weight files. Raises ``InputError`` if one is missing, and as ``weight_names``."""
    files = [checkpoint / name for name in weight_names(checkpoint)]
    for file in files:
        require_regular(file)
    return files


def all_files(checkpoint: Path) -> list[Path]:
    """Every file of a checkpoint that a rating can depend on: weights, settings, vocabularies. Raises as ``weight_files``."""
    return [*weight_files(checkpoint), *(checkpoint / name for name in COMPANIONS if (checkpoint / name).is_file())]


def _is_shard_name(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and not set(name) & set("/\\\0") and not name.startswith(".")


def read_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by its name, from the headers of its files. No weight is read.

    Raises:
        InputError: a header is broken or does not match the size of its file, or a tensor occurs twice.
    """
    tensors: dict[str, Tensor] = {}
    for file in weight_files(Path(checkpoint)):
        for name, tensor in _tensors_of(file):
            if name in tensors:
                raise broken(file, f"holds {name[:100]!r}, and so does {tensors[name].file}")
            tensors[name] = tensor
    return tensors


def _tensors_of(file: Path) -> Iterator[tuple[str, Tensor]]:
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")  # of the header, a JSON object
        if size < 10 or not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise broken(file, f"is not a safetensors file, or was truncated: {size} bytes with a header of {length}")
        try:
            header = json.loads(opened.read(length).decode("utf-8"))
        except (ValueError, RecursionError):
            raise broken(file, "is not a safetensors file: its header is not JSON") from None
    if not isinstance(header, dict):
        raise broken(file, "is not a safetensors file: its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or metadata.get("format", "pt") != "pt":
        raise broken(file, "holds no torch weights", "Save the checkpoint again with transformers")
    places = []
    for name, entry in header.items():
        tensor = _checked_entry(file, name, entry, 8 + length)
        places.append((tensor.start, tensor.start + tensor.size_bytes))
        yield name, tensor
    _check_places(file, sorted(places), 8 + length, size)


def _checked_entry(file: Path, name: str, entry: object, weights_at: int) -> Tensor:
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    dtype: Any = fields.get("dtype")
    shape: Any = fields.get("shape")
    place: Any = fields.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _DTYPE_BYTES:
        why = f"has {name[:100]!r} in {str(dtype)[:40]}, not in one of {', '.join(_DTYPE_BYTES)}"
        raise broken(file, why, "Save the checkpoint again in bfloat16")
    if not _are_counts(shape, most=8) or not _are_counts(place, most=2) or len(place) != 2:
        raise broken(file, f"gives {name[:100]!r} an impossible shape or position")
    tensor = Tensor(file.name, tuple(shape), dtype, weights_at + place[0])
    if place[1] - place[0] != tensor.size_bytes:
        raise broken(file, f"gives {name[:100]!r} of shape {list(shape)} {place[1] - place[0]} bytes")
    return tensor


def _are_counts(values: object, most: int) -> bool:
    return isinstance(values, list) and len(values) <= most and all(type(n) is int and 0 <= n < 2**48 for n in values)


def _check_places(file: Path, places: list[tuple[int, int]], weights_at: int, size: int) -> None:
    end = weights_at
    for start, stop in places:
        if start != end:
            at = min(start, end) - weights_at
            raise broken(file, f"has tensors that overlap or leave a gap, at byte {at} of its weights")
        end = stop
    if end != size:
        held, wanted = size - weights_at, end - weights_at
        raise broken(file, f"holds {held} bytes of weights and should hold {wanted}; it was truncated or appended to")
