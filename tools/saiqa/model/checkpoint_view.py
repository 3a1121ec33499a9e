"""The view of a checkpoint that is loaded.

A checkpoint may come from people one does not know. Whatever loads it (this package, transformers, ms-swift) gets a *view*: a
folder with only the files listed here, settings without anything that names code or another model, and weights whose headers
have been checked. So libraries never see a bundle's Python files, adapters, pickles or addresses.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saiqa.files import scratch
from saiqa.files.checkpoint_files import (
    CONFIG_FILE,
    INDEX_FILE,
    SETTINGS,
    TEMPLATES,
    TOKENIZER_CONFIG_FILE,
    VOCABULARY_FILES,
    WEIGHTS_FILE,
    broken,
    harmless,
    read_config,
    read_object,
    read_tensors,
    require_regular,
    weight_files,
)

_TOKENIZERS = ("Qwen2Tokenizer", "Qwen2TokenizerFast", "PreTrainedTokenizerFast")
_SWITCHING = threading.RLock()  # offline mode applies to the whole process


@contextlib.contextmanager
def view_of(checkpoint: str | Path) -> Iterator[Path]:
    """The view of a checkpoint, in a temporary folder. Raises ``InputError`` as ``make_view``."""
    with scratch.folder() as folder:
        yield make_view(checkpoint, folder)


def make_view(checkpoint: str | Path, view: str | Path) -> Path:
    """Fill the empty or missing folder ``view`` with the files of a checkpoint that may be loaded; returns the folder.

    Weights and vocabularies are symbolic links; settings are rewritten.

    Raises:
        InputError: a file is missing or cannot be used; the error says which, and why.
    """
    checkpoint, view = Path(checkpoint).resolve(), Path(view)
    config, tensors = read_config(checkpoint), read_tensors(checkpoint)
    there = [name for name in SETTINGS if (checkpoint / name).exists()]
    settings: dict[str, Any] = {name: harmless(read_object(checkpoint / name)) for name in there}
    _check_tokenizer(checkpoint, settings.get(TOKENIZER_CONFIG_FILE, {}))
    view.mkdir(parents=True, exist_ok=True)
    for name, content in {CONFIG_FILE: config, **settings}.items():
        _write(view / name, content)
    files = weight_files(checkpoint)
    if files != [checkpoint / WEIGHTS_FILE]:
        _write(view / INDEX_FILE, {"metadata": {}, "weight_map": {name: tensor.file for name, tensor in tensors.items()}})
    plain = [checkpoint / name for name in (*VOCABULARY_FILES, *TEMPLATES) if (checkpoint / name).exists()]
    for file in (*files, *plain):
        require_regular(file)
        (view / file.name).symlink_to(file.resolve())
    return view


def _check_tokenizer(checkpoint: Path, settings: dict) -> None:
    name = settings.get("tokenizer_class", _TOKENIZERS[0])
    if name not in _TOKENIZERS:
        why = f"names {str(name)[:60]!r} as tokenizer_class, not one of {', '.join(_TOKENIZERS)}"
        raise broken(checkpoint / TOKENIZER_CONFIG_FILE, why, "Use the base model's tokenizer")
    single, *pair = ((checkpoint / name).exists() for name in VOCABULARY_FILES)
    if not single and not all(pair):
        raise broken(checkpoint, f"has no tokenizer: neither {VOCABULARY_FILES[0]} nor vocab.json with merges.txt")


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def hub_off() -> Iterator[None]:
    """Within, transformers and huggingface_hub are offline in this process, whatever a checkpoint says."""
    import huggingface_hub
    from transformers.utils import hub

    switches = [(huggingface_hub.constants, "HF_HUB_OFFLINE"), (hub, "_is_offline_mode")]
    before = [(module, name, getattr(module, name)) for module, name in switches if hasattr(module, name)]
    # A session keeps the mode it was created with, so open sessions are closed before and after.
    forget_sessions = getattr(huggingface_hub.utils, "reset_sessions", None) or huggingface_hub.close_session
    with _SWITCHING:
        for module, name, _ in before:
            setattr(module, name, True)
        forget_sessions()
        try:
            yield
        finally:
            for module, name, value in before:
                setattr(module, name, value)
            forget_sessions()
