"""Files that are written completely or not at all, most of them text, and errors that name the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from saiqa.errors import Failed, InputError
from saiqa.files import folders
from saiqa.files.places import Place


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[str]]:
    """A text file that replaces ``path`` only if the block ends without an error.

    Raises:
        Failed: the folder cannot be written to.
    """
    with _temporary(path) as temporary, _nameless(path.parent, temporary) as descriptor:
        # errors: a lone surrogate becomes the escape that JSON uses for it
        with open(descriptor, "w", encoding="utf-8", newline="", errors="backslashreplace", closefd=False) as file:
            yield file
        _give_name(descriptor, path, temporary)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A free name beside ``path``; what is made there takes the place of ``path`` when the block ends without an error.

    Raises:
        Failed: the folder cannot be written to.
    """
    with _temporary(path) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A free name in the folder of ``path``, which is created; nothing stays under that name. Raises ``Failed``."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def _nameless(folder: Path, name: Path) -> Iterator[int]:
    """A new file for writing that has no name yet (if the file system supports that), so a kill leaves nothing behind."""
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except (AttributeError, OSError):  # not Linux, or a file system without O_TMPFILE
        descriptor = os.open(name, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _give_name(descriptor: int, path: Path, temporary: Path) -> None:
    """Move a written file of ``_nameless`` to ``path``; only if ``path`` exists does it get a temporary name first."""
    if os.fstat(descriptor).st_nlink == 0:
        try:
            _link(descriptor, path)
            return
        except FileExistsError:
            temporary.unlink(missing_ok=True)
            _link(descriptor, temporary)
    os.replace(temporary, path)


def _link(descriptor: int, name: Path) -> None:
    # src_dir_fd is not used (the path is absolute): it makes Python call linkat, which follows the link under /proc.
    os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=descriptor, follow_symlinks=True)


def check_writable(path: Path) -> None:
    """Check before the work, without writing, that ``path`` can be written. Raises ``Failed``."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise cannot_write(path, "it is a folder" if path.is_dir() else f"{folders.shown(folder)} takes no new files")


def cannot_write(path: Path, reason: str) -> Failed:
    return Failed(f"cannot write {folders.shown(path)}: {reason}", "Choose another folder")


def write_text(path: Path, text: str) -> None:
    """Write a file, completely or not at all."""
    with atomic_writer(path) as file:
        file.write(text)


def read_text(path: Place) -> str:
    """The text of a file, with its line ends."""
    with reading(path):
        text = path.read_bytes().decode("utf-8-sig")
    if not text.strip():
        raise empty_file(path)
    return text


@contextmanager
def reading(path: Place) -> Iterator[None]:
    """Turn the errors of reading a text file into ``InputError``."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{folders.shown(path)} is not there", "Check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {folders.shown(path)}: {error}", "It must be a UTF-8 text file") from None


def empty_file(path: Place) -> InputError:
    return InputError(f"{folders.shown(path)} is empty", "Download or make it again")


def readable(text: str) -> str:
    """A name as valid UTF-8: a lone surrogate becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
