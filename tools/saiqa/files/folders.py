"""Where things are: repository, data, checkpoints, results. The names themselves are in ``facts``."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from saiqa import facts
from saiqa.errors import HAS_SCRIPTS, OR_DEMO, InputError
from saiqa.files import ids, places
from saiqa.files.places import Place, RemotePath

HOME_VARIABLE = "SAIQA_HOME"

_PACKAGE = Path(__file__).resolve().parents[1]
_CLONE = _PACKAGE.parents[1]  # the repository, if this is a clone of it

_DATA_PREFIX = f"{facts.DATA_FOLDER}/"


# ---- roots -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Roots:
    """The three top-level folders: benchmark, checkpoints, results."""

    data: Path
    models: Path
    results: Path


@functools.cache
def home() -> Path:
    """The folder that holds everything by default: ``SAIQA_HOME``, or the repository, or the working directory."""
    if os.environ.get(HOME_VARIABLE):
        return Path(os.environ[HOME_VARIABLE]).expanduser().absolute()
    return _CLONE if HAS_SCRIPTS else Path.cwd()


def demo_folder() -> Path:
    """The embedded demo: complete in the repository; its checkpoint and a dozen of its rooms in an installed package."""
    packed = _PACKAGE / facts.DEMO_FOLDER
    return packed if packed.is_dir() else _CLONE / facts.DEMO_FOLDER


def demo_rooms() -> list[Path]:
    """A dozen of the demo's rooms, three test pictures per dimension: the ones in an installed package."""
    return demo_test_rooms(facts.DEMO_ROOMS_EACH)


def demo_test_rooms(each: int | None = None) -> list[Path]:
    """The demo's test pictures, dimension by dimension: all, or the first ``each`` of every dimension."""
    images = demo_folder() / facts.DATA_FOLDER
    folders = [images / facts.IMAGES_FOLDER.format(dimension=dimension) for dimension in facts.DIMENSIONS]
    return [file for folder in folders for file in sorted(folder.glob(facts.DEMO_TEST_PICTURES))[:each]]


def roots(demo: bool = False) -> Roots:
    """The default folders; the demo has its own, so it never overwrites a real result."""
    base = demo_folder() if demo else home()
    results = home() / facts.RESULTS_FOLDER
    return Roots(
        data=base / facts.DATA_FOLDER,
        models=base / facts.MODELS_FOLDER,
        results=results / facts.DEMO_FOLDER if demo else results,
    )


def input_path(text: str | os.PathLike) -> Path:
    """A path typed by the user: relative to the working directory, or to ``home`` if it exists only there."""
    path = Path(text).expanduser()
    at_home = home() / path
    # os.path.exists: a name that is too long or invalid counts as missing
    return at_home if not os.path.exists(path) and os.path.exists(at_home) else path


def data_path(text: str | os.PathLike) -> Place:
    """As ``input_path``, or a URL: data may be in an object store. Raises as ``places.place``."""
    return places.place(text) if places.is_url(str(text)) else input_path(text)


def output_path(text: str | Path) -> Path:
    """A path to write to, typed by the user: relative to the working directory. Raises ``InputError`` for a URL."""
    if places.is_url(str(text)):
        raise InputError(f"{text}: results can only be written to local folders", "Give a path without ://")
    return Path(text).expanduser()


def shown(path: Place) -> str:
    """A path as messages show it: relative to the working directory if it is inside it."""
    if isinstance(path, RemotePath):
        return str(path)
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


# ---- data ------------------------------------------------------------------------------------------------------------


def annotation_csv(data_root: Place, dimension: str, split: str) -> Place:
    """The path of a dimension's table of ratings."""
    return data_root / facts.ANNOTATIONS_FOLDER / facts.annotation_csv(dimension, split)


def annotation_jsonl(data_root: Place, dimension: str, split: str, version: int) -> Place:
    """The path of a dimension's questions and answers."""
    return data_root / facts.ANNOTATIONS_FOLDER / facts.annotation_jsonl(dimension, split, version)


def dimension_in_name(path: str | Place) -> str | None:
    """The dimension that a file name starts with, e.g. lighting for ``lighting_3k_test_prompt4.jsonl``."""
    first = PurePath(str(path)).name.split("_")[0]
    return first if first in facts.DIMENSIONS else None


def version_in_name(path: str | Place) -> int | None:
    """The prompt version in a file name, e.g. 4 for ``lighting_3k_test_prompt4.jsonl``."""
    found = re.search(r"_prompt(\d+)", PurePath(str(path)).name)
    return int(found[1]) if found else None


def resolve_image(text: str, data_root: Place) -> Place:
    """The file that an image path of a record refers to, as ``image_file`` finds it."""
    file = image_file(text, data_root)
    return Path(file) if isinstance(file, str) else file


def image_file(text: str, data_root: Place) -> str | RemotePath:
    """The file that an image path of a record refers to; it need not exist. A string if local: there may be millions.

    A leading ``SA-BENCH/`` stands for the data root, whatever its name. URLs and absolute paths are kept. Any other path is
    looked for in the data root (if that is a folder), ``home`` and the working directory. Raises ``InputError`` for a URL
    whose protocol is not supported.
    """
    if places.is_url(text):
        return _text_or_remote(places.place(text))
    if text.startswith("/"):
        return text
    inside = text.removeprefix("./")
    if inside.startswith(_DATA_PREFIX):
        rest = inside[len(_DATA_PREFIX) :].lstrip("/")
        return data_root / rest if isinstance(data_root, RemotePath) else f"{data_root}/{rest}"
    return _text_or_remote(_found_image(text, data_root))


def _found_image(text: str, data_root: Place) -> Place:
    if isinstance(data_root, RemotePath):
        candidates = [root / text for root in (home(), Path.cwd())]
        return next((candidate for candidate in candidates if os.path.exists(candidate)), data_root / text)
    candidates = [root / text for root in (data_root, home(), Path.cwd())]
    return next((candidate for candidate in candidates if os.path.exists(candidate)), candidates[0])


def _text_or_remote(place: Place) -> str | RemotePath:
    return place if isinstance(place, RemotePath) else os.fspath(place)


def image_id(image: str) -> str:
    """The id of an image: its file name without the last suffix, as text."""
    name = places.url_name(image) if places.is_url(image) else image.rstrip("/").rpartition("/")[2]
    stem, dot, _ = name.rpartition(".")
    return stem if stem and dot and not name.endswith(".") else name


def require_data(*paths: Place) -> None:
    """Raise one error for all missing benchmark files, with the command that downloads them."""
    if missing := [path for path in paths if not path.is_file()]:
        raise missing_data(not_there(missing))


def not_there(missing: Sequence[Place]) -> str:
    """A sentence saying that these files are missing."""
    return f"{ids.few(map(shown, missing), len(missing))} {'is' if len(missing) == 1 else 'are'} not there"


def missing_data(what: str) -> InputError:
    """The error for a missing part of the benchmark."""
    return InputError(what, f"Check the path, or get the benchmark with {downloads('data')}{OR_DEMO}")


def downloads(*parts: str) -> str:
    return f"`{facts.download_command(*parts)}` in {home()}"


# ---- files beside a result -------------------------------------------------------------------------------------------


def partial_path(output: Path) -> Path:
    """The path for the finished lines of an unfinished result."""
    return output.with_name(output.name + ".partial")


def run_record_path(output: Path) -> Path:
    """The path of the record of how a result was made."""
    return output.with_name(output.stem + ".run.json")


def limited(output: Path, limit: int | None) -> Path:
    """The output of a run over the first ``limit`` images only: its name says so."""
    return output if limit is None else output.with_name(f"{output.stem}_limit{limit}{output.suffix}")
