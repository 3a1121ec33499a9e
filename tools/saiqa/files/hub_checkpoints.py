"""A checkpoint on the Hugging Face Hub, named ``owner/name``: fetched the first time it is used, then kept.

Of the repository come settings, tokenizer and safetensors alone: nothing that could run. It is kept in ``saiqa/owner/name`` of
huggingface_hub's own folder (``HF_HOME``), with the commit that it was; a later use asks nobody, and removing the folder lets
it be fetched anew.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path, PurePosixPath

from saiqa import facts
from saiqa.errors import Failed, InputError
from saiqa.files import folders, hub
from saiqa.files.checkpoint_files import CONFIG_FILE
from saiqa.files.hub import Plan, Remote, RemoteFile
from saiqa.progress import Progress

# What a checkpoint consists of; everything else of a repository is left where it is.
SUFFIXES = (".json", ".jinja", ".txt", ".safetensors")

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_COMMIT_FILE = ".commit"  # there when everything is
_MAKE_ROOM = "Make room, or set HF_HOME to a folder on another disk"


def is_id(text: str | os.PathLike) -> bool:
    """Whether a model path can only mean a repository of the Hub: ``owner/name``, and there is no such path here.

    A path whose first folder is there is a path, and so is one into the folder of the release.
    """
    if not isinstance(text, str) or not _ID.fullmatch(text):
        return False
    owner = text.partition("/")[0]
    return owner != facts.MODELS_FOLDER and not any(os.path.exists(folders.input_path(one)) for one in (text, owner))


def fetch(repo_id: str, version: int) -> Path:
    """The folder of a checkpoint of the Hub, fetched if it is not here yet, with progress on stderr.

    Args:
        repo_id: ``owner/name``, with the checkpoint in the repository itself or, as in the release, in the folder of the
            prompt version.
        version: of the prompt.

    Raises:
        InputError: there is no such repository, it is gated, or has no checkpoint.
        Failed: the Hub cannot be reached, or the disk is full. What is whole stays for the next time.
    """
    from huggingface_hub import constants

    kept = Path(constants.HF_HOME, "saiqa", *repo_id.split("/"))
    inside = facts.tuned_model(version)
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with (kept.parent / f".{kept.name}.lock").open("w") as lock:  # other processes wait for the first
            fcntl.flock(lock, fcntl.LOCK_EX)
            if found := _whole(kept, inside):
                return found
            remote = _remote(repo_id, inside)
            _get(hub.plan(remote, kept))
            folder = kept / PurePosixPath(remote.files[0].name).parent
            (folder / _COMMIT_FILE).write_text(f"{remote.commit}\n", encoding="ascii")
            return folder
    except OSError as error:
        raise Failed(f"cannot write {kept}: {error.strerror or error}", _MAKE_ROOM) from error


def _whole(kept: Path, inside: str) -> Path | None:
    return next((folder for folder in (kept / inside, kept) if (folder / _COMMIT_FILE).is_file()), None)


def _get(plan: Plan) -> None:
    from huggingface_hub.utils import disable_progress_bars

    hub.check_space([plan], _MAKE_ROOM)
    disable_progress_bars()
    size = hub.shown_bytes(sum(file.bytes for file in plan.remote.files))
    with Progress(len(plan.todo), f"{plan.remote.repo_id}, {size}", unit="files") as progress:
        hub.download(plan, progress.advance)


def _remote(repo_id: str, inside: str) -> Remote:
    """The files of the checkpoint in a repository. Raises as ``fetch``."""
    from huggingface_hub import HfApi

    with hub.hub_errors(repo_id):
        info = HfApi().model_info(repo_id, files_metadata=True, timeout=hub.TIMEOUT_SECONDS)
    sizes = {one.rfilename: one.size for one in info.siblings or ()}
    prefix = next((start for start in (f"{inside}/", "") if f"{start}{CONFIG_FILE}" in sizes), None)
    if prefix is None:
        raise InputError(f"{repo_id} has no {CONFIG_FILE}: it is no checkpoint", "Check the name, or give a folder")
    here = {name for name in sizes if name.startswith(prefix) and _is_plain(name.removeprefix(prefix))}
    files = [RemoteFile(name, sizes[name] or 0) for name in sorted(here) if name.endswith(SUFFIXES)]
    if not any(file.name.endswith(".safetensors") for file in files):
        raise InputError(f"{repo_id} has no *.safetensors, and weights are loaded from nothing else", "Take another checkpoint")
    return Remote(repo_id, "model", info.sha or "main", files, sorted(here - {file.name for file in files}))


def _is_plain(name: str) -> bool:
    """Whether a name is that of a file in this very folder, and not hidden."""
    return "/" not in name and "\\" not in name and not name.startswith(".")
