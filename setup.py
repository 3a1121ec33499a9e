"""Adds the demo's checkpoint and a dozen of its rooms to the package; everything else is in pyproject.toml."""

import json
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "tools"))

from saiqa import facts  # noqa: E402
from saiqa.files import folders  # noqa: E402

DEMO = folders.demo_folder()
ROOMS = folders.demo_rooms()
CHECKPOINT = Path(facts.MODELS_FOLDER, facts.tuned_model())


class BuildWithDemo(build_py):
    """The package with an additional folder ``saiqa/demo``."""

    def run(self):
        super().run()
        if not self.editable_mode:  # an editable installation is a clone, which has the whole demo
            copy_demo(Path(self.build_lib, "saiqa", facts.DEMO_FOLDER))


def copy_demo(target: Path) -> None:
    """Copy the demo's checkpoint, the rooms of an installed package, and only their annotations into a folder."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(DEMO / CHECKPOINT, target / CHECKPOINT)
    for file in (DEMO / facts.REFERENCE_NAME, folders.run_record_path(DEMO / facts.REFERENCE_NAME)):
        shutil.copy(file, target / file.name)
    data, target_data = DEMO / facts.DATA_FOLDER, target / facts.DATA_FOLDER
    for room in ROOMS:
        (target / room.relative_to(DEMO)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(room, target / room.relative_to(DEMO))
    (target_data / facts.ANNOTATIONS_FOLDER).mkdir()
    names, ids = {room.name for room in ROOMS}, {room.stem for room in ROOMS}
    for dimension in facts.DIMENSIONS:
        for version in facts.PROMPT_VERSIONS:
            file = folders.annotation_jsonl(data, dimension, "test", version)
            kept = [line for line in lines_of(file) if Path(json.loads(line)["images"][0]).name in names]
            write(folders.annotation_jsonl(target_data, dimension, "test", version), kept)
        header, *rows = lines_of(folders.annotation_csv(data, dimension, "test"))
        kept = [row for row in rows if row.split(",")[0] in ids]
        if len(kept) != facts.DEMO_ROOMS_EACH:
            raise ValueError(f"{len(kept)} of the demo's {dimension} rooms are in its table, not {facts.DEMO_ROOMS_EACH}")
        write(folders.annotation_csv(target_data, dimension, "test"), [header, *kept])


def lines_of(file: Path) -> list[str]:
    """The lines of a text, with their line ends."""
    return file.read_text(encoding="utf-8").splitlines(keepends=True)


def write(file: Path, lines: list[str]) -> None:
    """Write lines as returned by ``lines_of``."""
    file.write_text("".join(lines), encoding="utf-8")


setup(cmdclass={"build_py": BuildWithDemo})
