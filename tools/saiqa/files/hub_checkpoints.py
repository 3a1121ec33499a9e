"""A checkpoint on the Hugging Face Hub, named ``owner/name``: downloaded at its first use, then kept.

Only settings, tokenizer and safetensors are downloaded, nothing that could run. They are kept in ``saiqa/owner/name`` below
huggingface_hub's folder (``HF_HOME``), with the commit they came from. Later uses need no network; remove the folder to
download the checkpoint again.
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

# The files of a checkpoint; nothing else in a repository is downloaded.
SUFFIXES = (".json", ".jinja", ".txt", ".safetensors")

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_COMMIT_FILE = ".commit"  # written when the download is complete
_MAKE_ROOM = "Make room, or set HF_HOME to a folder on another disk"


def is_id(text: str | os.PathLike) -> bool:
    """Whether a model path can only be a repository on the Hub: it reads ``owner/name`` and no such path exists here.

    It is taken for a local path if its first folder exists or is the folder of the release.
    """
    if not isinstance(text, str) or not _ID.fullmatch(text):
        return False
    owner = text.partition("/")[0]
    return owner != facts.MODELS_FOLDER and not any(os.path.exists(folders.input_path(one)) for one in (text, owner))


def fetch(repo_id: str, version: int) -> Path:
    """The local folder of a checkpoint on the Hub, downloaded if necessary, with progress on stderr.

    Args:
        repo_id: ``owner/name``, with the checkpoint at the top of the repository or, as in the release, in the folder of the
            prompt version.
        version: the prompt version.

    Raises:
        InputError: there is no such repository, it is gated, or it has no checkpoint.
        Failed: the Hub cannot be reached, or the disk is full. Complete files stay for the next attempt.
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
        raise InputError(f"{repo_id} has no {CONFIG_FILE}: it is not a checkpoint", "Check the name, or give a folder")
    here = {name for name in sizes if name.startswith(prefix) and _is_plain(name.removeprefix(prefix))}
    files = [RemoteFile(name, sizes[name] or 0) for name in sorted(here) if name.endswith(SUFFIXES)]
    if not any(file.name.endswith(".safetensors") for file in files):
        raise InputError(f"{repo_id} has no *.safetensors, the only format that is loaded", "Use another checkpoint")
    return Remote(repo_id, "model", info.sha or "main", files, sorted(here - {file.name for file in files}))


def _is_plain(name: str) -> bool:
    """Whether a name is that of a file directly in this folder, and not hidden."""
    return "/" not in name and "\\" not in name and not name.startswith(".")
