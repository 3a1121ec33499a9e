"""The released files on the Hugging Face Hub: list a part, find out what is missing locally, and download it.

huggingface_hub does the listing, the transfers and the retries after a broken connection; it also reads the usual environment
variables (``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE``).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast

from saiqa import facts
from saiqa.errors import Failed, InputError, first_line
from saiqa.files.folders import shown

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo, ModelInfo

# Weights are read from safetensors only; other formats are not downloaded, nor is anything that could run as code.
WEIGHTS_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".onnx", ".gguf")
CODE_SUFFIXES = (".py",)

_SPARE_BYTES = 256 * 1024**2  # left free on the disk
_PARALLEL_FILES = 8
TIMEOUT_SECONDS = 30
_BEGUN = ".cache/huggingface/download"  # where huggingface_hub keeps partial files, too
_AGAIN = "Run the same command again: it continues where it stopped"


@dataclass(frozen=True)
class Part:
    """Something to download: folders of one of the two repositories.

    Attributes:
        repository: its name without the owner, which is also the name of the local folder.
        folders: the folders of the repository that belong to the part.
        title: what it is, for display.
    """

    repository: str
    folders: tuple[str, ...]
    title: str


def parts(version: int = facts.RECOMMENDED) -> dict[str, Part]:
    """Name of a part -> the part; the model is the one tuned on a prompt version."""
    images = PurePosixPath(facts.IMAGES_FOLDER).parts[0]
    return {
        "model": Part(facts.MODELS_FOLDER, (facts.tuned_model(version),), "the scorer"),
        "base_model": Part(facts.MODELS_FOLDER, (facts.BASE_MODEL_FOLDER,), "what training starts from"),
        "annotations": Part(facts.DATA_FOLDER, (facts.ANNOTATIONS_FOLDER,), "ratings and sentences, a few MB"),
        "data": Part(facts.DATA_FOLDER, (facts.ANNOTATIONS_FOLDER, images), "annotations and images"),
    }


# ---- what the Hub has ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its name with folders, and its size."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Remote:
    """The files of a part in one owner's repository.

    Attributes:
        repo_id: ``owner/name``.
        repo_type: ``model`` or ``dataset``.
        commit: the commit of the repository.
        files: the files to download for the part.
        left_out: names of the part's files that are code or unwanted weight formats.
    """

    repo_id: str
    repo_type: str
    commit: str
    files: list[RemoteFile]
    left_out: list[str]


def find(part: Part, owners: Sequence[str], with_code: bool = False) -> Remote:
    """The files of a part at the first owner who has them.

    Raises:
        Failed: the Hub cannot be reached or answers with an error.
        InputError: no owner has the repository, it is gated, or it lacks the part.
    """
    from huggingface_hub import HfApi

    repo_type = facts.HUB_REPOSITORIES[part.repository]
    refusals = []
    for owner in owners:
        repo_id = f"{owner}/{part.repository}"
        try:
            with hub_errors(repo_id):
                info = HfApi().repo_info(repo_id, repo_type=repo_type, files_metadata=True, timeout=TIMEOUT_SECONDS)
            return _remote(part, cast("ModelInfo | DatasetInfo", info), repo_id, repo_type, with_code)
        except Refused as refusal:
            refusals.append(refusal)
    what = f"cannot get {part.repository}: {', '.join(refusal.what for refusal in refusals)}"
    raise InputError(what, next((refusal.remedy for refusal in refusals if refusal.remedy), "Check --owner and HF_ENDPOINT"))


def _remote(part: Part, info: ModelInfo | DatasetInfo, repo_id: str, repo_type: str, with_code: bool) -> Remote:
    unwanted = WEIGHTS_SUFFIXES if with_code else WEIGHTS_SUFFIXES + CODE_SUFFIXES
    files, left_out = [], []
    for sibling in info.siblings or ():
        path = PurePosixPath(sibling.rfilename)
        if path.is_absolute() or ".." in path.parts or path.parts[0] not in part.folders:
            continue
        if path.suffix.lower() in unwanted:
            left_out.append(sibling.rfilename)
        elif sibling.size is None:
            raise Failed(f"{repo_id} does not report the size of {sibling.rfilename}", "Try again later")
        else:
            files.append(RemoteFile(sibling.rfilename, sibling.size))
    missing = [folder for folder in part.folders if not any(file.name.startswith(f"{folder}/") for file in files)]
    if missing:
        there = sorted({PurePosixPath(sibling.rfilename).parts[0] for sibling in info.siblings or ()})
        raise InputError(f"{repo_id} has no folder {missing[0]}", f"It has {', '.join(there) or 'nothing'}")
    return Remote(repo_id, repo_type, info.sha or "main", files, left_out)


# ---- what is missing here --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A download into a folder.

    Attributes:
        remote: the source.
        folder: the destination.
        todo: the files that are missing or incomplete.
        bytes_begun: how many bytes of them an interrupted download has left.
    """

    remote: Remote
    folder: Path
    todo: list[RemoteFile]
    bytes_begun: int

    @property
    def bytes_needed(self) -> int:
        """The disk space that the rest of the download takes."""
        return max(0, sum(file.bytes for file in self.todo) - self.bytes_begun)


def plan(remote: Remote, folder: Path) -> Plan:
    """What is left to download into ``folder``."""
    todo = [file for file in remote.files if _size(folder / file.name) != file.bytes]
    begun = sum(path.stat().st_size for path in folder.glob(f"{_BEGUN}/**/*.incomplete"))
    return Plan(remote, folder, todo, begun if todo else 0)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def check_space(plans: Sequence[Plan], remedy: str = "Make room, or choose another disk with --output_dir") -> None:
    """Raise ``Failed`` if a disk has too little space for its downloads."""
    needed: dict[int, tuple[Path, int]] = {}
    for one in plans:
        place = next(parent for parent in (one.folder.absolute(), *one.folder.absolute().parents) if parent.exists())
        device = place.stat().st_dev
        needed[device] = (place, needed.get(device, (place, 0))[1] + one.bytes_needed)
    for place, size in needed.values():
        free = shutil.disk_usage(place).free
        if size and size + _SPARE_BYTES > free:
            what = f"{shown_bytes(size)} are needed in {shown(place)}, but only {shown_bytes(free)} are free"
            raise Failed(what, remedy)


def shown_bytes(count: int) -> str:
    """A number of bytes for display: 18.2 GB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


# ---- getting it ------------------------------------------------------------------------------------------------------


def download(one: Plan, advance: Callable[[], None]) -> None:
    """Download what is left, several files at a time, and check the size of every file.

    Args:
        advance: called after each file.

    Raises:
        InputError: the files are gated.
        Failed: the Hub cannot be reached, the connection breaks, or a file has the wrong size. Complete files stay; the next
            call resumes incomplete ones.
    """
    from concurrent.futures import ThreadPoolExecutor, as_completed  # not at the top: --help is to be quick

    pool = ThreadPoolExecutor(_PARALLEL_FILES)
    try:
        started = [pool.submit(_download_file, one, file) for file in one.todo]
        for future in as_completed(started):
            with hub_errors(one.remote.repo_id):
                future.result()
            advance()
    finally:
        pool.shutdown(cancel_futures=True)
    for file in one.remote.files:
        size = _size(one.folder / file.name)
        if size != file.bytes:
            what = f"{shown(one.folder / file.name)} has {size} bytes and should have {file.bytes}"
            raise Failed(what, _AGAIN)


def _download_file(one: Plan, file: RemoteFile) -> None:
    """Download one file, resuming an earlier attempt.

    ``hf_hub_download``, and thus ``snapshot_download``, would start the file over; ``http_get``, which they use, can resume.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    remote, begun = one.remote, _begun(one, file)
    begun.parent.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(remote.repo_id, file.name, repo_type=remote.repo_type, revision=remote.commit)
    with begun.open("ab") as stream:
        if stream.tell() > file.bytes:
            stream.truncate(0)
        if stream.tell() < file.bytes:
            http_get(url, stream, resume_size=stream.tell(), headers=build_hf_headers())
    target = one.folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(begun, target)


def _begun(one: Plan, file: RemoteFile) -> Path:
    """Where a file is kept until it is complete; each commit of the repository has its own."""
    return one.folder / _BEGUN / f"{file.name}.{one.remote.commit[:12]}.incomplete"


class Refused(InputError):
    """A repository that does not exist, or to which access is restricted."""


def _refused(status: int, gated: bool, repo_id: str) -> Refused:
    if status == 404:
        return Refused(f"{repo_id} is not there")
    remedy = "Accept the conditions on its page, then run `hf auth login` or set HF_TOKEN"
    return Refused(f"{repo_id} is {'gated' if gated else 'not there or private'} ({status})", remedy)


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Turn the Hub's errors into errors with a remedy: ``Refused`` if the repository refuses, else ``Failed``."""
    from httpx import RequestError
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404):
            raise _refused(status, isinstance(error, GatedRepoError), repo_id) from error
        raise Failed(f"the Hub answered {status} to {error.response.url}", _AGAIN) from error
    except RequestError as error:
        raise _unreachable(error) from error
    except OSError as error:  # huggingface_hub's own OSErrors have no errno
        if error.errno is None or isinstance(error, ConnectionError):
            raise _unreachable(error) from error
        raise Failed(f"cannot write {error.filename}: {error.strerror}", "Make room or choose another folder") from error


def _unreachable(error: BaseException) -> Failed:
    from huggingface_hub.errors import OfflineModeIsEnabled

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if isinstance(error, OfflineModeIsEnabled):
        return Failed(f"cannot download from {endpoint}: HF_HUB_OFFLINE is set", "Unset it")
    return Failed(f"cannot download from {endpoint}: {first_line(error)}", f"Check the network. {_AGAIN}")
