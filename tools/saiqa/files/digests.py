"""Digests of texts and of whole files; each machine reads a file once until it changes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from saiqa.errors import Failed
from saiqa.files.text_files import write_text

_CACHE = Path("saiqa") / "digests.json"  # below the user's cache folder
_MOST_ENTRIES = 10_000


def of_files(files: Sequence[Path]) -> list[str]:
    """SHA-256 of each file, in hexadecimal digits.

    Digests are cached in the user's cache folder (``XDG_CACHE_HOME``) and reused while the file keeps its device, inode, size,
    modification time and change time; programs cannot set the last one back.
    """
    cache = _read_cache()
    keys = [_key(file) for file in files]
    new = {key: file for key, file in zip(keys, files, strict=True) if key not in cache}
    if new:
        from concurrent.futures import ThreadPoolExecutor  # not at the top: --help must be fast

        with ThreadPoolExecutor(os.cpu_count()) as readers:
            read = dict(zip(new, readers.map(of_file, new.values()), strict=True))
        # A file that was written to while it was read has another key by now, and is read again next time.
        stable = {key: digest for key, digest in read.items() if _key(new[key]) == key}
        _write_cache({**_read_cache(), **stable})
        cache |= read
    return [cache[key] for key in keys]


def of_file(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def text_digest(text: str) -> int:
    """A 64-bit digest of a text: among a million texts, any two collide with a probability of 3e-8."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _key(file: Path) -> str:
    status = file.stat()
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _cache_file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / _CACHE


def _read_cache() -> dict[str, str]:
    try:
        kept = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # none yet, cut short, or no home
        return {}
    return {key: digest for key, digest in kept.items() if isinstance(digest, str)} if isinstance(kept, dict) else {}


def _write_cache(entries: dict[str, str]) -> None:
    """Best effort: if the cache cannot be written, files are read every time."""
    with suppress(Failed, RuntimeError):
        write_text(_cache_file(), json.dumps(dict(list(entries.items())[-_MOST_ENTRIES:])))
