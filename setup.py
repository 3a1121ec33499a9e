"""Puts the demo's checkpoint and a dozen of its rooms into the package; all else is in pyproject.toml."""

import json
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "tools"))

from saiqa import facts  # noqa: E402

DEMO = HERE / facts.DEMO_FOLDER
CHECKPOINT = Path(facts.MODELS_FOLDER, facts.tuned_model())
ANNOTATIONS = Path(facts.DATA_FOLDER, facts.ANNOTATIONS_FOLDER)


class BuildWithDemo(build_py):
    """The package as it is, and ``saiqa/demo`` beside its modules."""

    def run(self):
        super().run()
        if not self.editable_mode:  # an editable installation is a clone, which has all of it
            self._copy_demo(Path(self.build_lib, "saiqa", facts.DEMO_FOLDER))

    def _copy_demo(self, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(DEMO / CHECKPOINT, target / CHECKPOINT)
        (target / ANNOTATIONS).mkdir(parents=True)
        for dimension in facts.DIMENSIONS:
            folder = Path(facts.DATA_FOLDER, facts.IMAGES_FOLDER.format(dimension=dimension))
            rooms = sorted((DEMO / folder).glob(facts.DEMO_TEST_PICTURES))[: facts.DEMO_ROOMS_EACH]
            (target / folder).mkdir(parents=True)
            for room in rooms:
                shutil.copy(room, target / folder)
            self._copy_lines(target / ANNOTATIONS, dimension, {room.name for room in rooms})

    @staticmethod
    def _copy_lines(target: Path, dimension: str, names: set[str]) -> None:
        """The annotations of these rooms alone."""
        for version in facts.PROMPT_VERSIONS:
            file = facts.annotation_jsonl(dimension, "test", version)
            lines = (DEMO / ANNOTATIONS / file).read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if Path(json.loads(line)["images"][0]).name in names]
            (target / file).write_text("".join(kept), encoding="utf-8")
        file = facts.annotation_csv(dimension, "test")
        header, *rows = (DEMO / ANNOTATIONS / file).read_text(encoding="utf-8").splitlines(keepends=True)
        stems = {Path(name).stem for name in names}
        kept = [row for row in rows if row.split(",")[0] in stems]
        if len(kept) != len(names):
            raise ValueError(f"{file} has {len(kept)} of the rows of {sorted(names)}")
        (target / file).write_text(header + "".join(kept), encoding="utf-8")


setup(cmdclass={"build_py": BuildWithDemo})
